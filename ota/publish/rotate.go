package publish

import (
	"context"
	"crypto"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// RoleChange says which keys count for a role from now on, and how many of
// them have to sign.
type RoleChange struct {
	Role   Role
	Remove []string           // ids of keys that count no more, see [KeyID]
	Add    []crypto.PublicKey // keys that count too
	// Threshold is how many keys have to sign; 0 leaves it as it is.
	Threshold int
}

// Rotate changes keys and thresholds, of delegated roles too. The keys of root
// have to sign for the roles of [Roles], those of targets for delegated ones; a
// new root takes a threshold of the old root's keys and of its own.
//
// Clients can use the repository all the while. Where what is signed now would
// not do under the new root, there are two: the first lets the old keys and the
// new ones sign, and the second, after all is signed anew, the new ones alone. So
// a key that is lost is as easy to replace as one that is there.
func (r *Repository) Rotate(ctx context.Context, changes ...RoleChange) error {
	var names []string
	for _, c := range changes {
		names = append(names, string(c.Role))
	}
	return r.change(ctx, "rotate "+strings.Join(names, ", "), func(t *trusted, now time.Time) (*edit, error) {
		return r.rotate(t, changes, "rotate "+strings.Join(names, ", "), now)
	})
}

// Renew makes a new root that expires later, with the same keys.
func (r *Repository) Renew(ctx context.Context) error {
	return r.change(ctx, "renew root", func(t *trusted, now time.Time) (*edit, error) {
		return r.rotate(t, nil, "renew root", now)
	})
}

// change loads the repository, has make begin an edit of it, and finishes that.
func (r *Repository) change(ctx context.Context, what string, make func(*trusted, time.Time) (*edit, error)) error {
	unlock, err := r.disk.lock()
	if err != nil {
		return fmt.Errorf("cannot %s: %w", what, err)
	}
	defer unlock()
	t, err := r.disk.load(nil, time.Time{})
	if err != nil {
		return fmt.Errorf("cannot %s: %w", what, err)
	}
	e, err := make(t, r.now())
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = r.finish(t, e)
	}
	if err != nil {
		return fmt.Errorf("cannot %s: %w", what, err)
	}
	return nil
}

func isTop(role Role) bool { return slices.Contains(Roles(), role) }

func (r *Repository) rotate(t *trusted, changes []RoleChange, what string, now time.Time) (*edit, error) {
	var delegated, top []RoleChange
	var touched []Role
	for _, c := range changes {
		touched = append(touched, c.Role)
		if isTop(c.Role) {
			top = append(top, c)
		} else {
			delegated = append(delegated, c)
			touched = append(touched, Targets)
		}
	}
	if len(delegated) == 0 || len(top) > 0 {
		touched = append(touched, Root)
	}
	e, err := r.begin(t, what, touched...)
	if err != nil {
		return nil, err
	}
	for _, c := range delegated {
		if err := r.rotateDelegated(t, e, c, now); err != nil {
			return nil, err
		}
	}
	if !slices.Contains(touched, Root) {
		return e, nil
	}
	return e, r.rotateRoot(t, e, top, now)
}

// rotateRoot adds the new roots to e, and targets where it has to be signed
// anew.
func (r *Repository) rotateRoot(t *trusted, e *edit, changes []RoleChange, now time.Time) error {
	after := r.nextRoot(t.Root, now)
	for _, c := range changes {
		q := rootQuorum(after, c.Role)
		q, err := q.change(c)
		if err != nil {
			return err
		}
		after.Signed.Roles[string(c.Role)] = &metadata.Role{KeyIDs: q.ids, Threshold: q.threshold}
		after.Signed.Keys = q.keys
	}
	over := r.nextRoot(t.Root, now)
	anew := false
	for role, meta := range map[Role]any{Targets: targetsOf(t), Snapshot: t.Snapshot, Timestamp: t.Timestamp} {
		if rootQuorum(after, role).met(meta) {
			continue
		}
		anew = true
		old, q := over.Signed.Roles[string(role)], after.Signed.Roles[string(role)]
		if len(q.KeyIDs) < old.Threshold {
			return fmt.Errorf("%s: all keys cannot be replaced and the threshold lowered to %d in one go: replace them first", role, q.Threshold)
		}
		ids := slices.Concat(old.KeyIDs, q.KeyIDs)
		slices.Sort(ids)
		over.Signed.Roles[string(role)] = &metadata.Role{KeyIDs: slices.Compact(ids), Threshold: old.Threshold}
		for _, id := range q.KeyIDs {
			over.Signed.Keys[id] = after.Signed.Keys[id]
		}
		if role == Targets {
			e.bump(t, Targets, r.expires(now, Targets))
		}
	}
	tidyKeys(after)
	roots := []*draft{{role: Root, root: after}}
	if anew {
		after.Signed.Version++
		roots = []*draft{{role: Root, root: over}, {role: Root, root: after}}
	}
	e.drafts = append(roots, e.drafts...)
	return nil
}

// nextRoot returns a copy of root, as the next version of it.
func (r *Repository) nextRoot(root *rootMeta, now time.Time) *rootMeta {
	next := &rootMeta{Signed: root.Signed, Signatures: []metadata.Signature{}}
	next.Signed.Version++
	next.Signed.Expires = r.expires(now, Root)
	next.Signed.Keys = maps.Clone(root.Signed.Keys)
	next.Signed.Roles = maps.Clone(root.Signed.Roles)
	return next
}

// tidyKeys drops keys that no role has.
func tidyKeys(root *rootMeta) {
	maps.DeleteFunc(root.Signed.Keys, func(id string, _ *metadata.Key) bool {
		for _, r := range root.Signed.Roles {
			if slices.Contains(r.KeyIDs, id) {
				return false
			}
		}
		return true
	})
}

// change returns the quorum with c done to it.
func (q quorum) change(c RoleChange) (quorum, error) {
	q.ids, q.keys = slices.Clone(q.ids), maps.Clone(q.keys)
	if q.keys == nil {
		q.keys = map[string]*metadata.Key{}
	}
	for _, id := range c.Remove {
		i := slices.Index(q.ids, id)
		if i < 0 {
			return q, fmt.Errorf("%s: %.12s is none of its keys", c.Role, id)
		}
		q.ids = slices.Delete(q.ids, i, i+1)
	}
	for _, public := range c.Add {
		key, id, err := tufKey(public)
		if err != nil {
			return q, fmt.Errorf("%s: %w", c.Role, err)
		}
		if slices.Contains(q.ids, id) || slices.Contains(c.Remove, id) {
			return q, fmt.Errorf("%s: key %.12s is one of its keys already", c.Role, id)
		}
		q.ids, q.keys[id] = append(q.ids, id), key
	}
	if c.Threshold != 0 {
		q.threshold = c.Threshold
	}
	if q.threshold < 1 || q.threshold > MaxThreshold || q.threshold > len(q.ids) {
		return q, fmt.Errorf("%s: %w: %d of %d keys cannot have to sign", c.Role, ErrKeys, q.threshold, len(q.ids))
	}
	return q, nil
}
