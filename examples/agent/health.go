package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/ota"
)

// health returns a check of the services of every component, where there is
// a supervisor to ask, of every app, and of all probes; nil where there is nothing
// to ask.
func (a *agent) health() (ota.Check, error) {
	var changed func(monitor.Answer)
	if a.report != nil {
		changed = a.report.changed
	}
	h, err := a.newHealth(a.parts(true), false, changed)
	if h == nil || err != nil {
		return nil, err
	}
	return h.Check, nil
}

// newHealth puts the probes of the configuration behind parts. With once each
// is asked once, and that counts. It returns nil where there is nothing to ask.
func (a *agent) newHealth(parts []monitor.Part, once bool, changed func(monitor.Answer)) (*monitor.Health, error) {
	s := probeSet{config: a.config, once: once, names: map[string]int{}}
	for i, p := range a.config.Health {
		part, err := s.part(p)
		if err != nil {
			return nil, fmt.Errorf("health[%d].%w", i, err)
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		return nil, nil
	}
	return monitor.NewHealth(monitor.HealthOptions{Changed: changed}, monitor.All(parts...))
}

// timeout is how long one answer of health may take.
func (t trial) timeout() time.Duration { return cmp.Or(time.Duration(t.Timeout), 10*time.Second) }

// parts ask the components, by name; without apps where those are told of in
// another way.
func (a *agent) parts(apps bool) (all []monitor.Part) {
	for _, name := range slices.Sorted(maps.Keys(a.backends)) {
		if ask := a.askPart(name, apps); ask != nil {
			all = append(all, monitor.Probe{Name: name, Ask: monitor.Func(ask), Timeout: a.config.Trial.timeout()})
		}
	}
	return all
}

// askPart returns what asks how one component is, nil where it cannot be asked.
func (a *agent) askPart(name string, apps bool) func(context.Context) error {
	switch b := a.backends[name].(type) {
	case app:
		if apps {
			return b.Healthy
		}
	case *micro.Files:
		if a.config.Supervisor != nil {
			return b.CheckServices
		}
	}
	return nil
}
