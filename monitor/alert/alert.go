// Package alert turns measurements, probes and log lines of a device into events
// that somebody has to know of.
//
//	rules, err := alert.Load("/opt/app/alerts.json") // came with the release
//	alerts, err := alert.New(alert.Options{Emit: stream.Emit}, rules)
//	stream.Tell(ctx, alerts.Event) // samples and probes
//	for _, log := range alerts.Logs() {
//		go alerts.Follow(ctx, log, alert.Journal(strings.TrimPrefix(log, "unit/")))
//	}
//	go alerts.Run(ctx)
//
// A [Rule] says what is bad, for how long it has to be so, when it is well again,
// and how often at most anybody is told. Rules are Go values or a small document:
//
//	{"format": "pawl-alerts/0", "rules": [
//	  {"name": "hot", "sample": "device", "value": "temperature.max", "above": 85, "until": 75, "for": "1m"},
//	  {"name": "restarts", "sample": "unit/app.service", "value": "restarts", "rises": 3, "within": "10m"},
//	  {"name": "silent", "sample": "app", "value": "pumped", "absent": "5m"},
//	  {"name": "port", "probe": "port", "for": "30s", "say": "the pump does not answer"},
//	  {"name": "oom", "log": "unit/app.service", "match": "(?i)out of memory", "every": "6h"}
//	]}
//
// The document may be a file among those of a release. Then it is signed with the
// release, and comes and goes with the app that it is about; what the device's
// owner wants besides is a document of its own, see [Merge].
//
// # Events
//
// An event of the kind "alert" has the rule's name, the reason in words, and the
// values firing (1, or 0 when it is over), value, limit, and untold: how often it
// fired since the last event without being told, because of [Rule.Every]. What
// fires is told again after a new start of the program.
package alert

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pawl-ota/pawl/monitor"
)

// Options configure [Alerts]. Emit is needed.
type Options struct {
	// Emit takes the events; [monitor.Stream.Emit] fits. It has to return soon,
	// and must not call Alerts.
	Emit func(monitor.Event)
}

// Alerts watches rules. It is safe for concurrent use.
type Alerts struct {
	emit func(monitor.Event)
	wake chan struct{} // a rule may be due at another time

	mu    sync.Mutex
	rules []*state
	logs  map[string]*state // whether a log can be followed
}

// New returns Alerts of these rules. An error names the rule and the field that
// is wrong.
func New(o Options, rules []Rule) (*Alerts, error) {
	if o.Emit == nil {
		return nil, fmt.Errorf("alert: field Emit is nil")
	}
	a := &Alerts{emit: o.Emit, wake: make(chan struct{}, 1), logs: map[string]*state{}}
	return a, a.Set(rules)
}

// Set puts other rules in place of those that are there, after an update say. A
// rule that stays as it is goes on where it was; one that fired and is gone is
// not told to be over. After an error everything is as before.
func (a *Alerts) Set(rules []Rule) error {
	all, err := compile(rules)
	if err != nil {
		return fmt.Errorf("alert: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for i, s := range all {
		s.seen = now
		for _, old := range a.rules {
			if old.same(s) {
				all[i] = old
			}
		}
	}
	a.rules = all
	a.nudge()
	return nil
}

// same reports whether both are made of the same rule.
func (s *state) same(o *state) bool {
	a, b := s.Rule, o.Rule
	for _, p := range [][2]**float64{{&a.Above, &b.Above}, {&a.Below, &b.Below}, {&a.Until, &b.Until}, {&a.Rises, &b.Rises}} {
		if x, y := *p[0], *p[1]; x != nil && y != nil && *x == *y {
			*p[0], *p[1] = nil, nil
		}
	}
	return a == b
}

// Event takes the samples and the changes of probes out of a stream; all other
// events it lets pass. It fits [monitor.Stream.Tell].
func (a *Alerts) Event(e monitor.Event) {
	switch {
	case e.Kind == monitor.Sample:
		a.Sample(e.Name, e.Values)
	case e.Kind == monitor.Changed && e.Probe != nil:
		a.each(func(s *state) bool { return s.Probe == e.Probe.Probe }, func(s *state, now time.Time) { s.answered(now, *e.Probe) })
	}
}

// Sample takes measurements that need not be events: more of them than are sent
// home, say.
func (a *Alerts) Sample(name string, values map[string]float64) {
	a.each(func(s *state) bool { return s.Sample == name }, func(s *state, now time.Time) {
		if v, ok := values[s.Value]; ok {
			s.measured(now, v)
		}
	})
}

// Line takes a line of a log. Rules see its first 4 KiB.
func (a *Alerts) Line(log, line string) {
	line = line[:min(len(line), maxLine)]
	a.each(func(s *state) bool { return s.Log == log }, func(s *state, now time.Time) { s.line(now, line) })
}

// each has the rules that this is about see it.
func (a *Alerts) each(about func(*state) bool, see func(*state, time.Time)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for _, s := range a.rules {
		if about(s) {
			a.step(s, now) // what has happened since, before what happens now
			see(s, now)
			a.step(s, now)
			a.nudge()
		}
	}
}

func (a *Alerts) step(s *state, now time.Time) {
	for _, e := range s.step(now) {
		a.emit(e)
	}
}

func (a *Alerts) nudge() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Run looks at what only time decides, until ctx ends: without it a rule is
// looked at only when something comes.
func (a *Alerts) Run(ctx context.Context) {
	for {
		wait, stop := a.timer()
		select {
		case <-wait:
		case <-a.wake:
		case <-ctx.Done():
			stop()
			return
		}
		stop()
	}
}

// timer steps every rule, and returns when one is due next.
func (a *Alerts) timer() (<-chan time.Time, func() bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	next := now.Add(maxTime)
	for _, s := range a.rules {
		a.step(s, now)
		if due, ok := s.due(now); ok && due.Before(next) {
			next = due
		}
	}
	t := time.NewTimer(max(next.Sub(now), time.Millisecond))
	return t.C, t.Stop
}

// Firing returns the names of the rules that fire now, in the order of the
// rules, also of those that are not told.
func (a *Alerts) Firing() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var names []string
	for _, s := range a.rules {
		if s.firing {
			names = append(names, s.Name)
		}
	}
	return names
}

// Logs returns the names of the logs that the rules want to be followed.
func (a *Alerts) Logs() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var names []string
	for _, s := range a.rules {
		if s.Log != "" && !slices.Contains(names, s.Log) {
			names = append(names, s.Log)
		}
	}
	return names
}
