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

// ErrNoSupervisor is returned by Stage for a release that lists services, or
// that replaces one that does, where Options.Supervisor is nil.
var ErrNoSupervisor = errors.New("there is no supervisor for the services")

// ErrSupervisor is wrapped by a Supervisor whose other side cannot be reached
// now. On the way back it is the one trouble with services that is tried again.
var ErrSupervisor = errors.New("the supervisor of the services does not answer")

// services stops and starts services around the verbs of a layout. What
// happens to each is written down before it happens, so that any verb can be
// called again after a cut, in this boot or in a later one:
//
//	phase      recorded before          a call of Activate does       a call of Revert does
//	(none)     —                        begin                         the files alone
//	stopping   the first stop           stop, switch, start           start what was running
//	switching  the first file           stop, switch, start           stop, the files, start what was running
//	switched   the first start          start what does not run       stop, the files, start what was running
//	back       the first start again    —                             start what was running
type services struct {
	*base
	files layout
}

// Stage is the layout's, which see. A release with services is refused where
// there is nobody who could start them.
func (f *Files) Stage(ctx context.Context, tx ota.TxID, c release.Component, content ota.Content) (ota.Effect, error) {
	if err := f.svc.check(tx, c); err != nil {
		return "", err
	}
	run, err := f.svc.plan(tx, c)
	if err == nil {
		err = f.svc.ask(ctx, run)
	}
	if err != nil {
		return "", notStaged(c.Name, err)
	}
	effect, err := f.layout.Stage(ctx, tx, c, content)
	if err == nil && len(run.Services) > 0 {
		err = f.svc.setRoom(tx)
	}
	return effect, err
}

// ask has the supervisor say how each service is, so that one that does not
// answer is found before anything is touched.
func (s *services) ask(ctx context.Context, run *serviceRun) error {
	for i := range run.Services {
		m := &run.Services[i]
		state, err := s.state(ctx, m.Name)
		if err != nil {
			return err
		}
		m.Was, m.Restarts = state.alive(), state.Restarts
	}
	return nil
}

// Budget is the layout's, with the room for the records of the services.
func (f *Files) Budget(ctx context.Context, c release.Component, content ota.Content) ([]ota.Need, error) {
	needs, err := f.layout.Budget(ctx, c, content)
	if err != nil {
		return nil, err
	}
	run, err := f.svc.plan("", c)
	if err != nil {
		return nil, fmt.Errorf("cannot plan %s: %w", c.Name, err)
	}
	if len(run.Services) > 0 {
		needs = append(needs, ota.Need{Path: f.svc.path(dirServices), Bytes: 2 * runRoom, Inodes: 4})
	}
	return needs, nil
}

// Activate is the layout's, between the stops and the starts of the services
// that the release lists, or the one before it did. A service that cannot be
// started, or has failed as soon as it was, is an error.
//
// Called again it touches only what is not as it should be.
func (f *Files) Activate(ctx context.Context, tx ota.TxID, c release.Component) error {
	if err := f.svc.check(tx, c); err != nil {
		return err
	}
	run, err := f.svc.begin(ctx, tx, c)
	if err != nil {
		return notActivated(c.Name, err)
	}
	if run == nil {
		return f.layout.Activate(ctx, tx, c)
	}
	if run.Phase != switched {
		if err := f.svc.turn(ctx, tx, c, run); err != nil {
			return err
		}
	} else if err := f.layout.Activate(ctx, tx, c); err != nil {
		return err
	}
	if err := f.svc.bringUp(ctx, tx, run); err != nil {
		return notActivated(c.Name, err)
	}
	return nil
}

// begin returns how far tx is with its services; nil where none take part. It
// writes down what each of them was when it is asked for the first time.
func (s *services) begin(ctx context.Context, tx ota.TxID, c release.Component) (*serviceRun, error) {
	run, err := s.readRun(tx)
	if err != nil {
		return nil, err
	}
	if run == nil {
		if run, err = s.plan(tx, c); err != nil || len(run.Services) == 0 {
			return nil, err
		}
	}
	a, err := s.files.Active(ctx, c.Name)
	if err != nil {
		return nil, err
	}
	switch {
	case run.Phase == switched && !a.Is(c.Digest()):
		return run, s.enter(tx, run, switching) // something put the files back
	case run.Phase != "":
		return run, nil
	case a.Is(c.Digest()):
		return nil, nil // nothing was staged, because it was there already
	}
	if err := s.ask(ctx, run); err != nil {
		return nil, err
	}
	return run, s.enter(tx, run, stopping)
}

// plan returns which services take part in the way to c; the list may be empty.
func (s *services) plan(tx ota.TxID, c release.Component) (*serviceRun, error) {
	o, err := ParseOptions(c.Options)
	if err != nil {
		return nil, err
	}
	old, err := s.old(tx)
	if err != nil {
		return nil, err
	}
	run := &serviceRun{Component: c.Digest()}
	for _, one := range o.Services {
		run.Services = append(run.Services, serviceMark{Service: one})
	}
	for i, one := range old {
		at := slices.IndexFunc(run.Services, func(m serviceMark) bool { return m.Name == one.Name })
		switch {
		case at >= 0:
			run.Services[at].Old = i + 1
		case one.own():
			run.Services = append(run.Services, serviceMark{Service: one, Old: i + 1, Gone: true})
		}
	}
	if len(run.Services) > 0 && s.opts.Supervisor == nil {
		return nil, fmt.Errorf("%w: %s; set Options.Supervisor", ErrNoSupervisor, run.Services[0].Name)
	}
	return run, nil
}

