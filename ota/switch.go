package ota

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pawl-ota/pawl/ota/release"
)

// Activate makes the staged release what runs, on trial. Components that need
// a reboot are only armed; the others follow in the boot in which those came
// up, from Resume. Result().Needs then says what has to happen first.
//
// When a component cannot be activated, or ctx ends, everything is taken back
// before Activate returns the reason. It returns ErrWatchdog, with nothing
// changed, where the watchdog could not be armed.
func (t *Tx) Activate(ctx context.Context) error {
	leave, err := t.u.enter()
	if err != nil {
		return err
	}
	defer leave()
	s, err := t.open(Staged, Activating)
	if err != nil {
		return err
	}
	return t.u.activate(ctx, s, t.rel)
}

func (u *Updater) activate(ctx context.Context, t *txState, r *release.Release) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := u.arm(); err != nil {
		return err
	}
	if err := u.runScripts(context.WithoutCancel(ctx), t, release.BeforeActivate, ""); err != nil {
		return u.notNow(ctx, t, err)
	}
	t.State, t.By = Activating, u.process
	if t.needs(NeedsReboot) {
		t.Armed = u.boot
	} else {
		t.Live = begun
	}
	if err := u.save(); err != nil {
		return err
	}
	var err error
	if t.Armed != "" {
		err = u.activateParts(ctx, t, r, isReboot)
	} else {
		err = u.bringUp(ctx, t, r)
	}
	if err != nil {
		return u.takeBack(ctx, t, "cannot activate: "+err.Error(), blameFor(err), err)
	}
	t.State, t.Seen = InTrial, u.process
	if t.Armed == "" {
		t.Live, u.brought = done, true
	}
	return u.save()
}

// notNow ends an Activate before anything was activated: as a wait where a
// script asked for it, else as a way back.
func (u *Updater) notNow(ctx context.Context, t *txState, cause error) error {
	if u.poison != nil {
		return cause
	}
	if !errors.Is(cause, ErrLater) {
		return u.takeBack(ctx, t, "cannot activate: "+cause.Error(), blameFor(cause), cause)
	}
	if err := u.standDown(ctx, t); err != nil {
		return u.takeBack(ctx, t, err.Error(), blameCut, err)
	}
	u.disarm()
	return cause
}

// bringUp brings everything into effect that needs no boot, or had it.
func (u *Updater) bringUp(ctx context.Context, t *txState, r *release.Release) error {
	for _, p := range t.Parts {
		if p.Same || p.Effect != NeedsReboot {
			continue
		}
		if err := u.runScripts(context.WithoutCancel(ctx), t, release.AfterActivate, p.Name); err != nil {
			return err
		}
	}
	if err := u.activateParts(ctx, t, r, notReboot); err != nil {
		return err
	}
	return u.runScripts(context.WithoutCancel(ctx), t, release.AfterActivate, "")
}

func isReboot(e Effect) bool  { return e == NeedsReboot }
func notReboot(e Effect) bool { return e != NeedsReboot }

// activateParts activates every component that changes and whose effect is of
// the class, and checks with the device that it worked.
func (u *Updater) activateParts(ctx context.Context, t *txState, r *release.Release, class func(Effect) bool) error {
	for _, p := range t.Parts {
		if p.Same || !class(p.Effect) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := u.activatePart(ctx, t, r, p); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return ctx.Err()
}

func (u *Updater) activatePart(ctx context.Context, t *txState, r *release.Release, p txPart) error {
	b, c, err := u.component(r, p.Name)
	if err != nil {
		return err
	}
	if err := u.runScripts(context.WithoutCancel(ctx), t, release.BeforeActivate, p.Name); err != nil {
		return err
	}
	u.report(Progress{Step: "activate", Component: p.Name})
	err = u.run(context.WithoutCancel(ctx), u.opts.StepLimit, func(ctx context.Context) error {
		return b.Activate(ctx, t.ID, c)
	})
	u.addDowntime(t, b)
	if err != nil {
		return err
	}
	a, err := u.active(context.WithoutCancel(ctx), p.Name)
	if err != nil {
		return err
	}
	if !a.Is(p.Digest) && (p.Effect != NeedsReboot || a.Next != p.Digest) {
		return fmt.Errorf("it was activated, but the device says %s", describe(a))
	}
	u.kick()
	if p.Effect == NeedsReboot {
		return nil // its scripts wait for the boot
	}
	return u.runScripts(context.WithoutCancel(ctx), t, release.AfterActivate, p.Name)
}

// component returns the backend and the description of one component of r.
func (u *Updater) component(r *release.Release, name string) (Backend, release.Component, error) {
	c, ok := r.Component(name)
	if !ok {
		return nil, release.Component{}, fmt.Errorf("%w: the release does not list %q", ErrComponent, name)
	}
	b, err := u.backend(name)
	return b, c, err
}

// addDowntime adds what the last switch of a component cost. One that did not
// return in time may still be at work, and is not asked.
func (u *Updater) addDowntime(t *txState, b Backend) {
	if o, ok := b.(Outage); ok && u.poison == nil {
		t.Down += o.Downtime()
	}
}

func describe(a Active) string {
	s := string(a.State)
	if a.State == Whole {
		s += " " + a.Digest.Short()
	}
	if !a.Next.IsZero() {
		s += ", next boot " + a.Next.Short()
	}
	return s
}

// Commit ends the trial. It asks Health until it has held for Trial.Soak, then
// records that there is no way back, and makes the release permanent. When
// Health fails or a budget of the trial is spent, everything is taken back and
// the error is ErrUnhealthy.
//
// In the process or boot that has to be replaced first it returns
// ErrRestartPending or ErrRebootPending. When ctx ends before the point of no
// return, Commit returns its error and the trial stays open.
func (t *Tx) Commit(ctx context.Context) error {
	leave, err := t.u.enter()
	if err != nil {
		return err
	}
	defer leave()
	s, err := t.open(InTrial, Committing)
	if err != nil {
		return err
	}
	return t.u.commit(ctx, s, t.rel)
}

func (u *Updater) commit(ctx context.Context, t *txState, r *release.Release) error {
	if err := u.pending(t); err != nil {
		return err
	}
	if t.State == InTrial {
		if err := u.pass(ctx, t); err != nil {
			return err
		}
		t.State = Committing
		if err := u.save(); err != nil {
			return err
		}
	}
	return u.finish(ctx, t, r)
}

// pass takes the trial to its end. Without an error the release has proved
// itself, and nothing says no.
func (u *Updater) pass(ctx context.Context, t *txState) error {
	if !u.brought {
		return fmt.Errorf("%w: Resume could not bring the release into effect", ErrState)
	}
	for wait := u.opts.Trial.Interval; ; wait = min(2*wait, longestWait) {
		v, err := u.prove(ctx, t)
		if err != nil {
			return err
		}
		if !v.proved {
			blame := blameCut
			if v.condemn {
				blame = blameRelease
			}
			return u.takeBack(ctx, t, v.reason, blame, fmt.Errorf("%w: %s", ErrUnhealthy, v.reason))
		}
		err = u.lastWord(ctx, t)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrLater) {
			return err
		}
		if err := u.goOnFor(ctx, t, wait); err != nil {
			return err
		}
	}
	if err := u.allNew(ctx, t); err != nil {
		return u.takeBack(ctx, t, err.Error(), blameCut, err)
	}
	return nil
}

