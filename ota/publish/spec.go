package publish

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// ErrSpec is returned for a SPEC file that says something that cannot be. The
// error starts with the file and the line.
var ErrSpec = errors.New("not the description of a release")

// maxSpec is the longest SPEC file in bytes.
const maxSpec = 1 << 20

// specFile is a SPEC file; [ReadSpec] says what its keys mean.
type specFile struct {
	Product       at[string]      `yaml:"product"`
	Variant       at[string]      `yaml:"variant"`
	Version       at[string]      `yaml:"version"`
	Seq           at[uint64]      `yaml:"seq"`
	Attempt       at[uint32]      `yaml:"attempt"`
	Hardware      at[[]string]    `yaml:"hardware"`
	SecurityFloor at[uint64]      `yaml:"securityFloor"`
	LateRollback  at[string]      `yaml:"lateRollback"`
	Issued        at[time.Time]   `yaml:"issued"`
	Components    []specComponent `yaml:"components"`
	Scripts       []specScript    `yaml:"scripts"`
}

type specComponent struct {
	Name    at[string]   `yaml:"name"`
	Kind    at[string]   `yaml:"kind"`
	From    at[string]   `yaml:"from"`
	Carry   []at[string] `yaml:"carry"`
	Absent  []at[string] `yaml:"absent"`
	Partial at[bool]     `yaml:"partial"`
	Owner   *struct {
		UID at[uint32] `yaml:"uid"`
		GID at[uint32] `yaml:"gid"`
	} `yaml:"owner"`
	SELinux at[bool] `yaml:"selinux"`
	Keep    *struct {
		Previous at[int]            `yaml:"previous"`
		Repair   at[release.Repair] `yaml:"repair"`
	} `yaml:"keep"`
	Options  at[map[string]any] `yaml:"options"`
	Services []specService      `yaml:"services"`
	Scripts  []specScript       `yaml:"scripts"`

	Platform at[string]                   `yaml:"platform"`
	Profiles []at[string]                 `yaml:"profiles"`
	Env      at[map[string]*string]       `yaml:"env"`
	EnvFile  []at[string]                 `yaml:"env-file"`
	Images   at[map[string]at[specImage]] `yaml:"images"`
}

// at is a value with the line that it stands in; 0 means nowhere.
type at[T any] struct {
	value T
	line  int
}

func (a *at[T]) UnmarshalYAML(node *yaml.Node) error {
	a.line = node.Line
	return node.Decode(&a.value)
}

// ReadSpec reads a SPEC file, in YAML:
//
//	product: gateway          # default: the repository's
//	variant: arm64            # default: "default"
//	version: 1.7.0            # a label for people
//	seq: 7                    # default: the last one and 1
//	attempt: 1
//	hardware: [rev-a, rev-b]  # default: all of the variant
//	securityFloor: 5
//	lateRollback: forbid      # default: allow devices to go back by themselves after the commit
//	issued: 2026-09-01T12:00:00Z  # default: now
//	components:
//	  - name: app
//	    kind: files
//	    from: ../build/app    # relative to the file
//	    carry: [var/data]     # paths of the app's own
//	    absent: [etc/old]     # paths to be removed (in-place layout)
//	    partial: true         # leave folders out (in-place layout)
//	    owner: {uid: 0, gid: 0}             # default: as they are
//	    keep: {previous: 1, repair: none}   # none, changed or full
//	    selinux: true         # take the label security.selinux too
//	    options: {}           # for the backend
//	    services:             # go into options
//	      - name: camera.service
//	        do: around        # around (default), restart, reload or start
//	    scripts:              # run where the release changes the component
//	      - name: stop-camera # default: that of the file
//	        at: before-activate   # see release.Point
//	        run: scripts/stop.sh  # relative to the file
//	        undo: scripts/start.sh
//	        limit: 30s        # for each of the two
//	  - name: gateway
//	    kind: compose
//	    from: compose.yaml
//	    platform: linux/arm64 # of the devices
//	    profiles: [field]     # whose services belong to the app
//	    env: {TAG: "7", CI:}  # variables of the file; without a value: the publisher's
//	    env-file: [prod.env]  # more of them
//	    images:               # where each image comes from, by its name in the file
//	      acme/app:7: oci:build/app         # OCI layout, a folder or a tar
//	      acme/db:3: docker-archive:db.tar  # docker save
//	      acme/job:1: engine                # the Docker engine here
//	      redis:7: {from: registry, pull: true}  # devices pull it by digest
//	      "*": registry                     # all others
//	scripts: []               # of the transaction as a whole
//
// A key that it does not know is an error. Errors wrap [ErrSpec].
func ReadSpec(path string) (Spec, error) {
	f, err := os.Open(path)
	if err != nil {
		return Spec{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSpec+1))
	if err != nil {
		return Spec{}, err
	}
	if len(data) > maxSpec {
		return Spec{}, specError(path, 0, "longer than %d bytes", maxSpec)
	}
	return parseSpec(path, data)
}

