//go:build linux

package publish

import (
	"crypto"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-ota/pawl/ota/tuf"
)

// TestRotateEveryRole replaces the only key of each role, though the old one
// is lost but for root's: devices that saw the repository before and new ones
// go on, and the old keys count no more.
func TestRotateEveryRole(t *testing.T) {
	for _, role := range append(Roles(), "team") {
		t.Run(string(role), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.mustAdd(t, "default")
			f.delegate(t, "team", "arm")
			f.mustAdd(t, "arm")
			old := f.newDevice(t)
			old.seq(t, "arm")
			gone := f.keys[role][0]
			by := newKey(t)
			change := f.replace(t, role, gone, by)
			if role == Root {
				f.keys[Root] = []crypto.Signer{gone, by} // the old key has its last word
			}
			require.NoError(t, f.Rotate(t.Context(), change))
			f.keys[Root] = f.keys[Root][len(f.keys[Root])-1:]
			require.NoError(t, f.Renew(t.Context()), "the present keys suffice")
			for _, d := range []*device{old, f.newDevice(t)} {
				require.EqualValues(t, 1, d.seq(t, "default"))
				require.EqualValues(t, 1, d.seq(t, "arm"))
			}
			f.mustAdd(t, "default")
			f.mustAdd(t, "arm")
			_, err := f.Refresh(t.Context())
			require.NoError(t, err)
			require.EqualValues(t, 2, old.seq(t, "default"))
			require.EqualValues(t, 2, old.seq(t, "arm"))
			f.good(t)

			f.keys[role] = []crypto.Signer{gone}
			switch role {
			case Root:
				err = f.Renew(t.Context())
			case Targets:
				_, err = f.add(t, "default")
			default:
				_, err = f.add(t, "arm")
			}
			require.ErrorIs(t, err, ErrKeys, "the old key counts no more")
			require.EqualValues(t, 2, f.newDevice(t).seq(t, "default"))
		})
	}
}

// TestStolenOnlineKeys: a thief with the keys of timestamp and snapshot made
// devices see far too high versions. New keys let them back in.
func TestStolenOnlineKeys(t *testing.T) {
	f := newFixture(t)
	f.mustAdd(t, "default")
	d := f.newDevice(t)
	good := f.dir
	f.dir = filepath.Join(t.TempDir(), "mirror")
	require.NoError(t, os.CopyFS(f.dir, os.DirFS(good)))
	f.open(t, nil)
	state, err := f.disk.load(nil, start)
	require.NoError(t, err)
	state.Timestamp.Signed.Version, state.Snapshot.Signed.Version = 1e9, 1e9
	files, err := f.prepare(state, &edit{fresh: []Role{Snapshot, Timestamp}}, start)
	require.NoError(t, err)
	require.NoError(t, f.write(files))
	d.o.URL = f.dir
	require.EqualValues(t, 1, d.seq(t, "default"))

	f.dir, d.o.URL = good, good
	f.open(t, nil)
	_, err = d.latest(t.Context(), "default")
	require.ErrorIs(t, err, tuf.ErrRollback)
	require.NoError(t, f.Rotate(t.Context(), f.replace(t, Timestamp, f.keys[Timestamp][0], newKey(t)),
		f.replace(t, Snapshot, f.keys[Snapshot][0], newKey(t))))
	require.EqualValues(t, 1, d.seq(t, "default"))
}

func TestThresholdUpAndDown(t *testing.T) {
	f := newFixture(t)
	d := f.newDevice(t)
	f.mustAdd(t, "default")
	one := f.keys[Targets][0]
	two, three := newKey(t), newKey(t)
	f.keys[Targets] = []crypto.Signer{one, two, three}
	require.NoError(t, f.Rotate(t.Context(), RoleChange{Role: Targets, Add: []crypto.PublicKey{two.Public(), three.Public()}, Threshold: 2}))
	require.EqualValues(t, 1, d.seq(t, "default"))
	f.keys[Targets] = []crypto.Signer{one}
	_, err := f.add(t, "default")
	require.ErrorIs(t, err, ErrKeys)
	f.keys[Targets] = []crypto.Signer{one, one}
	_, err = f.add(t, "default")
	require.ErrorIs(t, err, ErrKeys, "one key does not count twice")
	f.keys[Targets] = []crypto.Signer{three, one}
	require.EqualValues(t, 2, f.mustAdd(t, "default"))
	require.EqualValues(t, 2, d.seq(t, "default"))

	before := f.rootVersion(t)
	require.NoError(t, f.Rotate(t.Context(), RoleChange{Role: Targets, Threshold: 1}))
	require.Equal(t, before+1, f.rootVersion(t), "what is signed does already: one root")
	f.keys[Targets] = []crypto.Signer{two}
	require.EqualValues(t, 3, f.mustAdd(t, "default"))
	require.EqualValues(t, 3, d.seq(t, "default"))
	f.good(t)
}

func (f *fixture) rootVersion(t testing.TB) int64 {
	s, err := f.Status()
	require.NoError(t, err)
	return s.Roles[0].Version
}

