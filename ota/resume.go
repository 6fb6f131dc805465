package ota

import (
	"cmp"
	"context"
	"errors"
	"fmt"
)

// Resume settles what an earlier process or boot left open, and has to be the
// first verb after Open. It is prompt: it asks no health, waits for no service
// and needs no network, so that it can run before the app starts. It may be
// called again at any time.
//
// It returns the open transaction, or the one it ended, or the running release
// with state Idle. Result.Needs says whether the process or the boot has to
// end before anything can go on; that is no error. ErrStuck is returned when a
// way could not be gone to its end; Resume tries again, with a growing pause
// between two tries of one process.
//
// What it does depends on the recorded state, on what each component's backend
// answers (old: as before the transaction; new: the release), and on whether
// this is another process or boot than the one recorded:
//
//	state       process, boot   components          then
//	(none)      any             any                 drop what ended transactions left
//	staging     any             any                 stays open; Stage again
//	staged      any             any                 stays open; what scripts prepared is undone
//	staged      record lost     any                 back: it may have been activating
//	activating  any             any                 back, not condemned
//	trial       same process    any                 stays open
//	trial       same boot       armed for the next  stays open, needs a reboot
//	trial       other           armed one is old    back: the boot loader refused it
//	trial       other           a restarted is old  back: something put it back
//	trial       other           all new             count a start; activate again; trial goes on
//	trial       other           live ones not new   count a start; activate again; trial goes on
//	trial       start budget    any                 back, not condemned
//	trial       other           cannot be told      an error, until a trial's time is over; then back
//	trial       record lost     all can go back     as above
//	trial       record lost     one can not         forward, if it was in effect: it may have been committing
//	committing  any             all new             forward
//	committing  any             a rebooting is old  arm again, needs a reboot; after 3 boots stuck
//	committing  any             another is not new  activate again, forward
//	reverting   same boot       armed for the next  stays open, needs a reboot
//	reverting   any             any                 back; after 3 boots stuck
//	stuck       any             any                 the way it was going, again
//
// Where it goes back, scripts are undone, and where it activates or goes
// forward, those that have not succeeded run; what a script of an earlier
// process left running is ended first.
//
// A record that was lost to damage may have been one step further than the one
// that is left. In every other state than the two above, doing what the older
// record asks for is right for both.
func (u *Updater) Resume(ctx context.Context) (Result, error) {
	leave, err := u.enter()
	if err != nil {
		return Result{}, err
	}
	defer leave()
	return u.resume(ctx)
}

func (u *Updater) resume(ctx context.Context) (Result, error) {
	if err := u.rely(); err != nil {
		return u.outcome(), err
	}
	u.settled, u.ended = true, nil
	t := u.rec.Tx
	if t == nil {
		return u.outcome(), u.settleIdle(ctx)
	}
	t.Doubt = t.Doubt || u.fallback
	if u.rel == nil {
		rel, err := u.document(t.To.Digest)
		if err != nil {
			return u.resumeBlind(ctx, t, err)
		}
		u.rel = rel
		u.publish()
	}
	u.endScripts(ctx, t)
	err := u.settle(ctx, t)
	if errors.Is(err, ErrRebootPending) || errors.Is(err, errTakenBack) {
		err = nil
	}
	return u.outcome(), err
}

// rely makes durable what was read of the journal, before anything is done that
// follows from it: the process that wrote it may have been killed after the record
// got its name, and before that was durable. A power cut would bring the record
// before it back, with what follows from this one done. Nothing follows from one
// with nothing open.
func (u *Updater) rely() error {
	idle := u.rec.Tx == nil && len(u.rec.Over) == 0 && !u.rec.Owed && !u.fallback
	if u.settled || idle {
		return nil
	}
	if err := u.dir.SyncNames("."); err != nil {
		u.poison = fmt.Errorf("cannot make the journal durable: %w", err)
		return fmt.Errorf("%w: %w", ErrPoisoned, u.poison)
	}
	return nil
}

