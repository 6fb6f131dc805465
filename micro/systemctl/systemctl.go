//go:build linux

// Package systemctl is the [micro.Supervisor] for systemd through its program
// systemctl. It does what package micro/systemd does, the exception for the
// time of the boot included, and adds next to nothing to a program; each
// question and action starts a process.
package systemctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/micro/internal/command"
	"github.com/pawl-ota/pawl/micro/internal/unit"
)

// Supervisor drives systemd. The zero value is for the systemd that runs the
// device. It may be used by several goroutines.
type Supervisor struct {
	// Args come before all others, such as --user.
	Args []string
	// Env is added to the environment of systemctl, such as XDG_RUNTIME_DIR.
	Env []string
	// StopLimit bounds one stop; 0 means 100 s, which is longer than systemd's
	// own default of 90 s. A service that has not stopped by then is killed.
	StopLimit time.Duration
}

var _ micro.Supervisor = (*Supervisor)(nil)

const (
	defaultLimit = 100 * time.Second
	killGrace    = 10 * time.Second
)

// notLoaded is systemctl's exit code for a unit that systemd does not know.
const notLoaded = 5

// Do implements [micro.Supervisor].
func (s *Supervisor) Do(ctx context.Context, a micro.Action, name string) error {
	booting, err := s.booting(ctx)
	if err != nil {
		return err
	}
	switch a {
	case micro.Stop:
		return s.stop(ctx, name)
	case micro.Start, micro.StartLater:
		// A unit that failed too often in a short time is not started before
		// that is forgotten, and the one before it may have been that.
		_, _, _ = s.run(ctx, "reset-failed", name)
		return s.job(ctx, "start", name, booting || a == micro.StartLater)
	case micro.Restart, micro.Reload:
		if booting {
			state, err := s.State(ctx, name)
			if err != nil || !state.Running && !state.Starting {
				return err
			}
		}
		return s.job(ctx, string(a), name, booting)
	}
	return fmt.Errorf("action %.40q is not known", a)
}

// job has a job carried out. Its error has systemd's words for how the unit is.
func (s *Supervisor) job(ctx context.Context, verb, name string, later bool) error {
	args := []string{verb, "--", name}
	if later {
		args = []string{verb, "--no-block", "--", name}
	}
	exit, output, err := s.run(ctx, args...)
	if err != nil || exit == 0 {
		return err
	}
	err = command.Failed(s.argv(args), exit, output)
	if state, asked := s.State(context.WithoutCancel(ctx), name); asked == nil {
		err = fmt.Errorf("%w: %s", err, state.Detail)
	}
	return err
}

// stop waits for the end of the service, and kills it when that takes too long.
func (s *Supervisor) stop(ctx context.Context, name string) error {
	whole := ctx
	limit := cmp.Or(s.StopLimit, defaultLimit)
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		limit = min(limit, left-min(killGrace, left/2))
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := s.stopJob(ctx, name)
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	ctx, cancel = context.WithTimeout(whole, killGrace)
	defer cancel()
	_, _, _ = s.run(ctx, "kill", "--signal=KILL", "--", name)
	if err := s.stopJob(ctx, name); err != nil {
		return fmt.Errorf("%s did not stop in its time, and not when it was killed: %w", name, err)
	}
	return nil
}

func (s *Supervisor) stopJob(ctx context.Context, name string) error {
	args := []string{"stop", "--", name}
	exit, output, err := s.run(ctx, args...)
	if err == nil && exit != 0 && exit != notLoaded {
		err = command.Failed(s.argv(args), exit, output)
	}
	return err
}

// State implements [micro.Supervisor].
func (s *Supervisor) State(ctx context.Context, name string) (micro.ServiceState, error) {
	args := []string{"show", "--property=" + strings.Join(unit.Properties(), ","), "--", name}
	exit, output, err := s.run(ctx, args...)
	if err == nil && exit != 0 {
		if _, err = s.booting(ctx); err == nil {
			err = command.Failed(s.argv(args), exit, output)
		}
	}
	if err != nil {
		return micro.ServiceState{}, err
	}
	all := map[string]string{}
	for line := range strings.SplitSeq(output, "\n") {
		key, value, _ := strings.Cut(line, "=")
		all[key] = value
	}
	return unit.State(func(p string) string { return all[p] }, func() (bool, error) { return s.booting(ctx) })
}

// Refresh implements [micro.Supervisor]: it has systemd read all unit files
// again, always, because systemd itself notices only files that are younger
// than those it knows.
func (s *Supervisor) Refresh(ctx context.Context) error {
	exit, output, err := s.run(ctx, "daemon-reload")
	if err == nil && exit != 0 {
		err = command.Failed(s.argv([]string{"daemon-reload"}), exit, output)
	}
	return err
}

// booting reports whether systemd is still bringing up the device, and finds
// out whether it answers.
func (s *Supervisor) booting(ctx context.Context) (bool, error) {
	args := []string{"show", "--property=SystemState", "--value"}
	exit, output, err := s.run(ctx, args...)
	if err == nil && exit != 0 {
		err = command.Failed(s.argv(args), exit, output)
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w", micro.ErrSupervisor, err)
	}
	return unit.Booting(output), nil
}

func (s *Supervisor) argv(args []string) []string {
	return append(append([]string{"systemctl", "--no-ask-password", "--no-pager"}, s.Args...), args...)
}

func (s *Supervisor) run(ctx context.Context, args ...string) (exit int, output string, err error) {
	return command.Run(ctx, s.argv(args), s.Env)
}
