//go:build linux

package publish

import (
	"crypto"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// offline is a repository whose root and targets are three people's, two of
// whom have to sign, and who are elsewhere.
type offline struct {
	*fixture
	root, targets []crypto.Signer
}

func newOffline(t *testing.T) *offline {
	f := &fixture{dir: filepath.Join(t.TempDir(), "repo"), keys: testKeys(t, 3), now: start}
	f.open(t, nil)
	require.NoError(t, f.Create(t.Context(), "gateway", 2))
	o := &offline{f, f.keys[Root], f.keys[Targets]}
	delete(f.keys, Root)
	delete(f.keys, Targets)
	f.opts.Wait = true
	return o
}

// carry copies what waits onto a stick.
func (o *offline) carry(t *testing.T) string {
	data, err := os.ReadFile(filepath.Join(o.dir, waitingName))
	require.NoError(t, err)
	stick := filepath.Join(t.TempDir(), "stick.json")
	require.NoError(t, os.WriteFile(stick, data, 0o644))
	return stick
}

func read(t *testing.T, path string) []byte {
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return data
}

// TestSignOffline has a release and a new key of targets signed by two people,
// each on a machine of their own.
func TestSignOffline(t *testing.T) {
	o := newOffline(t)
	d := o.newDevice(t)
	first := read(t, d.firstRoot(o.fixture))
	a, err := o.add(t, "default")
	require.ErrorIs(t, err, ErrWaiting)
	require.EqualValues(t, 1, a.Seq)
	_, err = d.latest(t.Context(), "default")
	require.Error(t, err, "nothing is published")
	o.good(t)
	_, err = o.add(t, "default")
	require.ErrorIs(t, err, ErrBlocked)

	// Two sticks at once; what one signs is not on the other.
	one, two := o.carry(t), o.carry(t)
	w, err := SignFile(one, first, Keys{Targets: o.targets[:1]})
	require.NoError(t, err)
	require.Len(t, w.Documents, 1)
	doc := w.Documents[0]
	require.Equal(t, Targets, doc.Role)
	require.Len(t, doc.Changes, 2)
	require.Contains(t, doc.Changes[1], "releases/gateway/default/1.json is added: "+a.Release.String())
	require.Equal(t, []string{idOf(t, o.targets[0])}, doc.Needs[0].Signed)
	require.Len(t, doc.Needs[0].Open, 2)
	require.False(t, doc.Needs[0].Met())
	_, err = o.Sign(t.Context(), read(t, one))
	require.ErrorIs(t, err, ErrWaiting)
	s, err := o.Status()
	require.NoError(t, err)
	require.Equal(t, "release 1 of default", s.Waiting.What)
	require.Equal(t, doc.Needs, s.Waiting.Documents[0].Needs)

	_, err = SignFile(two, first, Keys{Targets: o.targets[2:]})
	require.NoError(t, err)
	_, err = o.Sign(t.Context(), read(t, two))
	require.NoError(t, err)
	require.EqualValues(t, 1, d.seq(t, "default"))
	_, err = o.Sign(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)

	// Now a key of targets, which root signs, and targets itself anew.
	key := newKey(t)
	c := RoleChange{Role: Targets, Remove: []string{idOf(t, o.targets[0]), idOf(t, o.targets[1])}, Add: []crypto.PublicKey{key.Public()}}
	require.ErrorIs(t, o.Rotate(t.Context(), c), ErrWaiting)
	stick := o.carry(t)
	for i, keys := range []Keys{{Root: o.root[:1]}, {Root: o.root[2:]}, {Targets: o.targets[2:]}, {Targets: {key}}} {
		require.EqualValues(t, 1, d.seq(t, "default"))
		w, err = SignFile(stick, first, keys)
		require.NoError(t, err)
		require.Len(t, w.Documents, 3)
		_, err = o.Sign(t.Context(), read(t, stick))
		require.Equal(t, i == 3, err == nil, "%d: %v", i, err)
	}
	require.EqualValues(t, 1, d.seq(t, "default"))
	require.EqualValues(t, 1, o.newDevice(t).seq(t, "default"))
	o.keys[Targets] = []crypto.Signer{key, o.targets[2]}
	require.EqualValues(t, 2, o.mustAdd(t, "default"))
	require.EqualValues(t, 2, d.seq(t, "default"))
	o.good(t)
}

func (d *device) firstRoot(f *fixture) string { return filepath.Join(f.dir, "metadata", "1.root.json") }

// TestSignLies: what came by stick is looked at before it is signed, and what
// came back before it counts.
func TestSignLies(t *testing.T) {
	o := newOffline(t)
	d := o.newDevice(t)
	_, err := o.add(t, "default")
	require.ErrorIs(t, err, ErrWaiting)
	good := read(t, o.carry(t))
	edit := func(change func(w *waitingFile)) string {
		var w waitingFile
		require.NoError(t, json.Unmarshal(good, &w))
		change(&w)
		data, err := json.Marshal(w)
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), "stick.json")
		require.NoError(t, os.WriteFile(path, data, 0o644))
		return path
	}
	swap := func(w *waitingFile, old, now string) {
		w.Changes[0].File = []byte(strings.ReplaceAll(string(w.Changes[0].File), old, now))
	}
	keys := Keys{Root: o.root, Targets: o.targets, Timestamp: o.keys[Timestamp]}
	other := newFixture(t)
	_, err = SignFile(edit(func(*waitingFile) {}), read(t, d.firstRoot(other)), keys)
	require.ErrorContains(t, err, "not of the repository")
	for name, change := range map[string]func(w *waitingFile){
		"format":              func(w *waitingFile) { w.Format = "pawl-waiting/1" },
		"no roots":            func(w *waitingFile) { w.Roots = nil },
		"other root":          func(w *waitingFile) { w.Roots = []json.RawMessage{read(t, d.firstRoot(other))} },
		"no targets":          func(w *waitingFile) { w.Roles = nil },
		"targets not signed":  func(w *waitingFile) { w.Roles[Targets] = w.Changes[0].File },
		"another kind":        func(w *waitingFile) { w.Changes[0].Role = Root },
		"not metadata":        func(w *waitingFile) { w.Changes[0].File = []byte(`{"signed":null}`) },
		"a target of nothing": func(w *waitingFile) { swap(w, `"targets":{`, `"targets":{"x":null,`) },
		"a root from nowhere": func(w *waitingFile) { w.Changes[0] = waitingDraft{Root, w.Roots[0]} },
	} {
		path := edit(change)
		before := read(t, path)
		_, err := SignFile(path, read(t, d.firstRoot(o.fixture)), keys)
		require.Error(t, err, name)
		require.Equal(t, before, read(t, path), name)
	}
	_, err = SignFile(filepath.Join(t.TempDir(), "none"), nil, keys)
	require.Error(t, err)

	// Somebody changed the file on the way, and it was signed like that.
	path := edit(func(w *waitingFile) { swap(w, `"version":"1"`, `"version":"2"`) })
	_, err = SignFile(path, nil, Keys{Targets: o.targets})
	require.NoError(t, err)
	_, err = o.Sign(t.Context(), read(t, path))
	require.ErrorContains(t, err, "holds another change")
	// A signature that does not verify, or of a key that is nobody's, counts for nothing.
	path = edit(func(*waitingFile) {})
	_, err = SignFile(path, nil, Keys{Targets: {newKey(t)}, Timestamp: o.targets})
	require.NoError(t, err)
	require.JSONEq(t, string(good), string(read(t, path)))
	_, err = SignFile(path, nil, Keys{Targets: o.targets[:1]})
	require.NoError(t, err)
	var w waitingFile
	require.NoError(t, json.Unmarshal(read(t, path), &w))
	swap(&w, idOf(t, o.targets[0]), idOf(t, o.targets[1]))
	forged, err := json.Marshal(w)
	require.NoError(t, err)
	waiting, err := o.Sign(t.Context(), forged)
	require.ErrorIs(t, err, ErrWaiting)
	require.Empty(t, waiting.Documents[0].Needs[0].Signed)
	_, err = d.latest(t.Context(), "default")
	require.Error(t, err)

	require.NoError(t, o.Cancel(t.Context()))
	require.ErrorIs(t, o.Cancel(t.Context()), os.ErrNotExist, "nothing waits any more")
	s, err := o.Status()
	require.NoError(t, err)
	require.Nil(t, s.Waiting)
	o.good(t)
	_, err = o.Sign(t.Context(), good)
	require.ErrorIs(t, err, os.ErrNotExist, "what was dropped does not come back")
}

