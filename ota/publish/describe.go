package publish

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-ota/pawl/ota/release"
)

// Waiting is a change that waits for signatures.
type Waiting struct {
	What      string     `json:"what"` // as whoever began it calls it; nothing vouches for that
	Began     time.Time  `json:"began"`
	Documents []Document `json:"documents"`
}

// Document is one metadata file of a change that waits.
type Document struct {
	Role    Role      `json:"role"`
	Version int64     `json:"version"`
	Expires time.Time `json:"expires"`
	// Changes says what is other than in the version before, for the people
	// who sign.
	Changes []string `json:"changes"`
	Needs   []Need   `json:"needs"`
}

// Need is a rule that a file has to meet.
type Need struct {
	By        string   `json:"by"` // the file whose rule it is
	Threshold int      `json:"threshold"`
	Signed    []string `json:"signed"` // ids of the keys that have signed
	Open      []string `json:"open"`   // and of those that could
}

// Met reports whether enough keys have signed.
func (n Need) Met() bool { return len(n.Signed) >= n.Threshold }

func (e *edit) public(t *trusted) Waiting {
	w := Waiting{What: e.what, Began: e.began}
	for _, d := range e.drafts {
		doc := Document{Role: d.role, Version: d.version()}
		if d.root != nil {
			doc.Expires, doc.Changes = d.root.Signed.Expires, rootChanges(e.root(t, d.version()-1), d.root)
		} else {
			doc.Expires, doc.Changes = d.targets.Signed.Expires, targetsChanges(t.Targets[string(d.role)], d.targets)
		}
		for _, q := range d.needs {
			n := Need{By: q.by, Threshold: q.threshold, Signed: q.signed(d.meta())}
			for _, id := range q.ids {
				if !slices.Contains(n.Signed, id) {
					n.Open = append(n.Open, id)
				}
			}
			doc.Needs = append(doc.Needs, n)
		}
		w.Documents = append(w.Documents, doc)
	}
	return w
}

func shortID(id string) string { return id[:min(12, len(id))] }

// keyChanges tells how the keys of a role differ.
func keyChanges(role string, old, now []string, oldNeed, need int) (list []string) {
	for _, id := range now {
		if !slices.Contains(old, id) {
			list = append(list, fmt.Sprintf("%s: key %s is added", role, shortID(id)))
		}
	}
	for _, id := range old {
		if !slices.Contains(now, id) {
			list = append(list, fmt.Sprintf("%s: key %s counts no more", role, shortID(id)))
		}
	}
	if oldNeed != need {
		list = append(list, fmt.Sprintf("%s: %d of %d keys have to sign, not %d", role, need, len(now), oldNeed))
	}
	return list
}

func rootChanges(old, now *rootMeta) (list []string) {
	for _, role := range Roles() {
		a, b := rootQuorum(old, role), rootQuorum(now, role)
		list = append(list, keyChanges(string(role), a.ids, b.ids, a.threshold, b.threshold)...)
	}
	if old.Signed.ConsistentSnapshot != now.Signed.ConsistentSnapshot {
		list = append(list, fmt.Sprintf("consistent snapshots: %v", now.Signed.ConsistentSnapshot))
	}
	return list
}