func TestRotateRefused(t *testing.T) {
	f := newFixture(t)
	f.delegate(t, "team", "arm")
	key := newKey(t)
	add := []crypto.PublicKey{key.Public()}
	own := idOf(t, f.keys[Targets][0])
	for name, c := range map[string]RoleChange{
		"threshold below 1":     {Role: Targets, Threshold: -1},
		"threshold above keys":  {Role: Targets, Threshold: 2},
		"root threshold":        {Role: Root, Threshold: 2},
		"no key left":           {Role: Timestamp, Remove: []string{idOf(t, f.keys[Timestamp][0])}},
		"not its key":           {Role: Snapshot, Remove: []string{own}},
		"key twice":             {Role: Targets, Add: []crypto.PublicKey{key.Public(), key.Public()}},
		"key there":             {Role: Targets, Add: []crypto.PublicKey{f.keys[Targets][0].Public()}},
		"removed and added":     {Role: Targets, Remove: []string{own}, Add: []crypto.PublicKey{f.keys[Targets][0].Public()}},
		"no such role":          {Role: "other", Add: add},
		"team: threshold 0":     {Role: "team", Threshold: -1},
		"new targets key away":  {Role: Targets, Remove: []string{own}, Add: add},
		"new root key away":     {Role: Root, Remove: []string{idOf(t, f.keys[Root][0])}, Add: add},
		"new team key away":     {Role: "team", Remove: []string{idOf(t, f.keys["team"][0])}, Add: add},
		"new snapshot key away": {Role: Snapshot, Remove: []string{idOf(t, f.keys[Snapshot][0])}, Add: add},
	} {
		before := names(t, f.dir)
		err := f.Rotate(t.Context(), c)
		require.Error(t, err, name)
		if strings.Contains(name, "threshold") {
			require.ErrorContains(t, err, "cannot have to sign", name)
		}
		require.Equal(t, before, names(t, f.dir), "%s: nothing was written", name)
	}
	root := f.keys[Root]
	f.keys[Root] = []crypto.Signer{key}
	require.ErrorIs(t, f.Rotate(t.Context(), RoleChange{Role: Root, Remove: []string{idOf(t, root[0])}, Add: add}), ErrKeys, "the old key has a say")
	delete(f.keys, Root)
	require.ErrorIs(t, f.Rotate(t.Context(), RoleChange{Role: Timestamp, Add: add}), ErrKeys)
	f.keys[Root] = []crypto.Signer{key}
	require.ErrorIs(t, f.Renew(t.Context()), ErrKeys, "a key of no role")
	f.keys[Root] = root
	require.NoError(t, f.Renew(t.Context()))
	f.good(t)
}

// names lists all files below dir with their sizes.
func names(t *testing.T, dir string) map[string]int64 {
	all := map[string]int64{}
	require.NoError(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			all[path] = info.Size()
		}
		return err
	}))
	return all
}

// TestReplaceAndLower: what no order of writing could do safely is refused.
func TestReplaceAndLower(t *testing.T) {
	f := &fixture{dir: filepath.Join(t.TempDir(), "repo"), keys: testKeys(t, 2), now: start}
	f.open(t, nil)
	require.NoError(t, f.Create(t.Context(), "gateway", 2))
	old, key := f.keys[Targets], newKey(t)
	c := RoleChange{Role: Targets, Remove: []string{idOf(t, old[0]), idOf(t, old[1])}, Add: []crypto.PublicKey{key.Public()}, Threshold: 1}
	f.keys[Targets] = append(maps.Clone(f.keys)[Targets], key)
	require.ErrorContains(t, f.Rotate(t.Context(), c), "replace them first")
	c.Remove = c.Remove[:1]
	require.NoError(t, f.Rotate(t.Context(), c))
	f.keys[Targets] = []crypto.Signer{key}
	f.mustAdd(t, "default")
	f.good(t)
	require.EqualValues(t, 1, f.newDevice(t).seq(t, "default"))
}

// TestLooksAhead: roots that would leave clients with what they cannot trust, if
// for a moment only, are not published, whoever has signed them.
func TestLooksAhead(t *testing.T) {
	for _, role := range []Role{Timestamp, Snapshot, Targets} {
		f := newFixture(t)
		f.mustAdd(t, "default")
		by := newKey(t)
		key, id, err := tufKey(by.Public())
		require.NoError(t, err)
		roots := func(n int) *edit {
			state, err := f.disk.load(nil, start)
			require.NoError(t, err)
			e, last := &edit{}, state.Root
			for range n {
				last = f.nextRoot(last, start)
				last.Signed.Keys[id] = key
				last.Signed.Roles[string(role)] = &metadata.Role{KeyIDs: []string{id}, Threshold: 1}
				e.drafts = append(e.drafts, &draft{role: Root, root: last})
			}
			if role == Targets && n > 1 {
				e.bump(state, Targets, start.Add(day))
			}
			return e
		}
		before := names(t, f.dir)
		for n, keys := range map[int][]crypto.Signer{1: f.keys[role], 2: {by}} {
			f.keys[role] = keys
			state, err := f.disk.load(nil, start)
			require.NoError(t, err)
			require.ErrorIs(t, f.finish(state, roots(n)), ErrKeys, "%s, %d roots", role, n)
			require.Equal(t, before, names(t, f.dir))
		}
	}
}
