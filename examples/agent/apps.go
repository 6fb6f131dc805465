package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/pawl-ota/pawl/ota"
)

// app is a component of kind "compose". The agent has some where it was built
// with -tags containers.
type app interface {
	ota.Backend
	io.Closer
	// Healthy is asked in a trial.
	Healthy(ctx context.Context) error
	// Reset makes the containers anew, and the volumes where they are to be.
	Reset(ctx context.Context, volumes bool) error
	// Settle ends a Reset that was cut short.
	Settle(ctx context.Context) error
	// services may be called while another agent is at work.
	services(ctx context.Context) ([]service, error)
}

// service is one service of an app, as the engine has it.
type service struct {
	App       string    `json:"app"`
	Name      string    `json:"name"`
	Container string    `json:"container"`
	Image     string    `json:"image"`
	State     string    `json:"state"` // the engine's word, or "missing"
	Health    string    `json:"health,omitempty"`
	Exit      int       `json:"exit,omitempty"`
	Restarts  int       `json:"restarts,omitempty"`
	Started   time.Time `json:"started,omitzero"`

	line string // all that for people
}

// apps returns the apps of the configuration, by name.
func (a *agent) apps() map[string]app {
	if !withContainers { // a constant: what follows is not linked
		return nil
	}
	all := map[string]app{}
	for name, b := range a.backends {
		if one, ok := b.(app); ok {
			all[name] = one
		}
	}
	return all
}

// openApps makes the backends of the apps.
func (a *agent) openApps() error {
	if a.backends == nil {
		a.backends = map[string]ota.Backend{}
	}
	for name, comp := range a.config.Components {
		if !withContainers || comp.Kind != kindCompose {
			continue
		}
		one, err := a.newApp(name, comp)
		if err != nil {
			return fmt.Errorf("components.%s: %w", name, err)
		}
		a.backends[name] = one
	}
	return nil
}

func (a *agent) closeApps() {
	if !withContainers {
		return
	}
	for _, one := range a.apps() {
		if err := one.Close(); err != nil {
			a.warn(err)
		}
	}
}

// settleApps ends what a reset has begun.
func (a *agent) settleApps(ctx context.Context) {
	if !withContainers {
		return
	}
	for _, one := range a.apps() {
		if err := one.Settle(ctx); err != nil {
			a.warn(fmt.Errorf("a reset was cut short, and cannot go on: %w", err))
		}
	}
}

// services asks the engine for the services of every app. An engine that does
// not answer is no reason to keep back the rest.
func (a *agent) services(ctx context.Context) (all []service, problems []string) {
	if !withContainers {
		return nil, nil
	}
	apps := a.apps()
	for _, name := range slices.Sorted(maps.Keys(apps)) {
		some, err := apps[name].services(ctx)
		if err != nil {
			problems = append(problems, fmt.Sprintf("cannot tell how %s is: %v", name, err))
		}
		all = append(all, some...)
	}
	return all, problems
}

// errNoApp is returned by reset for a name that is none.
var errNoApp = errors.New("no component of kind \"compose\" has that name")

// reset has the images of an app be right, and then makes its containers anew.
func reset(ctx context.Context, a *agent) answer {
	one, ok := a.apps()[a.args.name]
	if !withContainers || !ok {
		return failed("cannot reset "+a.args.name, errUsage{errNoApp})
	}
	if _, err := a.updater.Repair(ctx); err != nil {
		return failed("cannot reset "+a.args.name, err)
	}
	if err := one.Reset(ctx, a.args.data); err != nil {
		return failed("cannot reset "+a.args.name, err)
	}
	return answer{Line: fmt.Sprintf("%s begins anew with %s", a.args.name, a.updater.Status().Running)}
}