// parseSpec reads data, which is what the file at path holds.
func parseSpec(path string, data []byte) (Spec, error) {
	var file specFile
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil {
		return Spec{}, yamlError(path, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return Spec{}, specError(path, 0, "holds more than one document")
	}
	return file.spec(path)
}

func specError(path string, line int, format string, args ...any) error {
	if line > 0 {
		path += ":" + strconv.Itoa(line)
	}
	return fmt.Errorf("%s: %w: %s", path, ErrSpec, fmt.Sprintf(format, args...))
}

// yamlError puts the line that the YAML library names behind the file.
func yamlError(path string, err error) error {
	if errors.Is(err, io.EOF) {
		return specError(path, 0, "empty")
	}
	text := err.Error()
	if list, ok := errors.AsType[*yaml.TypeError](err); ok && len(list.Errors) > 0 {
		text = list.Errors[0]
	}
	text = strings.TrimPrefix(text, "yaml: ")
	line := 0
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		number, after, _ := strings.Cut(rest, ": ")
		if n, err := strconv.Atoi(number); err == nil {
			line, text = n, after
		}
	}
	if key, ok := strings.CutPrefix(text, "field "); ok {
		key, _, _ = strings.Cut(key, " not found")
		text = "unknown key " + strconv.Quote(key)
	}
	return specError(path, line, "%s", text)
}

// spec checks what stands in the file and returns it.
func (f *specFile) spec(path string) (Spec, error) {
	s := Spec{Product: f.Product.value, Variant: f.Variant.value, Version: f.Version.value, Seq: f.Seq.value,
		Attempt: f.Attempt.value, Hardware: f.Hardware.value, SecurityFloor: f.SecurityFloor.value, Issued: f.Issued.value}
	for _, name := range []at[string]{f.Product, f.Variant} {
		if err := release.CheckName(name.value); err != nil && name.line > 0 {
			return s, specError(path, name.line, "%v", err)
		}
	}
	if f.Version.value == "" {
		return s, specError(path, f.Version.line, "version is missing")
	}
	if f.Seq.line > 0 && (f.Seq.value == 0 || f.Seq.value > release.MaxSeq) {
		return s, specError(path, f.Seq.line, "seq %d is not from 1 to %d", f.Seq.value, uint64(release.MaxSeq))
	}
	switch f.LateRollback.value {
	case "", "allow":
	case string(release.LateForbidden):
		s.LateRollback = release.LateForbidden
	default:
		return s, specError(path, f.LateRollback.line, "lateRollback %q is not allow or forbid", f.LateRollback.value)
	}
	if len(f.Components) == 0 {
		return s, specError(path, 0, "components is missing or empty")
	}
	scripts := &specScripts{path: path}
	var err error
	if s.Scripts, err = scripts.ofRelease(f.Scripts, f.Version.line); err != nil {
		return s, err
	}
	lines := map[string]int{}
	for i := range f.Components {
		c, err := f.Components[i].component(path)
		if err != nil {
			return s, err
		}
		if c.Scripts, err = scripts.ofComponent(&f.Components[i]); err != nil {
			return s, err
		}
		if first, ok := lines[c.Name]; ok {
			return s, specError(path, f.Components[i].Name.line, "component %q stands in line %d already", c.Name, first)
		}
		lines[c.Name] = f.Components[i].Name.line
		s.Components = append(s.Components, c)
	}
	return s, nil
}

