//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// Revert is the layout's, between the stops of what the new release started
// and the starts of what was running before. What an administrator had stopped
// stays stopped.
//
// It waits for no start: that of a service may wait for this process. A stop
// that fails or takes too long goes to Options.Warn, and the files go back all
// the same; so does a start that is refused. Only where the supervisor does
// not answer at all the starts are an error, for another try.
func (f *Files) Revert(ctx context.Context, tx ota.TxID, c release.Component) error {
	if err := errors.Join(f.svc.checkName(tx, c), f.rely()); err != nil {
		return err
	}
	run, err := f.svc.readRun(tx)
	if errors.Is(err, errDamaged) {
		f.svc.warn(err)
		run, err = nil, nil
	}
	if err != nil {
		return err
	}
	if run == nil || f.svc.opts.Supervisor == nil {
		if run != nil {
			f.svc.warn(fmt.Errorf("cannot start what was running before %s: %w", tx, ErrNoSupervisor))
		}
		if err := f.layout.Revert(ctx, tx, c); err != nil {
			return err
		}
		return f.svc.forget(tx)
	}
	return f.svc.wayBack(ctx, tx, c, run)
}

func (s *services) wayBack(ctx context.Context, tx ota.TxID, c release.Component, run *serviceRun) error {
	was := run.Phase
	if was == switching || was == switched {
		s.stopNew(ctx, run)
	}
	if err := s.files.Revert(ctx, tx, c); err != nil {
		return err
	}
	err := s.enter(tx, run, back)
	if err := errors.Join(err, s.startOld(ctx, run, was)); err != nil {
		return fmt.Errorf("cannot revert %s: %w", c.Name, err)
	}
	return s.forget(tx)
}

// within bounds what all services together may take of the time that ctx has.
func (s *services) within(ctx context.Context) (context.Context, context.CancelFunc) {
	most := 2 * s.opts.ServiceLimit
	if deadline, ok := ctx.Deadline(); ok {
		most = min(most, time.Until(deadline)/2)
	}
	return context.WithTimeout(ctx, most)
}

// stopNew stops what runs on the new files and does not belong there once they
// are gone: the last one first.
func (s *services) stopNew(ctx context.Context, run *serviceRun) {
	ctx, cancel := s.within(ctx)
	defer cancel()
	for i := range slices.Backward(run.Services) {
		m := &run.Services[i]
		switch m.handling() {
		case AfterReload:
			continue
		case AfterRestart:
			if !m.Was {
				continue // it is not the release's, and it did not touch it
			}
		case AfterStart:
			if m.Was && !m.Gone {
				continue
			}
		}
		if err := s.stop(ctx, m.Name, !m.Was); err != nil {
			s.warn(err)
		}
	}
}

// startOld has everything started that was running, in the old release's
// order. The error says that the supervisor does not answer.
func (s *services) startOld(ctx context.Context, run *serviceRun, was phase) error {
	ctx, cancel := s.within(ctx)
	defer cancel()
	var silent []error
	note := func(err error) {
		if errors.Is(err, ErrSupervisor) {
			silent = append(silent, err)
		} else if err != nil {
			s.warn(err)
		}
	}
	if was != stopping {
		note(s.refresh(ctx))
	}
	for _, m := range run.oldOrder() {
		if m.Was {
			note(s.startAgain(ctx, m, was))
		}
	}
	return errors.Join(silent...)
}

func (s *services) startAgain(ctx context.Context, m *serviceMark, was phase) error {
	state, err := s.state(ctx, m.Name)
	switch {
	case err != nil:
		return err
	case m.handling() == AfterReload && (!state.Running || was == stopping):
		return nil
	case m.handling() == AfterReload:
		return s.do(ctx, Reload, m.Name)
	case state.Running || state.Queued:
		return nil
	}
	return s.do(ctx, StartLater, m.Name)
}

func (s *services) warn(err error) {
	if s.opts.Warn != nil {
		s.opts.Warn(err)
	}
}

// CheckServices is an [ota.Check]: it returns an error unless every service
// that the release in effect lists as its own runs, and, in a trial, the
// supervisor had to start none of them again since the switch. Those that are
// restarted or reloaded have to run if they did before.
func (f *Files) CheckServices(ctx context.Context) error {
	marks, trial, err := f.svc.inEffect(ctx)
	if err != nil {
		return err
	}
	if len(marks) > 0 && f.svc.opts.Supervisor == nil {
		return ErrNoSupervisor
	}
	var all []error
	for _, m := range marks {
		all = append(all, f.svc.checkOne(ctx, m, trial))
	}
	return errors.Join(all...)
}

func (s *services) checkOne(ctx context.Context, m serviceMark, trial bool) error {
	state, err := s.state(ctx, m.Name)
	switch {
	case err != nil:
		return err
	case state.Failed:
		return fmt.Errorf("service %s has failed: %s", m.Name, state.Detail)
	case trial && state.Restarts > m.Restarts:
		return fmt.Errorf("service %s ended and was started again %d times: %s", m.Name, state.Restarts-m.Restarts, state.Detail)
	case !state.Running && !state.Finished && (m.own() || m.Was):
		return fmt.Errorf("service %s does not run: %s", m.Name, state.Detail)
	}
	return nil
}

// inEffect returns the services of the release in effect, and whether it is on
// trial.
func (s *services) inEffect(ctx context.Context) (marks []serviceMark, trial bool, err error) {
	runs, err := s.runs("")
	if err != nil {
		return nil, false, err
	}
	runs = slices.DeleteFunc(runs, func(r *serviceRun) bool { return r.Phase != switched })
	if len(runs) > 1 {
		a, err := s.files.Active(ctx, s.opts.Name)
		if err != nil {
			return nil, false, err
		}
		runs = slices.DeleteFunc(runs, func(r *serviceRun) bool { return !a.Is(r.Component) })
	}
	if len(runs) > 0 {
		marks = slices.DeleteFunc(runs[0].Services, func(m serviceMark) bool { return m.Gone })
		return marks, true, nil
	}
	r, err := s.readRunning()
	for _, one := range r.Services {
		marks = append(marks, serviceMark{Service: one})
	}
	return marks, false, err
}