// settleIdle finds out what runs where the journal was lost, and drops what
// ended transactions left behind.
func (u *Updater) settleIdle(ctx context.Context) error {
	if u.lost {
		// What open transactions set aside may be the only way back: it stays
		// until a later release is committed.
		u.lost = false
		return u.rediscover(ctx)
	}
	if u.fallback {
		u.rec.Owed = true // by a transaction that the lost record may have begun
	}
	u.dropSpool() // what a power cut brought back of it
	u.tidyOwed(ctx)
	return nil
}

// rediscover looks through the stored release documents for the newest one
// whose components are all in effect. A release that was on trial counts as
// running then: with the journal gone nobody knows that it was.
func (u *Updater) rediscover(ctx context.Context) error {
	docs, err := u.documents()
	if err != nil {
		return err
	}
	for _, d := range docs {
		whole := true
		for _, c := range d.rel.Components {
			a, err := u.active(ctx, c.Name)
			if err != nil && !errors.Is(err, ErrComponent) {
				return err
			}
			whole = whole && err == nil && a.Is(c.Digest())
		}
		if !whole {
			continue
		}
		u.rec.Running = newRunning(nil, d.rel, d.digest)
		u.rec.SecurityFloor = d.rel.SecurityFloor
		u.notes = append(u.notes, "the device says that it runs "+u.rec.Running.String())
		return u.save()
	}
	return nil
}

// outcome is what a verb that drives a transaction returns.
func (u *Updater) outcome() Result {
	switch {
	case u.rec.Tx != nil && u.ended == nil:
		r := u.rec.Tx.result()
		r.Needs = u.needs(u.rec.Tx)
		return r
	case u.ended != nil:
		return *u.ended
	default:
		r := Result{State: Idle}
		if u.rec.Running != nil {
			r.To = u.rec.Running.Installed
		}
		return r
	}
}

// resumeBlind settles a transaction whose release document was lost: back as
// far as the backends know the way by themselves.
func (u *Updater) resumeBlind(ctx context.Context, t *txState, cause error) (Result, error) {
	u.endScripts(ctx, t)
	err := u.stillStuck(t)
	switch {
	case err != nil:
	case t.State == Committing:
		err = u.stuck(t, true, cause)
	default:
		err = u.takeBack(ctx, t, cause.Error(), blameCut, errTakenBack)
	}
	if errors.Is(err, ErrRebootPending) || errors.Is(err, errTakenBack) {
		err = nil
	}
	return u.outcome(), err
}

// settle is the table of Resume.
func (u *Updater) settle(ctx context.Context, t *txState) error {
	switch t.State {
	case Staging:
		return nil
	case Staged:
		if u.fallback {
			return u.takeBack(ctx, t, "a journal record was lost while it was staged", blameCut, errTakenBack)
		}
		if err := u.standDown(ctx, t); err != nil {
			return u.takeBack(ctx, t, err.Error(), blameCut, errors.Join(errTakenBack, err))
		}
		return nil
	case Activating:
		return u.takeBack(ctx, t, "cut short while it was activated", blameCut, errTakenBack)
	case InTrial:
		return u.settleTrial(ctx, t)
	case Committing, Reverting:
		return u.goOn(ctx, t)
	case Stuck:
		if err := u.stillStuck(t); err != nil {
			return err
		}
		return u.goOn(ctx, t)
	default:
		return fmt.Errorf("%w: state %q", ErrJournal, t.State)
	}
}

// stillStuck returns ErrStuck while it is too early for another try, and else
// gives a stuck transaction the state of the way that it was going.
func (u *Updater) stillStuck(t *txState) error {
	if t.State != Stuck {
		return nil
	}
	if u.tried && u.host.Uptime() < u.retryAt {
		return fmt.Errorf("%w: %s", ErrStuck, t.Reason)
	}
	u.tried = true
	t.State = Reverting
	if t.Forward {
		t.State = Committing
	}
	return nil
}

// goOn goes the recorded way to its end.
func (u *Updater) goOn(ctx context.Context, t *txState) error {
	if t.Armed == u.boot {
		return nil
	}
	if t.State == Committing {
		return u.finish(ctx, t, u.rel)
	}
	return u.takeBack(ctx, t, t.Reason, t.Blame, errTakenBack)
}

