//go:build linux

// Package systemd is the [micro.Supervisor] for systemd, over D-Bus.
//
// A job that it asks for is waited for until systemd says how it ended, within
// limits. There is one exception: while the device boots, starts are only put
// into systemd's queue. What asks for them then may be the guard, a unit that
// is ordered before the services: systemd will not begin with their jobs before
// the guard's own has ended, and waiting for them would never end. For the same
// reason a service that the boot has in the queue counts as
// [micro.ServiceState.Queued].
//
// It adds about 0.5 MB to a stripped program for 32-bit ARM. Package
// micro/systemctl does the same through the program of that name, and adds
// next to nothing.
package systemd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/micro/internal/unit"
)

// Errors that a caller branches on.
var (
	// ErrNoUnit is returned where systemd finds no unit of the name.
	ErrNoUnit = errors.New("there is no such unit")
	// ErrMasked is returned by a start of a unit that was masked.
	ErrMasked = errors.New("the unit is masked")
	// ErrBadUnit is returned where systemd cannot read the unit's file, or the
	// name is none that a unit can have.
	ErrBadUnit = errors.New("the unit cannot be used")
)

// JobError is returned when systemd carried out a job with another result than
// success.
type JobError struct {
	Unit   string
	Action micro.Action
	// Result is systemd's word: failed, timeout, canceled, dependency, skipped,
	// or "lost" where the connection went and the unit is not as it should be.
	Result string
	State  micro.ServiceState // right after it
}

// Error says what systemd says.
func (e *JobError) Error() string {
	return fmt.Sprintf("the job of %s ended as %q: %s", e.Unit, e.Result, e.State.Detail)
}

// Options configure a [Supervisor]. The zero value is for the systemd that runs
// the device.
type Options struct {
	// Address is the D-Bus address of a bus that systemd is on, or, where
	// Direct is set, of a socket of systemd itself, such as
	// unix:path=/run/user/1000/systemd/private. Where it is empty root takes
	// systemd's own socket, which is there before any bus is, and else the
	// system bus.
	Address string
	Direct  bool
	// StartLimit and StopLimit bound one start and one stop; 0 means 100 s,
	// which is longer than systemd's own default of 90 s. A service that has
	// not stopped by then is killed.
	StartLimit, StopLimit time.Duration
}

// Supervisor is a connection to systemd, which is made when it is needed, and
// made again where it was lost. It may be used by several goroutines.
type Supervisor struct {
	opts Options

	mu   sync.Mutex
	link *link
}

var _ micro.Supervisor = (*Supervisor)(nil)

// defaultLimit is longer than systemd's own, so that its words come first.
const defaultLimit = 100 * time.Second

// killGrace is how long a service may take to be gone after it was killed.
const killGrace = 10 * time.Second

// New returns a Supervisor. It connects to nothing yet.
func New(o Options) (*Supervisor, error) {
	if o.StartLimit < 0 || o.StopLimit < 0 {
		return nil, errors.New("systemd: option StartLimit or StopLimit is negative")
	}
	if o.Direct && o.Address == "" {
		return nil, errors.New("systemd: option Direct needs an Address")
	}
	o.StartLimit = cmp.Or(o.StartLimit, defaultLimit)
	o.StopLimit = cmp.Or(o.StopLimit, defaultLimit)
	return &Supervisor{opts: o}, nil
}

// Do implements [micro.Supervisor].
func (s *Supervisor) Do(ctx context.Context, a micro.Action, name string) error {
	booting, err := s.booting(ctx)
	if err != nil {
		return err
	}
	switch a {
	case micro.Stop:
		return s.stop(ctx, name)
	case micro.Start:
		return s.start(ctx, name, !booting)
	case micro.StartLater:
		return s.start(ctx, name, false)
	case micro.Restart, micro.Reload:
		return s.again(ctx, a, name, booting)
	}
	return fmt.Errorf("action %.40q is not known", a)
}

