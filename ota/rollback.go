package ota

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pawl-ota/pawl/ota/release"
)

// Rollback goes from a committed release to one that was kept: the one with
// the given seq, or with 0 the newest below the running one. It is a transaction of its
// own, with a trial, whose content is on the device: no network is used. The
// release that it leaves is held back from then on.
//
// While a transaction is open that has not passed the point of no return, that
// one is taken back, and seq has to be 0.
//
// It returns ErrNothingKept when there is no such release, ErrFloor when it is
// below a floor, ErrWatchdog when one of its scripts may outlast the watchdog, and
// otherwise what Update returns.
func (u *Updater) Rollback(ctx context.Context, seq uint64) (Result, error) {
	leave, err := u.enter()
	if err != nil {
		return Result{}, err
	}
	defer leave()
	if t := u.rec.Tx; t != nil && u.settled && t.State != Stuck && t.State != Committing {
		return u.abandon(ctx, t, seq)
	}
	if err := u.mayBegin(); err != nil {
		return u.outcome(), err
	}
	k, err := u.rec.goBackTo(seq)
	if err != nil {
		return u.outcome(), err
	}
	if err := u.rec.aboveFloors(k.Seq); err != nil {
		return u.outcome(), fmt.Errorf("cannot go back to %s: %w", k.Installed, err)
	}
	r, err := u.compose(k)
	if err != nil {
		return u.outcome(), fmt.Errorf("cannot go back to %s: %w: %w", k.Installed, ErrNotLocal, err)
	}
	if err := u.inTime(r); err != nil {
		return u.outcome(), fmt.Errorf("cannot go back to %s: %w", k.Installed, err)
	}
	for _, c := range r.Components {
		if _, err := u.backend(c.Name); err != nil {
			return u.outcome(), err
		}
	}
	u.tidyOwed(ctx)
	u.ended = nil
	if _, err := u.begin(ctx, r, txState{Back: true}); err != nil {
		return u.outcome(), err
	}
	return u.drive(ctx)
}

// abandon takes the open transaction back as an operator asked.
func (u *Updater) abandon(ctx context.Context, t *txState, seq uint64) (Result, error) {
	if seq != 0 {
		return u.outcome(), fmt.Errorf("%w: transaction %s is open (%s); take it back first", ErrState, t.ID, t.State)
	}
	b := blameNone
	if t.State == InTrial {
		b = blameRelease
	}
	err := u.takeBack(ctx, t, "rolled back by the operator", b, errTakenBack)
	if errors.Is(err, errTakenBack) && !errors.Is(err, ErrStuck) && !errors.Is(err, ErrRebootPending) {
		err = nil
	}
	return u.outcome(), err
}

// goBackTo returns the kept release with the given seq, and for 0 the newest one
// below the running one.
func (rec *record) goBackTo(seq uint64) (running, error) {
	var best running
	for _, k := range rec.Kept {
		if k.Seq == seq {
			return k, nil
		}
		if seq == 0 && rec.Running != nil && k.Seq < rec.Running.Seq && k.Seq > best.Seq {
			best = k
		}
	}
	if best.Seq != 0 {
		return best, nil
	}
	if seq == 0 {
		return running{}, ErrNothingKept
	}
	return running{}, fmt.Errorf("%w: with seq %d", ErrNothingKept, seq)
}

// compose returns the release that k was: its own document, or, where k had
// components that an earlier release brought, one that lists those too.
func (u *Updater) compose(k running) (*release.Release, error) {
	r, err := u.document(k.Digest)
	if err != nil {
		return nil, err
	}
	for _, p := range k.Parts {
		if p.Release == k.Digest {
			continue
		}
		c, err := u.installedComponent(p)
		if err != nil {
			return nil, err
		}
		r.Components = append(slices.Clip(r.Components), c)
	}
	return r, nil
}

// SetDataFloor says that the app has migrated its data: no release below seq
// can read it any more. The floor never falls. It is refused with ErrState
// while a transaction is open, and for a seq above the running one.
func (u *Updater) SetDataFloor(seq uint64) error {
	leave, err := u.enter()
	if err != nil {
		return err
	}
	defer leave()
	if u.rec.Tx != nil {
		return fmt.Errorf("%w: transaction %s is open", ErrState, u.rec.Tx.ID)
	}
	if u.rec.Running == nil || seq > u.rec.Running.Seq {
		return fmt.Errorf("%w: a data floor of %d is above the running release", ErrState, seq)
	}
	if seq <= u.rec.DataFloor {
		return nil
	}
	u.rec.DataFloor = seq
	return u.save()
}
