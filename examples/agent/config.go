package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// config is the agent's FILE. Paths are relative to the folder of FILE.
type config struct {
	State      string               `json:"state"`
	Device     ota.Device           `json:"device"`
	Source     source               `json:"source"`
	Components map[string]component `json:"components"`
	Supervisor *supervisor          `json:"supervisor"`
	Trial      trial                `json:"trial"`
	Health     []question           `json:"health"`
	Limits     limits               `json:"limits"`
	// Run and Report are for an agent that was built with -tags monitor.
	Run    json.RawMessage `json:"run"`
	Report json.RawMessage `json:"report"`

	monitor monitoring // Run and Report
}

type source struct {
	URL  string `json:"url"`
	Root string `json:"root"`
	CA   string `json:"ca"`
	Cert string `json:"cert"`
	Key  string `json:"key"`
	// Headers go with each request. They may be secret, so that nothing
	// prints them.
	Headers    map[string]string `json:"headers"`
	MaxStale   duration          `json:"maxStale"`
	TrustClock bool              `json:"trustClock"`
}

// The kinds of components.
const (
	kindFiles   = "files"
	kindCompose = "compose"
)

type component struct {
	Kind string `json:"kind"`
	// Of kind "files".
	Root        string `json:"root"`
	Layout      string `json:"layout"`
	Spool       string `json:"spool"`
	Restart     bool   `json:"restart"`
	IgnoreOwner bool   `json:"ignoreOwner"`
	// Of kind "compose".
	Engine string   `json:"engine"`
	Login  []string `json:"login"`
	Revive []string `json:"revive"`
	Wipe   []string `json:"wipe"`
}

type trial struct {
	Soak     duration `json:"soak"`
	Deadline duration `json:"deadline"`
	Interval duration `json:"interval"`
	Timeout  duration `json:"timeout"`
	Failures int      `json:"failures"`
	Starts   int      `json:"starts"`
}

type limits struct {
	Lock    duration `json:"lock"`
	Stage   duration `json:"stage"`
	Step    duration `json:"step"`
	Stall   duration `json:"stall"`
	Rate    int64    `json:"rate"`    // bytes a second
	Reserve int64    `json:"reserve"` // bytes
}

// duration is written like "30s" or "1h30m".
type duration time.Duration

func (d *duration) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("a duration is a text like \"30s\", not %.40s", data)
	}
	parsed, err := time.ParseDuration(text)
	if err != nil || parsed < 0 {
		return fmt.Errorf("%.40q is not a duration like \"30s\"", text)
	}
	*d = duration(parsed)
	return nil
}

// Limits of a configuration, so that a damaged one is refused in little memory.
const (
	maxConfig     = 64 << 10 // bytes
	maxComponents = 256
	maxProbes     = 64
)

// loadConfig reads and checks the configuration at path.
func loadConfig(path string) (*config, error) {
	if path == "" {
		return nil, errors.New("-config FILE is needed")
	}
	data, err := readAtMost(path, maxConfig)
	if err != nil {
		return nil, err
	}
	c, err := parseConfig(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	c.resolve(dir)
	return c, nil
}

// readAtMost reads a file and refuses one of more than max bytes.
func readAtMost(path string, max int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(data)) > max {
		return nil, fmt.Errorf("%s: longer than %d bytes", path, max)
	}
	return data, err
}

func parseConfig(data []byte) (*config, error) {
	c := &config{}
	if err := decode(data, c); err != nil {
		return nil, err
	}
	return c, c.check()
}

// decode reads one JSON value with no key that v does not have.
func decode(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%w%s", err, otherKeys)
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("something follows the configuration")
	}
	return nil
}

// check names the first field that cannot be used.
func (c *config) check() error {
	switch {
	case c.State == "":
		return errors.New("state is empty")
	case len(c.Components) == 0 || len(c.Components) > maxComponents:
		return fmt.Errorf("components: 1 to %d are needed, there are %d", maxComponents, len(c.Components))
	case len(c.Health) > maxProbes:
		return fmt.Errorf("health: at most %d checks are allowed, there are %d", maxProbes, len(c.Health))
	case (c.Source.URL == "") != (c.Source.Root == ""):
		return errors.New("source: url and root belong together")
	case (c.Source.Cert == "") != (c.Source.Key == ""):
		return errors.New("source: cert and key belong together")
	case c.Limits.Rate < 0:
		return errors.New("limits.rate is negative")
	case c.Limits.Reserve < 0:
		return errors.New("limits.reserve is negative")
	}
	if err := c.Supervisor.check(); err != nil {
		return err
	}
	if err := c.monitor.parse(c.Run, c.Report, c.Device.ID); err != nil {
		return err
	}
	for name, comp := range c.Components {
		if err := comp.check(name); err != nil {
			return fmt.Errorf("components: %w", err)
		}
	}
	_, err := (&agent{config: c}).newHealth(nil, false, nil)
	return err
}

func (c component) check(name string) error {
	switch {
	case release.CheckName(name) != nil:
		return release.CheckName(name)
	case c.Kind == kindCompose && !withContainers:
		return fmt.Errorf("%s.kind: this agent knows no %q: build it with go build -tags containers", name, c.Kind)
	case c.Kind == kindCompose:
		return c.checkApp(name)
	case c.Kind != kindFiles:
		return fmt.Errorf("%s.kind: %q is not known, only \"files\" and \"compose\" are", name, c.Kind)
	case c.Engine != "" || len(c.Login)+len(c.Revive)+len(c.Wipe) > 0:
		return fmt.Errorf("%s: engine, login, revive and wipe belong to the kind \"compose\"", name)
	case c.Layout != "tree" && c.Layout != "inplace":
		return fmt.Errorf("%s.layout: %q is not known, only \"tree\" and \"inplace\" are", name, c.Layout)
	case c.Root == "":
		return fmt.Errorf("%s.root is empty", name)
	}
	return nil
}

func (c component) checkApp(name string) error {
	if c.Root != "" || c.Layout != "" || c.Spool != "" || c.Restart || c.IgnoreOwner {
		return fmt.Errorf("%s: root, layout, spool, restart and ignoreOwner belong to the kind \"files\"", name)
	}
	for _, argv := range [][]string{c.Login, c.Revive, c.Wipe} {
		if len(argv) > 0 && argv[0] == "" {
			return fmt.Errorf("%s: login, revive and wipe begin with a program", name)
		}
	}
	return nil
}

// resolve makes the paths absolute, from dir.
func (c *config) resolve(dir string) {
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	for _, p := range []*string{&c.State, &c.Source.Root, &c.Source.CA, &c.Source.Cert, &c.Source.Key} {
		abs(p)
	}
	if !isWeb(c.Source.URL) {
		abs(&c.Source.URL)
	}
	for i := range c.Health {
		c.Health[i].paths(abs)
	}
	c.monitor.paths(abs)
	for name, comp := range c.Components {
		abs(&comp.Root)
		abs(&comp.Spool)
		c.Components[name] = comp
	}
}
