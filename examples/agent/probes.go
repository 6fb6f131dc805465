package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/monitor/probe"
)

// question is one entry of health in the configuration: one of the kinds, and
// how it is asked.
type question struct {
	Name string `json:"name"`

	Exec        []string     `json:"exec"`
	HTTP        *page        `json:"http"`
	TCP         string       `json:"tcp"`
	Unit        string       `json:"unit"`
	Process     *process     `json:"process"`
	File        *freshFile   `json:"file"`
	Disk        *diskRoom    `json:"disk"`
	Memory      *memoryRoom  `json:"memory"`
	Temperature *temperature `json:"temperature"`
	All         []question   `json:"all"`
	Any         []question   `json:"any"`
	Marked      bool         `json:"marked"`

	// Restarts belongs to Unit, and Least to Any.
	Restarts int `json:"restarts"`
	Least    int `json:"least"`

	Interval  duration `json:"interval"`
	Timeout   duration `json:"timeout"`
	Successes int      `json:"successes"`
	Failures  int      `json:"failures"`
	Advisory  bool     `json:"advisory"`
}

type page struct {
	URL    string   `json:"url"`
	Status []int    `json:"status"`
	Body   string   `json:"body"`
	CA     string   `json:"ca"`
	Valid  duration `json:"valid"`
}

type process struct {
	Name    string `json:"name"`
	PIDFile string `json:"pidFile"`
	Least   int    `json:"least"`
}

type freshFile struct {
	Path string   `json:"path"`
	Age  duration `json:"age"`
}

type diskRoom struct {
	Path        string  `json:"path"`
	FreeBytes   int64   `json:"freeBytes"`
	FreePercent float64 `json:"freePercent"`
	FreeInodes  int64   `json:"freeInodes"`
}

type memoryRoom struct {
	AvailableBytes   int64   `json:"availableBytes"`
	AvailablePercent float64 `json:"availablePercent"`
}

type temperature struct {
	Max     float64 `json:"max"`
	Sensors string  `json:"sensors"`
}

// probePhase tells a program what it is asked for.
const probePhase = "PAWL_PHASE=health"

// paths hands on the paths of files in the entry.
func (q *question) paths(each func(*string)) {
	switch {
	case q.HTTP != nil:
		each(&q.HTTP.CA)
	case q.Process != nil:
		each(&q.Process.PIDFile)
	case q.File != nil:
		each(&q.File.Path)
	case q.Disk != nil:
		each(&q.Disk.Path)
	}
	for i := range q.All {
		q.All[i].paths(each)
	}
	for i := range q.Any {
		q.Any[i].paths(each)
	}
}

// probeSet makes parts of a Health.
type probeSet struct {
	config *config
	once   bool
	names  map[string]int
}

// part makes what one entry stands for. An error begins with the key.
func (s *probeSet) part(q question) (monitor.Part, error) {
	kind, err := q.kind()
	if err != nil {
		return nil, err
	}
	var part monitor.Part
	switch kind {
	case "all", "any":
		part, err = s.group(q)
	default:
		part, err = s.probe(kind, q)
	}
	if err == nil && q.Advisory {
		part = monitor.Advisory(part)
	}
	return part, err
}

// kind returns the one kind that the entry has.
func (q question) kind() (kind string, err error) {
	for _, k := range []struct {
		word string
		is   bool
	}{
		{"exec", q.Exec != nil}, {"http", q.HTTP != nil}, {"tcp", q.TCP != ""}, {"unit", q.Unit != ""}, {"process", q.Process != nil},
		{"file", q.File != nil}, {"disk", q.Disk != nil}, {"memory", q.Memory != nil}, {"temperature", q.Temperature != nil},
		{"all", q.All != nil}, {"any", q.Any != nil}, {"marked", q.Marked},
	} {
		switch {
		case k.is && kind != "":
			return "", fmt.Errorf("%s: it asks by %s already", k.word, kind)
		case k.is:
			kind = k.word
		}
	}
	switch {
	case kind == "":
		return "", errors.New("exec, http, tcp, unit, process, file, disk, memory, temperature, marked, all or any is needed")
	case q.Restarts != 0 && kind != "unit":
		return "", errors.New("restarts: it belongs to unit")
	case q.Least != 0 && kind != "any":
		return "", errors.New("least: it belongs to any")
	}
	return kind, nil
}

// group makes all or any of several.
func (s *probeSet) group(q question) (monitor.Part, error) {
	if q.Name != "" || q.Interval != 0 || q.Timeout != 0 || q.Successes != 0 || q.Failures != 0 {
		return nil, errors.New("name: name, interval, timeout, successes and failures belong to the entries of a group")
	}
	var parts []monitor.Part
	for i, one := range append(q.All, q.Any...) {
		part, err := s.part(one)
		if err != nil {
			return nil, fmt.Errorf("%s[%d].%w", map[bool]string{true: "all", false: "any"}[q.All != nil], i, err)
		}
		parts = append(parts, part)
	}
	if q.All != nil {
		return monitor.All(parts...), nil
	}
	return monitor.AtLeast(max(q.Least, 1), parts...), nil
}

// probe makes one that is asked.
func (s *probeSet) probe(kind string, q question) (monitor.Part, error) {
	ask, about, err := q.ask(kind, s.config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	p := monitor.Probe{
		Name: q.Name, Ask: ask, Interval: time.Duration(q.Interval), Timeout: time.Duration(q.Timeout),
		Successes: q.Successes, Failures: q.Failures,
	}
	if s.once {
		p.Successes, p.Failures = 1, 1
	}
	if p.Timeout == 0 {
		p.Timeout = s.config.Trial.timeout()
	}
	if p.Name == "" {
		p.Name = s.name(strings.TrimSpace(kind + " " + about))
	}
	return p, nil
}

// name makes one that no other probe has.
func (s *probeSet) name(of string) string {
	of = clipped(of)
	if s.names[of]++; s.names[of] > 1 {
		return fmt.Sprintf("%s #%d", of, s.names[of])
	}
	return of
}

// clipped is a name that is short enough, with some room behind it.
func clipped(name string) string {
	const most = 56
	if len(name) > most {
		name = name[:most]
	}
	return plain(name)
}

// ask returns the question, and what it is about.
func (q question) ask(kind string, c *config) (ask monitor.Ask, about string, err error) {
	switch kind {
	case "exec":
		if len(q.Exec) == 0 || q.Exec[0] == "" {
			return nil, "", errors.New("it is empty")
		}
		return probe.Exec{Args: q.Exec, Env: []string{probePhase}}.Ask(), filepath.Base(q.Exec[0]), nil
	case "tcp":
		return probe.TCP(q.TCP), q.TCP, nil
	}
	return q.askMore(kind, c)
}
