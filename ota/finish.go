package ota

import (
	"context"
	"fmt"
	"slices"

	"github.com/pawl-ota/pawl/ota/release"
)

// finish goes the way forward from the commit point, from any point of it.
func (u *Updater) finish(ctx context.Context, t *txState, r *release.Release) error {
	ctx = context.WithoutCancel(ctx)
	u.takeOver()
	for _, p := range activationOrder(t.Parts) {
		again, err := u.reinstate(ctx, t, r, p)
		if err != nil {
			return u.stuck(t, true, fmt.Errorf("cannot bring %s back after the commit point: %w", p.Name, err))
		}
		if again && p.Effect == NeedsReboot {
			return u.askReboot(t, true)
		}
		b, c, err := u.component(r, p.Name)
		if err != nil {
			return u.stuck(t, true, err)
		}
		u.report(Progress{Step: "commit", Component: p.Name})
		if err := u.persist(ctx, func(ctx context.Context) error { return b.Commit(ctx, t.ID, c) }); err != nil {
			return u.stuck(t, true, fmt.Errorf("cannot commit %s: %w", p.Name, err))
		}
		u.kick()
	}
	if err := u.runAfter(ctx, t, release.AfterCommit, activationOrder(t.Parts)); err != nil {
		return err
	}
	return u.committedNow(ctx, t, r)
}

// reinstate activates a component again that is not in effect any more, as
// when the power went before the boot loader was told that the boot is good.
func (u *Updater) reinstate(ctx context.Context, t *txState, r *release.Release, p txPart) (again bool, err error) {
	a, err := u.active(ctx, p.Name)
	if err != nil || a.Is(p.Digest) {
		return false, err
	}
	return true, u.activatePart(ctx, t, r, p)
}

// committedNow records that the release is what the device runs.
func (u *Updater) committedNow(ctx context.Context, t *txState, r *release.Release) error {
	res := t.result()
	res.State, res.Reason = Committed, ""
	res = u.end(t, res)
	old := u.rec.Running
	next := newRunning(old, r, t.To.Digest)
	u.rec.Running = next
	u.rec.keep(old, r, t.To.Digest)
	u.rec.SecurityFloor = max(u.rec.SecurityFloor, r.SecurityFloor)
	u.rec.releaseHolds(t.To.ID)
	if t.Back && old != nil {
		u.rec.hold(old.ID, u.attemptOf(old.Digest), true, u.host.Now(), "rolled back from: "+t.Reason)
	}
	u.rec.Tx, u.rec.Over = nil, nil
	return u.close(ctx, res)
}

// newRunning returns what runs once r, whose document is doc, was committed
// over old. A component that r does not list stays what it was.
func newRunning(old *running, r *release.Release, doc release.Digest) *running {
	next := &running{Installed: Installed{ID: r.ID, Version: r.Version, Digest: doc}}
	if old != nil {
		next.Parts = slices.DeleteFunc(slices.Clone(old.Parts), func(p part) bool {
			_, listed := r.Component(p.Name)
			return listed
		})
	}
	for _, c := range r.Components {
		next.Parts = append(next.Parts, part{c.Name, c.Digest(), doc})
	}
	return next
}

// attemptOf returns the attempt number of a release that was installed.
func (u *Updater) attemptOf(doc release.Digest) uint32 {
	if r, err := u.document(doc); err == nil {
		return r.Attempt
	}
	return 0
}

// keep says which releases can be gone back to, after r replaced old.
func (rec *record) keep(old *running, r *release.Release, next release.Digest) {
	most := 0
	for _, c := range r.Components {
		most = max(most, c.Keep.Previous)
	}
	kept := rec.Kept
	if old != nil {
		kept = append([]running{*old}, kept...)
	}
	kept = slices.DeleteFunc(kept, func(k running) bool { return k.Digest == next })
	rec.Kept = kept[:min(len(kept), most, maxKept)]
}
