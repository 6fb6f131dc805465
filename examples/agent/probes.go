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

// question is one entry of health in the configuration: what is asked, and how.
type question struct {
	Name string   `json:"name"`
	Exec []string `json:"exec"`
	otherKinds

	Interval  duration `json:"interval"`
	Timeout   duration `json:"timeout"`
	Successes int      `json:"successes"`
	Failures  int      `json:"failures"`
	Advisory  bool     `json:"advisory"`
}

// probePhase tells a program what it is asked for.
const probePhase = "PAWL_PHASE=health"

// probeSet makes parts of a Health.
type probeSet struct {
	config *config
	once   bool
	names  map[string]int
}

// part makes what one entry stands for. An error begins with the key.
func (s *probeSet) part(q question) (monitor.Part, error) {
	part, err := s.make(q)
	if err == nil && q.Advisory {
		part = monitor.Advisory(part)
	}
	return part, err
}

// program asks by a program.
func (s *probeSet) program(q question) (monitor.Part, error) {
	if len(q.Exec) == 0 || q.Exec[0] == "" {
		return nil, errors.New("exec: it is empty")
	}
	return s.probe(q, "exec "+filepath.Base(q.Exec[0]), probe.Exec{Args: q.Exec, Env: []string{probePhase}}.Ask()), nil
}

// probe makes one that is asked; of is its name where the entry has none.
func (s *probeSet) probe(q question, of string, ask monitor.Ask) monitor.Part {
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
		p.Name = s.name(strings.TrimSpace(of))
	}
	return p
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