// TestWorkGoesOn: while root waits for its signatures releases are made and the
// timestamp is refreshed; what waits and does not fit any more is refused.
func TestWorkGoesOn(t *testing.T) {
	o := newOffline(t)
	d := o.newDevice(t)
	o.keys[Targets] = o.targets
	require.EqualValues(t, 1, o.mustAdd(t, "default"))
	key := newKey(t)
	was := o.keys[Timestamp]
	require.ErrorIs(t, o.Rotate(t.Context(), o.replace(t, Timestamp, was[0], key)), ErrWaiting)
	require.ErrorIs(t, o.Renew(t.Context()), ErrBlocked)
	o.keys[Timestamp] = was
	require.EqualValues(t, 2, o.mustAdd(t, "default"))
	_, err := o.Refresh(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2, d.seq(t, "default"))
	o.keys[Root], o.keys[Timestamp] = o.root, []crypto.Signer{key}
	_, err = o.Sign(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2, d.seq(t, "default"))
	o.good(t)

	// A release waits; targets goes on without it, as somebody had removed the file.
	o.keys[Targets] = nil
	_, err = o.add(t, "default")
	require.ErrorIs(t, err, ErrWaiting)
	stale := read(t, filepath.Join(o.dir, waitingName))
	require.NoError(t, o.Cancel(t.Context()))
	o.keys[Targets] = o.targets
	o.now = o.now.Add(day)
	require.EqualValues(t, 3, o.mustAdd(t, "default"))
	require.NoError(t, os.WriteFile(filepath.Join(o.dir, waitingName), stale, 0o644))
	_, err = o.Sign(t.Context())
	require.ErrorContains(t, err, "does not follow")
	require.False(t, errors.Is(err, ErrWaiting))
	require.EqualValues(t, 3, d.seq(t, "default"))
}