// lastWord runs the scripts that may still say no. One that asks for another
// time has until the deadline of the trial.
func (u *Updater) lastWord(ctx context.Context, t *txState) error {
	ctx = context.WithoutCancel(ctx)
	err := u.runScripts(ctx, t, release.BeforeCommit, "")
	for _, p := range activationOrder(t.Parts) {
		if err == nil {
			err = u.runScripts(ctx, t, release.BeforeCommit, p.Name)
		}
	}
	switch {
	case err == nil || u.poison != nil:
		return err
	case !errors.Is(err, ErrLater):
		return u.takeBack(ctx, t, err.Error(), blameFor(err), err)
	case t.Elapsed >= u.opts.Trial.Deadline:
		reason := fmt.Sprintf("not committed within %v: %v", u.opts.Trial.Deadline, err)
		return u.takeBack(ctx, t, reason, blameCut, fmt.Errorf("%w: %s", ErrUnhealthy, reason))
	}
	return err
}

// longestWait is the longest time between two runs of a script that asks for
// another time.
const longestWait = 30 * time.Second

// goOnFor lets the trial go on for at least d: one question to Health in each
// interval, so that the watchdog is fed. A sick answer counts with the next
// proof.
func (u *Updater) goOnFor(ctx context.Context, t *txState, d time.Duration) error {
	begin := u.host.Uptime()
	var err error
	for err == nil && u.host.Uptime()-begin < d {
		if err = u.host.Sleep(ctx, u.opts.Trial.Interval); err != nil {
			break
		}
		if sick := u.ask(ctx); !errors.Is(sick, errHung) {
			u.kick()
		}
	}
	t.Elapsed += u.host.Uptime() - begin
	return err
}

// pending returns what has to happen before the trial can go on.
func (u *Updater) pending(t *txState) error {
	switch u.needs(t) {
	case NeedsReboot:
		return fmt.Errorf("%w: %s is armed for the next boot", ErrRebootPending, t.To)
	case NeedsRestart:
		return fmt.Errorf("%w: %s replaced the running program", ErrRestartPending, t.To)
	}
	return nil
}

// needs says what t waits for.
func (u *Updater) needs(t *txState) Effect {
	switch {
	case t.State != Activating && t.Armed == u.boot:
		return NeedsReboot
	case t.State == InTrial && t.By == u.process && t.needs(NeedsRestart):
		return NeedsRestart
	}
	return ""
}

// allNew checks with the device, not with the journal, that the release is in
// effect.
func (u *Updater) allNew(ctx context.Context, t *txState) error {
	for _, p := range t.Parts {
		a, err := u.active(ctx, p.Name)
		if err != nil {
			return err
		}
		if !a.Is(p.Digest) {
			return fmt.Errorf("%s is not in effect any more: the device says %s", p.Name, describe(a))
		}
	}
	return nil
}

// Rollback takes the open transaction back, from any state before the point of
// no return. In a trial that is the embedder's word that the release failed:
// it will not be tried again by itself. Where taking back needs a reboot, the
// error is ErrRebootPending.
func (t *Tx) Rollback(ctx context.Context, reason string) error {
	leave, err := t.u.enter()
	if err != nil {
		return err
	}
	defer leave()
	s, err := t.open(Staging, Staged, Activating, InTrial, Reverting)
	if err != nil {
		return err
	}
	if reason == "" {
		reason = "asked for"
	}
	blame := blameNone
	if s.State == InTrial {
		blame = blameRelease
	}
	err = t.u.takeBack(ctx, s, reason, blame, errTakenBack)
	if errors.Is(err, errTakenBack) {
		return nil
	}
	return err
}
