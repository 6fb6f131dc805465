//go:build monitor

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

// monitoring is what the configuration says of run and report.
type monitoring struct {
	run    runs
	report *reports // nil: nobody is told
}

// runs configures the command run.
type runs struct {
	Look     duration `json:"look"`
	Health   duration `json:"health"`
	Late     late     `json:"late"`
	Watchdog string   `json:"watchdog"`
	Stay     bool     `json:"stay"`
}

// late is how long health is looked at after a commit.
type late struct {
	Off      bool     `json:"off"`
	For      duration `json:"for"`
	Interval duration `json:"interval"`
	Failures int      `json:"failures"`
}

// reports says who is told of the device, and what is measured.
type reports struct {
	endpoint
	MQTT       *broker   `json:"mqtt"`
	OTLP       *endpoint `json:"otlp"`
	Prometheus string    `json:"prometheus"`

	Interval duration `json:"interval"`
	Wait     duration `json:"wait"`
	MaxBytes int64    `json:"maxBytes"`
	MaxAge   duration `json:"maxAge"`

	Metrics measured `json:"metrics"`
	Alerts  rules    `json:"alerts"`
}

// endpoint takes reports over HTTP.
type endpoint struct {
	URL string `json:"url"`
	// Headers may be secret, so that nothing prints them.
	Headers map[string]string `json:"headers"`
	identity
}

// identity is whom the device trusts, and what it is trusted by.
type identity struct {
	CA   string `json:"ca"`
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

// broker takes reports over MQTT.
type broker struct {
	URL          string `json:"url"`
	Prefix       string `json:"prefix"`
	Username     string `json:"username"`
	PasswordFile string `json:"passwordFile"`
	identity
}

type measured struct {
	Off      bool     `json:"off"`
	Interval duration `json:"interval"`
	Emit     duration `json:"emit"`
	Paths    []string `json:"paths"`
	Units    []string `json:"units"`
}

// rules are files of alert rules: of the device's owner, and of the release.
type rules struct {
	File    string `json:"file"`
	Release string `json:"release"`
}

// parse reads what the configuration says, and names what cannot be used.
func (m *monitoring) parse(run, report json.RawMessage, device string) error {
	if run != nil {
		if err := decode(run, &m.run); err != nil {
			return fmt.Errorf("run: %w", err)
		}
	}
	if m.run.Late.Failures < 0 {
		return errors.New("run.late.failures is negative")
	}
	if report == nil {
		return nil
	}
	m.report = &reports{}
	if err := decode(report, m.report); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if device == "" {
		return errors.New("report: device.id is empty")
	}
	if err := m.report.check(); err != nil {
		return fmt.Errorf("report.%w", err)
	}
	return nil
}

func (r *reports) check() error {
	switch {
	case r.URL == "" && r.MQTT == nil && r.OTLP == nil && r.Prometheus == "":
		return errors.New("url: one of url, mqtt, otlp and prometheus is needed")
	case r.URL != "" && r.MQTT != nil:
		return errors.New("mqtt: only one of url and mqtt is possible")
	case r.MaxBytes < 0:
		return errors.New("maxBytes is negative")
	case r.Prometheus != "" && !strings.HasSuffix(r.Prometheus, ".prom"):
		return errors.New("prometheus does not end in .prom")
	}
	for _, e := range []struct {
		key string
		*endpoint
	}{{"", &r.endpoint}, {"otlp.", r.OTLP}} {
		if e.endpoint == nil || e.key == "" && e.URL == "" {
			continue
		}
		if err := e.check(); err != nil {
			return fmt.Errorf("%s%w", e.key, err)
		}
	}
	if r.MQTT != nil {
		if err := r.MQTT.identity.check(); err != nil {
			return fmt.Errorf("mqtt.%w", err)
		}
	}
	return nil
}

func (e *endpoint) check() error {
	if u, err := url.Parse(e.URL); err != nil || u.Host == "" || !isWeb(e.URL) {
		return errors.New("url is not one of http:// or https://")
	}
	return e.identity.check()
}

func (i identity) check() error {
	if (i.Cert == "") != (i.Key == "") {
		return errors.New("cert: cert and key belong together")
	}
	return nil
}

func (i *identity) paths(each func(*string)) {
	each(&i.CA)
	each(&i.Cert)
	each(&i.Key)
}

// paths hands on the paths of files.
func (m *monitoring) paths(each func(*string)) {
	each(&m.run.Watchdog)
	r := m.report
	if r == nil {
		return
	}
	for _, p := range []*string{&r.Prometheus, &r.Alerts.File, &r.Alerts.Release} {
		each(p)
	}
	r.identity.paths(each)
	if r.OTLP != nil {
		r.OTLP.identity.paths(each)
	}
	if r.MQTT != nil {
		each(&r.MQTT.PasswordFile)
		r.MQTT.identity.paths(each)
	}
}

// or returns d, or what stands for 0.
func (d duration) or(zero time.Duration) time.Duration { return cmp.Or(time.Duration(d), zero) }

// outboxDir is where events wait until they were sent.
func (c *config) outboxDir() string { return filepath.Join(c.State, "outbox") }

// otherKeys says that there are no others.
const otherKeys = ""

// otherVerbs says that there are no others.
const otherVerbs = ""

// withMore adds the commands of this agent.
func withMore(all map[string]command) map[string]command {
	all["run"] = command{what: "look for updates again and again, watch the device and report, until it is stopped", alone: true, run: daemon}
	all["bundle-logs"] = command{what: "write one archive for support, without secrets: bundle-logs [FILE]", alone: true, run: bundleLogs}
	all["mark-good"] = command{what: "the app says that the release on trial is well, where health asks for that", alone: true, run: markGood}
	all["mark-bad"] = command{what: "the app says that the release is not: mark-bad [WHY]", alone: true, run: markBad}
	return all
}
