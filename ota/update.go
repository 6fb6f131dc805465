package ota

import (
	"context"
	"errors"
	"fmt"

	"github.com/pawl-ota/pawl/ota/release"
)

// Check refreshes the source and returns the newest release for this device,
// when it is above the running one. It returns ErrUpToDate when the running
// one is the newest, ErrNoRelease when there is none at all, ErrHardware and
// ErrFloor when the newest may not run here, and ErrHeld when it is held back;
// with the last three the release is returned too.
func (u *Updater) Check(ctx context.Context) (*release.Release, error) {
	leave, err := u.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	return u.check(ctx)
}

func (u *Updater) check(ctx context.Context) (*release.Release, error) {
	if u.opts.Source == nil {
		return nil, ErrNoSource
	}
	u.taken()
	r, err := u.opts.Source.Latest(ctx, u.opts.Device)
	if err != nil {
		return nil, fmt.Errorf("cannot look for a release: %w", err)
	}
	if run := u.rec.Running; run != nil && r.Seq <= run.Seq {
		return nil, fmt.Errorf("%w: %s", ErrUpToDate, run.Installed)
	}
	if t := u.rec.Tx; t != nil && t.State != Stuck && r.Digest() == t.To.Digest {
		return r, nil
	}
	if err := u.acceptable(r); err != nil {
		return r, fmt.Errorf("%s (seq %d): %w", r.Version, r.Seq, err)
	}
	return r, nil
}

// Update is the whole way: it settles what is open, looks for the newest
// release for this device, and takes it from Stage to Commit.
//
// Without an error the result's state is Committed, or Idle when the newest
// release runs already. Otherwise the error says what kept it: ErrUnhealthy
// or the reason of another way back (the state is Reverted), ErrHeld,
// ErrRestartPending or ErrRebootPending (call Update again after it),
// ErrStuck, or what went wrong on the way to a staged release, which stays
// open for the next Update.
func (u *Updater) Update(ctx context.Context) (Result, error) {
	leave, err := u.enter()
	if err != nil {
		return Result{}, err
	}
	defer leave()
	_, err = u.resume(ctx)
	if err != nil && !errors.Is(err, ErrStuck) {
		return u.outcome(), err
	}
	stuck := err
	if t := u.rec.Tx; t != nil && t.State != Stuck && t.State != Staging && t.State != Staged {
		if res, err := u.drive(ctx); err != nil {
			return res, err
		}
	}
	if u.ended != nil && u.ended.State == Reverted && u.ended.Needs == NeedsRestart {
		return u.outcome(), fmt.Errorf("%w: %s was taken back", ErrRestartPending, u.ended.To)
	}
	return u.next(ctx, stuck)
}

// next begins or goes on with the newest release. stuck is why an earlier one
// is stuck; a newer one may be begun over it.
func (u *Updater) next(ctx context.Context, stuck error) (Result, error) {
	if t := u.rec.Tx; t != nil && t.Back && t.State != Stuck {
		return u.drive(ctx) // an operator's word goes before a newer release
	}
	r, err := u.check(ctx)
	if t := u.rec.Tx; t != nil && t.State != Stuck {
		if err == nil && r.Digest() == t.To.Digest || err != nil && !withdrawn(err) {
			// The source need not answer for what is here already.
			return u.drive(ctx)
		}
		back := u.takeBack(ctx, t, "it is not the newest release any more", blameNone, errTakenBack)
		if !errors.Is(back, errTakenBack) || errors.Is(back, ErrStuck) {
			return u.outcome(), back
		}
	}
	switch {
	case err != nil && stuck != nil:
		return u.outcome(), errors.Join(stuck, err)
	case errors.Is(err, ErrUpToDate):
		return u.outcome(), nil
	case err != nil:
		return u.outcome(), err
	}
	u.tidyOwed(ctx)
	locator, err := u.locate(ctx, r)
	if err != nil {
		return u.outcome(), err
	}
	if _, err := u.begin(ctx, r, txState{Locator: locator}); err != nil {
		return u.outcome(), err
	}
	u.ended = nil
	return u.drive(ctx)
}

// withdrawn reports whether the verified answer of the source is that nothing
// above the running release is offered.
func withdrawn(err error) bool {
	return errors.Is(err, ErrUpToDate) || errors.Is(err, ErrNoRelease)
}

// drive takes the open transaction from where it is to its end.
func (u *Updater) drive(ctx context.Context) (Result, error) {
	t, r := u.rec.Tx, u.rel
	var err error
	if t.State == Staging {
		if err = u.stage(ctx, t, r); err != nil && t.Back && ctx.Err() == nil && u.rec.Tx == t && !errors.Is(err, ErrLater) {
			err = u.takeBack(ctx, t, err.Error(), blameNone, err)
		}
	}
	if err == nil && t.State == Staged {
		err = u.activate(ctx, t, r)
	}
	if err == nil && (t.State == InTrial || t.State == Committing) {
		err = u.commit(ctx, t, r)
	}
	if err == nil && u.rec.Tx == t && u.needs(t) == NeedsReboot {
		err = ErrRebootPending
	}
	return u.outcome(), err
}