// turn stops what has to rest, the last one first, and has the files switched.
func (s *services) turn(ctx context.Context, tx ota.TxID, c release.Component, run *serviceRun) error {
	if err := s.rest(ctx, run); err != nil {
		return notActivated(c.Name, err)
	}
	if err := s.enter(tx, run, switching); err != nil {
		return notActivated(c.Name, err)
	}
	if err := s.files.Activate(ctx, tx, c); err != nil {
		return err
	}
	if err := s.refresh(ctx); err != nil {
		return notActivated(c.Name, err)
	}
	// One that somebody started in the meantime may have found the old files.
	if err := s.rest(ctx, run); err != nil {
		return notActivated(c.Name, err)
	}
	for i := range run.Services {
		m := &run.Services[i]
		if h := m.handling(); h == Around || h == AfterRestart || !m.Was {
			m.Restarts = 0 // a start on request begins to count anew
		}
	}
	if err := s.enter(tx, run, switched); err != nil {
		return notActivated(c.Name, err)
	}
	return nil
}

func (s *services) rest(ctx context.Context, run *serviceRun) error {
	for _, m := range slices.Backward(run.oldOrder()) {
		if m.rests() {
			if err := s.stop(ctx, m.Name, m.Gone); err != nil {
				return err
			}
		}
	}
	return nil
}

// stop stops one service. A start that the boot has queued is left in the
// queue unless it is for good: this process runs before it then, what will
// start finds the files as they are by then, and what depends on the service
// would be taken out of the queue with it.
func (s *services) stop(ctx context.Context, name string, forGood bool) error {
	state, err := s.state(ctx, name)
	if err != nil || !state.alive() || state.Queued && !forGood {
		return err
	}
	return s.do(ctx, Stop, name)
}

// bringUp starts what does not run yet, in the release's order, and looks at
// all of it once more at the end.
func (s *services) bringUp(ctx context.Context, tx ota.TxID, run *serviceRun) error {
	changed := false
	for i := range run.Services {
		m := &run.Services[i]
		if m.Gone || m.Done && !m.own() {
			continue
		}
		if err := s.bring(ctx, m); err != nil {
			return err
		}
		changed = changed || !m.Done
		m.Done = true
		if m.own() {
			continue
		}
		if err := s.save(tx, run); err != nil {
			return err
		}
		changed = false
	}
	if err := s.confirm(ctx, run); err != nil || !changed {
		return err
	}
	return s.save(tx, run)
}

// bring does with one service what is to be done after the switch.
func (s *services) bring(ctx context.Context, m *serviceMark) error {
	state, err := s.state(ctx, m.Name)
	if err != nil {
		return err
	}
	finished := state.Finished && !state.Failed && m.Done
	switch h := m.handling(); {
	case h == AfterRestart && (state.Running || state.Starting):
		return s.do(ctx, Restart, m.Name)
	case h == AfterRestart && m.Was && !m.Done && !state.alive():
		return s.do(ctx, Start, m.Name) // a restart that was cut short had only stopped it
	case h == AfterReload && state.Running:
		return s.do(ctx, Reload, m.Name)
	case m.own() && !state.Running && !state.Queued && !finished:
		return s.do(ctx, Start, m.Name)
	}
	return nil
}

// confirm finds what failed as soon as it was started.
func (s *services) confirm(ctx context.Context, run *serviceRun) error {
	for i := range run.Services {
		m := &run.Services[i]
		if m.Gone || !m.own() {
			continue
		}
		state, err := s.state(ctx, m.Name)
		if err != nil {
			return err
		}
		if state.Failed || !state.alive() && !state.Finished {
			return fmt.Errorf("service %s does not run after its start: %s", m.Name, state.Detail)
		}
	}
	return nil
}

// Commit is the layout's. What the release lists is written down first: from
// then on it is what the next one finds running.
func (f *Files) Commit(ctx context.Context, tx ota.TxID, c release.Component) error {
	if err := errors.Join(f.svc.check(tx, c), f.rely()); err != nil {
		return err
	}
	o, err := ParseOptions(c.Options)
	if err != nil {
		return fmt.Errorf("cannot commit %s: %w", c.Name, err)
	}
	a, err := f.Active(ctx, c.Name)
	if err != nil {
		return err
	}
	if a.Is(c.Digest()) {
		if err := f.svc.remember(tx, c.Digest(), o.Services); err != nil {
			return fmt.Errorf("cannot commit %s: %w", c.Name, err)
		}
	}
	if err := f.layout.Commit(ctx, tx, c); err != nil {
		return err
	}
	return f.svc.forget(tx)
}

// Prune is the layout's.
func (f *Files) Prune(ctx context.Context, name string, keep []release.Digest, open []ota.TxID) error {
	if err := f.rely(); err != nil {
		return err
	}
	return errors.Join(f.layout.Prune(ctx, name, keep, open), f.svc.prune(open))
}

// state asks for one service, within its time.
func (s *services) state(ctx context.Context, name string) (ServiceState, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.ServiceLimit)
	defer cancel()
	state, err := s.opts.Supervisor.State(ctx, name)
	if err != nil {
		err = fmt.Errorf("cannot ask for service %s: %w", name, err)
	}
	return state, err
}

func (s *services) do(ctx context.Context, a Action, name string) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.ServiceLimit)
	defer cancel()
	if err := s.opts.Supervisor.Do(ctx, a, name); err != nil {
		return fmt.Errorf("cannot %s service %s: %w", a, name, err)
	}
	return nil
}

func (s *services) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.ServiceLimit)
	defer cancel()
	if err := s.opts.Supervisor.Refresh(ctx); err != nil {
		return fmt.Errorf("cannot have the services read again: %w", err)
	}
	return nil
}

// serviceLimit is how long one action may take by default: longer than the 90 s
// after which systemd itself gives up, so that its own words come first.
const serviceLimit = 2 * time.Minute