func (f *specComponent) component(path string) (Component, error) {
	c := Component{Name: f.Name.value, Kind: f.Kind.value, Scan: ScanOptions{SELinux: f.SELinux.value}}
	if err := release.CheckName(c.Name); err != nil {
		return c, specError(path, max(f.Name.line, f.From.line, f.Kind.line), "component name: %v", err)
	}
	if c.Kind != kindFiles && c.Kind != compose.Kind {
		return c, specError(path, max(f.Kind.line, f.Name.line), "component %q: kind %q is not %q or %q", c.Name, c.Kind, kindFiles, compose.Kind)
	}
	if f.From.value == "" {
		return c, specError(path, f.Name.line, "component %q: from is missing", c.Name)
	}
	c.From = besides(path, f.From.value)
	if err := f.keep(&c, path); err != nil {
		return c, err
	}
	read := f.files
	if c.Kind == compose.Kind {
		read = f.compose
	}
	if err := read(&c, path); err != nil {
		return c, err
	}
	return c, f.options(&c, path)
}

// besides is a path as seen from the file that it stands in.
func besides(file, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(file), path)
}

// files reads what is said of a component of files.
func (f *specComponent) files(c *Component, path string) (err error) {
	if line := f.composeLine(); line > 0 {
		return specError(path, line, "component %q: platform, profiles, env, env-file and images are for kind %q", c.Name, compose.Kind)
	}
	if info, err := os.Stat(c.From); err != nil {
		return specError(path, f.From.line, "component %q: from: %v", c.Name, err)
	} else if !info.IsDir() {
		return specError(path, f.From.line, "component %q: from: %s is not a folder", c.Name, c.From)
	}
	if c.Scan.Carry, err = f.paths(path, "carry", f.Carry); err != nil {
		return err
	}
	if c.Scan.Absent, err = f.paths(path, "absent", f.Absent); err != nil {
		return err
	}
	c.Scan.Partial = f.Partial.value
	if f.Owner != nil {
		c.Scan.Owner = &Owner{UID: f.Owner.UID.value, GID: f.Owner.GID.value}
	}
	return nil
}

// paths checks a list of paths that the tree does not hold.
func (f *specComponent) paths(file, key string, list []at[string]) (paths []string, err error) {
	for _, p := range list {
		if err := release.CheckPath(p.value); err != nil || p.value == "." {
			return nil, specError(file, p.line, "component %q: %s: %q is not the path of an entry", f.Name.value, key, p.value)
		}
		paths = append(paths, p.value)
	}
	return paths, nil
}

func (f *specComponent) keep(c *Component, path string) error {
	c.Keep = defaultKeep
	if f.Keep == nil {
		return nil
	}
	previous, repair := f.Keep.Previous, f.Keep.Repair
	if previous.line > 0 {
		c.Keep.Previous = previous.value
	}
	if repair.line > 0 {
		c.Keep.Repair = repair.value
	}
	if c.Keep.Previous < 0 || c.Keep.Previous > release.MaxPrevious {
		return specError(path, previous.line, "component %q: keep: previous %d is not from 0 to %d", c.Name, c.Keep.Previous, release.MaxPrevious)
	}
	switch c.Keep.Repair {
	case release.RepairNone, release.RepairChanged, release.RepairFull:
		return nil
	}
	return specError(path, repair.line, "component %q: keep: repair %q is not none, changed or full", c.Name, c.Keep.Repair)
}

func (f *specComponent) options(c *Component, path string) error {
	services, err := f.services(path)
	if err != nil {
		return err
	}
	options := maps.Clone(f.Options.value)
	if len(services) > 0 {
		if _, ok := options[serviceKey]; ok {
			return specError(path, f.Options.line, "component %q: options: %s stands here and as a key of the component", c.Name, serviceKey)
		}
		if options == nil {
			options = map[string]any{}
		}
		options[serviceKey] = services
	}
	if options == nil {
		return nil
	}
	data, err := json.Marshal(options)
	if err != nil {
		return specError(path, f.Options.line, "component %q: options: %v", c.Name, err)
	}
	if len(data) > release.MaxOptions {
		return specError(path, cmp.Or(f.Options.line, f.Name.line), "component %q: options of %d bytes are longer than %d", c.Name, len(data), release.MaxOptions)
	}
	c.Options = data
	return nil
}
