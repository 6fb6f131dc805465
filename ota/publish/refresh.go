package publish

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Refreshed is what Refresh did.
type Refreshed struct {
	Signed  []Role             // the roles that were signed anew
	Expires map[Role]time.Time // when each role expires now
	// Due are roles that expire before the timestamp does and were not signed
	// anew: their keys are not here, a change of them waits, or it is root, which
	// [Repository.Renew] signs. The fleet, or a delegated role's variants, would
	// stop to find updates then, whoever refreshes.
	Due []Role
}

// Refresh signs the timestamp anew, and with it the snapshot, the targets and
// delegated roles where they would expire before it and their keys are here, so
// that devices go on trusting the repository. It is for a job that runs by
// itself, well within Lifetimes.Timestamp, and needs the timestamp's key alone
// most of the time.
func (r *Repository) Refresh(ctx context.Context) (Refreshed, error) {
	unlock, err := r.disk.lock()
	if err != nil {
		return Refreshed{}, fmt.Errorf("cannot refresh repository: %w", err)
	}
	defer unlock()
	t, err := r.disk.load(nil, time.Time{})
	if err != nil {
		return Refreshed{}, fmt.Errorf("cannot refresh repository: %w", err)
	}
	done, e, err := r.refresh(t)
	if err != nil {
		return Refreshed{}, fmt.Errorf("cannot refresh repository: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return Refreshed{}, err
	}
	r.opts.Progress(Progress{Step: "sign"})
	if err := r.finish(t, e); err != nil {
		return Refreshed{}, fmt.Errorf("cannot refresh repository: %w", err)
	}
	done.Expires = expiries(t)
	return done, nil
}

// refresh finds out what is to be signed anew, and what of it can be.
func (r *Repository) refresh(t *trusted) (done Refreshed, e *edit, err error) {
	now := r.now()
	until := r.expires(now, Timestamp)
	waits, err := r.disk.waiting()
	if err != nil {
		return done, nil, err
	}
	e = &edit{what: "refresh", began: now, fresh: []Role{Timestamp}}
	q := rootQuorum(t.Root, Snapshot)
	snapshot := q.here(r.opts.Keys[Snapshot]) >= q.threshold
	var roles []Role
	for _, d := range delegations(t) {
		roles = append(roles, Role(d.Name))
	}
	for _, role := range append(roles, Targets) {
		if !t.Targets[string(role)].Signed.Expires.Before(until) {
			continue
		}
		q := delegateQuorum(targetsOf(t), role)
		if role == Targets {
			q = rootQuorum(t.Root, role)
		}
		if !snapshot || q.here(r.opts.Keys[role]) < q.threshold || waits != nil && waits.draft(role) != nil {
			done.Due = append(done.Due, role)
			continue
		}
		e.bump(t, role, r.expires(now, role))
		done.Signed = append(done.Signed, role)
	}
	switch {
	case len(e.drafts) > 0, snapshot && t.Snapshot.Signed.Expires.Before(until):
		e.fresh = append(e.fresh, Snapshot)
		done.Signed = append(done.Signed, Snapshot)
	case t.Snapshot.Signed.Expires.Before(until):
		done.Due = append(done.Due, Snapshot)
	}
	if t.Root.Signed.Expires.Before(until) {
		done.Due = append(done.Due, Root)
	}
	done.Signed = append(done.Signed, Timestamp)
	slices.Sort(done.Due)
	return done, e, nil
}