func (u *Updater) settleTrial(ctx context.Context, t *txState) error {
	// Only a trial that was in effect can have been committing.
	if u.fallback && t.Live == done && t.Armed != u.boot {
		sure, err := u.canRevert(ctx, t)
		if err != nil {
			return err
		}
		if !sure {
			t.State = Committing
			if err := u.save(); err != nil {
				return err
			}
			return u.finish(ctx, t, u.rel)
		}
	}
	if u.brought || t.Armed == u.boot {
		return nil
	}
	if u.fallback && t.Live == notBegun {
		t.Live = begun // the lost record may have said so
	}
	if t.Seen != u.process {
		if err := u.countStart(ctx, t); err != nil {
			return err
		}
	}
	return u.start(ctx, t)
}

// canRevert asks every backend whether the way back is still there.
func (u *Updater) canRevert(ctx context.Context, t *txState) (sure bool, err error) {
	for _, p := range activationOrder(t.Parts) {
		b, c, err := u.component(u.rel, p.Name)
		if err != nil {
			return false, err
		}
		r, ok := b.(Reverter)
		if !ok {
			return false, nil
		}
		err = u.run(ctx, u.opts.StepLimit, func(ctx context.Context) error {
			sure, err = r.CanRevert(ctx, t.ID, c)
			return err
		})
		if err != nil || !sure {
			return false, err
		}
	}
	return true, nil
}

// countStart counts a process that found the trial open, whatever becomes of
// it then.
func (u *Updater) countStart(ctx context.Context, t *txState) error {
	if t.Starts >= u.opts.Trial.Starts {
		reason := fmt.Sprintf("%d starts did not end the trial", t.Starts)
		return u.takeBack(ctx, t, reason, blameCut, errTakenBack)
	}
	t.Starts++
	t.Seen = u.process
	return u.save()
}

// start brings everything into effect that this boot did not bring up by
// itself.
func (u *Updater) start(ctx context.Context, t *txState) error {
	refused, replaces, err := u.look(ctx, t)
	if err != nil {
		return u.waitForAnswer(ctx, t, err)
	}
	if refused != "" {
		return u.takeBack(ctx, t, refused, blameCut, errTakenBack)
	}
	u.takeOver()
	if t.Live == notBegun || replaces {
		t.Live = cmp.Or(t.Live, begun)
		if replaces {
			t.By = u.process
		}
		if err := u.save(); err != nil {
			return err
		}
	}
	if err := u.bringUp(ctx, t, u.rel); err != nil {
		return u.takeBack(ctx, t, "cannot activate after a start: "+err.Error(), blameFor(err), errors.Join(errTakenBack, err))
	}
	u.brought = true
	if t.Live == done {
		return nil
	}
	t.Live = done
	return u.save()
}

// waitForAnswer gives a process that cannot find out what runs the time of one
// trial, over its calls of Resume, before everything is taken back.
func (u *Updater) waitForAnswer(ctx context.Context, t *txState, cause error) error {
	now := u.host.Uptime()
	if u.silent == nil {
		u.silent = &now
	}
	if now-*u.silent < u.opts.Trial.Deadline {
		return cause
	}
	return u.takeBack(ctx, t, cause.Error(), blameCut, errTakenBack)
}

// look asks the device whether everything that this process or boot should
// have come up with did come up. replaces is set when activating now would
// replace the program that runs.
func (u *Updater) look(ctx context.Context, t *txState) (refused string, replaces bool, err error) {
	for _, p := range activationOrder(t.Parts) {
		a, err := u.active(ctx, p.Name)
		if err != nil {
			return "", false, err
		}
		switch {
		case a.Is(p.Digest):
		case p.Effect == NeedsReboot:
			return fmt.Sprintf("the boot did not bring up %s: the device says %s", p.Name, describe(a)), false, nil
		case p.Effect == NeedsRestart && t.Live == done:
			return fmt.Sprintf("something put %s back: the device says %s", p.Name, describe(a)), false, nil
		case p.Effect == NeedsRestart:
			replaces = true
		}
	}
	return "", replaces, nil
}