func targetsChanges(old, now *targetsMeta) (list []string) {
	if old == nil {
		old = metadata.Targets()
	}
	for _, name := range slices.Sorted(maps.Keys(now.Signed.Targets)) {
		file, before := now.Signed.Targets[name], old.Signed.Targets[name]
		switch {
		case before == nil:
			list = append(list, fmt.Sprintf("%s is added: %s", name, file.Hashes["sha256"]))
		case !before.Equal(*file):
			list = append(list, fmt.Sprintf("%s is replaced: %s", name, file.Hashes["sha256"]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(old.Signed.Targets)) {
		if now.Signed.Targets[name] == nil {
			list = append(list, name+" is dropped")
		}
	}
	return append(list, delegationChanges(old, now)...)
}

func delegationChanges(old, now *targetsMeta) (list []string) {
	roles := func(meta *targetsMeta) map[string]metadata.DelegatedRole {
		all := map[string]metadata.DelegatedRole{}
		if d := meta.Signed.Delegations; d != nil {
			for _, r := range d.Roles {
				all[r.Name] = r
			}
		}
		return all
	}
	before, after := roles(old), roles(now)
	for _, name := range slices.Sorted(maps.Keys(after)) {
		a, b := before[name], after[name]
		if !slices.Equal(a.Paths, b.Paths) || a.Terminating != b.Terminating {
			list = append(list, fmt.Sprintf("%s may sign %s", name, strings.Join(b.Paths, ", ")))
		}
		list = append(list, keyChanges(name, a.KeyIDs, b.KeyIDs, a.Threshold, b.Threshold)...)
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, ok := after[name]; !ok {
			list = append(list, name+" may sign nothing any more")
		}
	}
	return list
}

// RoleStatus is how a role stands.
type RoleStatus struct {
	Role      Role      `json:"role"`
	Version   int64     `json:"version"`
	Threshold int       `json:"threshold"`
	Keys      []string  `json:"keys"` // their ids
	Expires   time.Time `json:"expires"`
	Variants  []string  `json:"variants,omitempty"` // that are delegated to the role
}

// Status is how a repository stands.
type Status struct {
	Product string       `json:"product"`
	Roles   []RoleStatus `json:"roles"` // those of Roles first, then delegated ones
	// Stops is when the whole fleet would stop to find updates if nobody
	// refreshed, and StopsBy the role that expires then. A delegated role that
	// expires before stops its variants alone.
	Stops   time.Time `json:"stops"`
	StopsBy Role      `json:"stopsBy"`
	Waiting *Waiting  `json:"waiting,omitempty"`
}

// Status returns how the repository stands. The metadata is verified, and may
// have expired.
func (r *Repository) Status() (Status, error) {
	t, err := r.disk.load(nil, time.Time{})
	if err != nil {
		return Status{}, fmt.Errorf("cannot tell how the repository stands: %w", err)
	}
	s := Status{Product: productOf(t)}
	expires := expiries(t)
	for _, role := range Roles() {
		q := rootQuorum(t.Root, role)
		version := map[Role]int64{Root: t.Root.Signed.Version, Targets: targetsOf(t).Signed.Version,
			Snapshot: t.Snapshot.Signed.Version, Timestamp: t.Timestamp.Signed.Version}[role]
		s.Roles = append(s.Roles, RoleStatus{Role: role, Version: version, Threshold: q.threshold, Keys: q.ids, Expires: expires[role]})
		if s.Stops.IsZero() || expires[role].Before(s.Stops) {
			s.Stops, s.StopsBy = expires[role], role
		}
	}
	for _, d := range delegations(t) {
		s.Roles = append(s.Roles, RoleStatus{Role: Role(d.Name), Version: t.Targets[d.Name].Signed.Version, Threshold: d.Threshold,
			Keys: d.KeyIDs, Expires: expires[Role(d.Name)], Variants: variantsOf(d)})
	}
	e, err := r.disk.waiting()
	if err == nil && e != nil {
		if err = e.settle(t); err == nil {
			w := e.public(t)
			s.Waiting = &w
		}
	}
	if err != nil {
		return s, fmt.Errorf("cannot tell what waits for signatures: %w", err)
	}
	return s, nil
}

// expiries returns when each role expires, delegated ones too.
func expiries(t *trusted) map[Role]time.Time {
	all := map[Role]time.Time{Root: t.Root.Signed.Expires, Snapshot: t.Snapshot.Signed.Expires, Timestamp: t.Timestamp.Signed.Expires}
	for role, meta := range t.Targets {
		all[Role(role)] = meta.Signed.Expires
	}
	return all
}

// variantsOf returns the variants that a delegated role may release for.
func variantsOf(d metadata.DelegatedRole) (list []string) {
	for _, p := range d.Paths {
		parts := strings.Split(p, "/")
		if len(parts) == 4 && parts[0] == kindRelease+"s" && release.CheckName(parts[2]) == nil {
			list = append(list, parts[2])
		}
	}
	return list
}