// TestRefreshLeavesWhatItCannotSign: a job with the online keys alone keeps the
// fleet going as long as it can, and says who has to sign next.
func TestRefreshLeavesWhatItCannotSign(t *testing.T) {
	f := newFixture(t)
	f.delegate(t, "team", "arm")
	f.mustAdd(t, "default")
	d := f.newDevice(t)
	keys := f.keys
	f.keys = Keys{Timestamp: keys[Timestamp], Snapshot: keys[Snapshot]}
	f.now = start.Add(300 * day)
	f.open(t, nil)
	r, err := f.Refresh(t.Context())
	require.NoError(t, err)
	require.Equal(t, []Role{Snapshot, Timestamp}, r.Signed)
	require.Equal(t, []Role{Targets, "team"}, r.Due)
	require.EqualValues(t, 1, d.seq(t, "default"))
	s, err := f.Status()
	require.NoError(t, err)
	require.Equal(t, Targets, s.StopsBy)
	require.Equal(t, r.Expires[Targets], s.Stops)
	delete(f.keys, Snapshot)
	f.opts.Lifetimes.Timestamp = 5 * 365 * day
	r, err = f.Refresh(t.Context())
	require.NoError(t, err)
	require.Equal(t, []Role{Timestamp}, r.Signed)
	require.Equal(t, []Role{Root, Snapshot, Targets, "team"}, r.Due)
	delete(f.keys, Timestamp)
	_, err = f.Refresh(t.Context())
	require.ErrorIs(t, err, ErrKeys)

	f.keys = keys
	f.open(t, nil)
	r, err = f.Refresh(t.Context())
	require.NoError(t, err)
	require.Empty(t, r.Due)
	require.True(t, slices.Contains(r.Signed, "team"))
	f.good(t)
}

// TestRefreshKeepsOffWhatWaits: a release that waits is not made void by a job
// that has the keys of targets.
func TestRefreshKeepsOffWhatWaits(t *testing.T) {
	o := newOffline(t)
	_, err := o.add(t, "default")
	require.ErrorIs(t, err, ErrWaiting)
	o.keys[Targets] = o.targets
	o.now = start.Add(300 * day)
	o.open(t, nil)
	r, err := o.Refresh(t.Context())
	require.NoError(t, err)
	require.Equal(t, []Role{Targets}, r.Due)
	_, err = o.add(t, "default")
	require.ErrorIs(t, err, ErrBlocked)
	_, err = o.Sign(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, o.newDevice(t).seq(t, "default"))
}

// FuzzWaiting: whatever a stick brings, it is an error at worst.
func FuzzWaiting(f *testing.F) {
	r := newFixture(f)
	key := newKey(f)
	r.opts.Wait = true
	require.ErrorIs(f, r.Rotate(f.Context(), RoleChange{Role: Targets, Remove: []string{idOf(f, r.keys[Targets][0])},
		Add: []crypto.PublicKey{key.Public()}}), ErrWaiting)
	good, err := os.ReadFile(filepath.Join(r.dir, waitingName))
	require.NoError(f, err)
	f.Add(good)
	f.Add([]byte(`{"format":"pawl-waiting/0","changes":[{"role":"root","file":{"signed":{"_type":"root","roles":{"root":null}}}}]}`))
	state, err := r.disk.load(nil, start)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, data []byte) {
		w, e, err := parseWaiting(data)
		if err != nil {
			return
		}
		own, _ := w.trusted(nil)
		for _, with := range []*trusted{own, state} {
			if with == nil || e.settle(with) != nil {
				continue
			}
			_ = e.public(with)
			_ = e.published(with)
		}
	})
}