// start forgets first that the unit failed: a unit that failed too often in a
// short time is not started otherwise, and the one before it may have been
// that.
func (s *Supervisor) start(ctx context.Context, name string, wait bool) error {
	err := s.call(ctx, func(c *link) error {
		err := c.ResetFailedUnitContext(ctx, name)
		if !c.alive() {
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.StartLimit)
	defer cancel()
	return s.job(ctx, micro.Start, name, wait, func(c *link, ended chan<- string) error {
		_, err := c.StartUnitContext(ctx, name, "replace", ended)
		return err
	})
}

// again restarts or reloads. A unit that does not run in a boot will find
// everything new when it is started.
func (s *Supervisor) again(ctx context.Context, a micro.Action, name string, booting bool) error {
	if booting {
		state, err := s.State(ctx, name)
		if err != nil || !state.Running && !state.Starting {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.StopLimit+s.opts.StartLimit)
	defer cancel()
	return s.job(ctx, a, name, !booting, func(c *link, ended chan<- string) error {
		if a == micro.Reload {
			_, err := c.ReloadUnitContext(ctx, name, "replace", ended)
			return err
		}
		_, err := c.RestartUnitContext(ctx, name, "replace", ended)
		return err
	})
}

// stop waits for the end of the service, and kills it when that takes too long.
func (s *Supervisor) stop(ctx context.Context, name string) error {
	whole := ctx
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-min(killGrace, time.Until(deadline)/2)))
		defer cancel()
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.StopLimit)
	defer cancel()
	err := s.stopJob(ctx, name)
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	ctx, cancel = context.WithTimeout(whole, killGrace)
	defer cancel()
	kill := s.call(ctx, func(c *link) error { return c.KillUnitWithTarget(ctx, name, systemd.All, int32(unix.SIGKILL)) })
	if again := s.stopJob(ctx, name); again != nil {
		return errors.Join(fmt.Errorf("%s did not stop in its time, and not when it was killed: %w", name, again), kill)
	}
	return nil
}

func (s *Supervisor) stopJob(ctx context.Context, name string) error {
	err := s.job(ctx, micro.Stop, name, true, func(c *link, ended chan<- string) error {
		_, err := c.StopUnitContext(ctx, name, "replace", ended)
		return err
	})
	if errors.Is(err, ErrNoUnit) {
		return nil
	}
	return err
}

// State implements [micro.Supervisor].
func (s *Supervisor) State(ctx context.Context, name string) (micro.ServiceState, error) {
	all, err := s.properties(ctx, name)
	if err != nil {
		return micro.ServiceState{}, err
	}
	booting := func() (bool, error) { return s.booting(ctx) }
	return unit.State(func(p string) string { return show(all[p]) }, booting)
}

func (s *Supervisor) properties(ctx context.Context, name string) (all map[string]any, err error) {
	err = s.call(ctx, func(c *link) error {
		all, err = c.GetAllPropertiesContext(ctx, name)
		return err
	})
	if err == nil && show(all["ActiveState"]) == "" {
		err = fmt.Errorf("%w: %s", ErrBadUnit, name)
	}
	return all, err
}

// booting reports whether systemd is still bringing up the device.
func (s *Supervisor) booting(ctx context.Context) (is bool, err error) {
	err = s.call(ctx, func(c *link) error {
		p, err := c.SystemStateContext(ctx)
		if err == nil {
			is = unit.Booting(show(p.Value.Value()))
		}
		return err
	})
	return is, err
}

// Refresh implements [micro.Supervisor]: it has systemd read all unit files
// again. It does so always: systemd itself notices only files that are younger
// than those it knows, and the way back brings older ones.
func (s *Supervisor) Refresh(ctx context.Context) error {
	return s.call(ctx, func(c *link) error { return c.ReloadContext(ctx) })
}

// show returns a property as systemctl shows it.
func show(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case bool:
		if v {
			return "yes"
		}
		return "no"
	case []any: // Job: its number and path; LoadError: a name and a text
		if len(v) == 2 {
			if id, is := v[0].(uint32); is && id == 0 {
				return ""
			}
			return strings.TrimSpace(fmt.Sprint(v[0], " ", v[1]))
		}
	}
	return fmt.Sprint(v)
}

// explain gives errors of systemd their families.
func explain(err error) error {
	e, ok := errors.AsType[dbus.Error](err)
	if !ok {
		return err
	}
	switch strings.TrimPrefix(e.Name, "org.freedesktop.systemd1.") {
	case "NoSuchUnit", "LoadFailed":
		return fmt.Errorf("%w: %w", ErrNoUnit, err)
	case "UnitMasked":
		return fmt.Errorf("%w: %w", ErrMasked, err)
	case "BadUnitSetting", "UnitError":
		return fmt.Errorf("%w: %w", ErrBadUnit, err)
	}
	if e.Name == "org.freedesktop.DBus.Error.InvalidArgs" {
		return fmt.Errorf("%w: %w", ErrBadUnit, err)
	}
	return err
}
