package tuf

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/pawl-ota/pawl/ota/release"
)

// adopt fits the stored state to the roots that a lookup verified, oldest first.
// It refuses roots that end before the newest one that was seen.
func (t *trust) adopt(roots []root, anchored func(root) bool) error {
	newest := roots[len(roots)-1].meta
	if !slices.ContainsFunc(roots, func(r root) bool { return slices.Contains(t.Marks.Lineage, r.digest) }) &&
		!slices.ContainsFunc(roots, anchored) {
		*t = trust{Marks: marks{Generation: t.Marks.Generation}} // another device's, or another repository's
	}
	m := &t.Marks
	if newest.Signed.Version < m.Root {
		return fmt.Errorf("%w: root version %d, %d was seen", ErrRollback, newest.Signed.Version, m.Root)
	}
	t.Roots = nil
	for _, r := range roots {
		if r.meta.Signed.Version >= m.Root && !slices.Contains(m.Lineage, r.digest) {
			m.Lineage = append(m.Lineage, r.digest)
		}
		t.Roots = append(t.Roots, r.data)
	}
	m.Root = newest.Signed.Version
	// The pinned root stands last, where trim leaves it: whatever a mirror
	// hides, a lookup begins with it.
	pinned := roots[0].digest
	m.Lineage = append(slices.DeleteFunc(m.Lineage, func(d release.Digest) bool { return d == pinned }), pinned)
	t.recover(newest)
	return nil
}

// recover drops what keys signed that the newest root has revoked: it may be
// from a thief who raised versions or times to lock devices out
// (fast-forward attack, TUF specification, section 5.3.11).
func (t *trust) recover(newest *metadata.Metadata[metadata.RootType]) {
	m := &t.Marks
	timestampKeys, snapshotKeys := roleKeys(newest, metadata.TIMESTAMP), roleKeys(newest, metadata.SNAPSHOT)
	if lost(m.TimestampKeys, timestampKeys) {
		m.Issued = 0
	}
	if lost(m.SnapshotKeys, snapshotKeys) {
		m.Roles = nil
		delete(t.Roles, metadata.SNAPSHOT)
	}
	if lost(m.TimestampKeys, timestampKeys) || lost(m.SnapshotKeys, snapshotKeys) {
		m.Timestamp, m.Snapshot = 0, 0
		delete(t.Roles, metadata.TIMESTAMP)
	}
	m.TimestampKeys, m.SnapshotKeys = timestampKeys, snapshotKeys
}

func roleKeys(r *metadata.Metadata[metadata.RootType], name string) []string {
	role := r.Signed.Roles[name]
	if role == nil {
		return nil
	}
	return slices.Sorted(slices.Values(role.KeyIDs))
}

// lost reports whether one of the old keys is not among the new ones.
func lost(old, now []string) bool {
	return slices.ContainsFunc(old, func(id string) bool { return !slices.Contains(now, id) })
}

// check refuses verified metadata below the marks. go-tuf does the same
// against the files that are still there; the marks outlive those.
func (m *marks) check(set trustedmetadata.TrustedMetadata) error {
	below := func(what string, got, seen int64) error {
		return fmt.Errorf("%w: %s version %d, %d was seen", ErrRollback, what, got, seen)
	}
	if set.Timestamp == nil {
		return nil
	}
	if got := set.Timestamp.Signed.Version; got < m.Timestamp {
		return below(metadata.TIMESTAMP, got, m.Timestamp)
	}
	if got := set.Timestamp.Signed.Meta["snapshot.json"]; got == nil || got.Version < m.Snapshot {
		return below(metadata.SNAPSHOT, versionOf(got), m.Snapshot)
	}
	if set.Snapshot == nil {
		return nil
	}
	for _, file := range slices.Sorted(maps.Keys(m.Roles)) {
		if got := set.Snapshot.Signed.Meta[file]; got == nil || got.Version < m.Roles[file] {
			return below(file, versionOf(got), m.Roles[file])
		}
	}
	return nil
}

func versionOf(f *metadata.MetaFiles) int64 {
	if f == nil {
		return 0
	}
	return f.Version
}

// raise lifts the marks to verified metadata that passed check.
func (m *marks) raise(set trustedmetadata.TrustedMetadata) {
	if set.Timestamp == nil {
		return
	}
	m.Timestamp = set.Timestamp.Signed.Version
	m.Snapshot = versionOf(set.Timestamp.Signed.Meta["snapshot.json"])
	m.Issued = max(m.Issued, issued(set.Timestamp))
	if set.Snapshot == nil || set.Snapshot.Signed.Version != m.Snapshot {
		return // an older one, kept for comparison only
	}
	m.Roles = map[string]int64{}
	for file, f := range set.Snapshot.Signed.Meta {
		m.Roles[file] = versionOf(f)
	}
}

// issued returns when a timestamp says it was made, as Unix time; 0 when it does
// not say, or says what cannot be.
func issued(t *metadata.Metadata[metadata.TimestampType]) int64 {
	text, _ := t.Signed.UnrecognizedFields["issued"].(string)
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.After(t.Signed.Expires) {
		return 0
	}
	return max(0, at.Unix())
}
