//go:build monitor

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"time"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/monitor/probe"
	"github.com/pawl-ota/pawl/monitor/probe/web"
)

// otherKinds are what only this agent knows to ask.
type otherKinds struct {
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

// make makes what one entry stands for.
func (s *probeSet) make(q question) (monitor.Part, error) {
	kind, err := q.kind()
	switch {
	case err != nil:
		return nil, err
	case kind == "exec":
		return s.program(q)
	case kind == "all" || kind == "any":
		return s.group(q)
	}
	ask, about, err := q.ask(kind, s.config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	return s.probe(q, kind+" "+about, ask), nil
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

// ask returns the question, and what it is about.
func (q question) ask(kind string, c *config) (ask monitor.Ask, about string, err error) {
	switch kind {
	case "tcp":
		return probe.TCP(q.TCP), q.TCP, nil
	case "marked":
		return askMark(c), "", nil
	case "http":
		return q.HTTP.ask()
	case "unit":
		return probe.Unit{Name: q.Unit, Restarts: q.Restarts}.Ask(), q.Unit, nil
	case "file":
		if q.File.Path == "" || q.File.Age == 0 {
			return nil, "", errors.New("path and age are needed")
		}
		return probe.Fresh(q.File.Path, time.Duration(q.File.Age)), q.File.Path, nil
	case "process":
		p := *q.Process
		if p.Name == "" && p.PIDFile == "" {
			return nil, "", errors.New("name or pidFile is needed")
		}
		return probe.Process{Name: p.Name, PIDFile: p.PIDFile, Least: p.Least}.Ask(), p.Name + p.PIDFile, nil
	}
	return q.askMachine(kind)
}

// askMachine is for what is asked of the device itself.
func (q question) askMachine(kind string) (ask monitor.Ask, about string, err error) {
	switch kind {
	case "disk":
		d := *q.Disk
		if d.Path == "" || d.FreeBytes <= 0 && d.FreePercent <= 0 && d.FreeInodes <= 0 {
			return nil, "", errors.New("path, and freeBytes, freePercent or freeInodes are needed")
		}
		return probe.Disk{Path: d.Path, FreeBytes: d.FreeBytes, FreePercent: d.FreePercent, FreeInodes: d.FreeInodes}.Ask(), d.Path, nil
	case "memory":
		m := *q.Memory
		if m.AvailableBytes <= 0 && m.AvailablePercent <= 0 {
			return nil, "", errors.New("availableBytes or availablePercent is needed")
		}
		return probe.Memory{AvailableBytes: m.AvailableBytes, AvailablePercent: m.AvailablePercent}.Ask(), "", nil
	}
	if q.Temperature.Max == 0 {
		return nil, "", errors.New("max is needed")
	}
	return probe.Temperature{Sensors: q.Temperature.Sensors, Max: q.Temperature.Max}.Ask(), "", nil
}

// ask returns the question for a page. What it is about holds no password of
// the URL, and nothing of its query.
func (p *page) ask() (ask monitor.Ask, about string, err error) {
	u, err := url.Parse(p.URL)
	if err != nil || u.Host == "" || !isWeb(p.URL) {
		return nil, "", errors.New("url is not one of http:// or https://")
	}
	get := web.Get{URL: p.URL, Status: p.Status, Valid: time.Duration(p.Valid)}
	if p.Body != "" {
		if get.Body, err = regexp.Compile(p.Body); err != nil {
			return nil, "", fmt.Errorf("body: %w", err)
		}
	}
	if p.CA == "" {
		return get.Ask(), u.Host + u.Path, nil
	}
	return func(ctx context.Context) (string, error) { return trusting(ctx, get, p.CA) }, u.Host + u.Path, nil
}

// trusting asks for a page with the authorities of a file, which is read each
// time: a broken one is a sick probe, and keeps no device from going back.
func trusting(ctx context.Context, get web.Get, file string) (string, error) {
	pool, err := authorities(file)
	if err != nil {
		return "", err
	}
	get.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	return get.Ask()(ctx)
}
