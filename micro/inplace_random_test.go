//go:build linux

package micro

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// TestInPlaceRandom takes a device with files of its own from one random
// release to another, with random local changes and random policies, through a
// random cut, and then back or on. What has to be there is worked out by a
// model that shares no code with the package.
func TestInPlaceRandom(t *testing.T) {
	t.Parallel()
	rounds := uint64(1000)
	if testing.Short() {
		rounds = 50
	}
	const parts = 4
	all := [parts]map[string]int{}
	t.Run("pairs", func(t *testing.T) {
		for part := range uint64(parts) {
			all[part] = map[string]int{}
			t.Run(fmt.Sprint("part=", part), func(t *testing.T) {
				t.Parallel()
				for seed := part; seed < rounds; seed += parts {
					if !t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { all[part][randomInPlace(t, seed, all[part])]++ }) {
						t.Fatalf("seed %d", seed)
					}
				}
			})
		}
	})
	outcomes := map[string]int{}
	for _, some := range all {
		for o, n := range some {
			outcomes[o] += n
		}
	}
	t.Logf("%d pairs: %v", rounds, outcomes)
	if rounds >= 1000 {
		for _, o := range []string{"on", "back", "refused: local", "refused: unmanaged", "scripts run", "changes of Diff"} {
			require.NotZero(t, outcomes[o], o)
		}
	}
}

func randomInPlace(t *testing.T, seed uint64, outcomes map[string]int) string {
	rng := rand.New(rand.NewPCG(seed, 3))
	d := newPlaceDevice(t)
	files(t, d.root, map[string]string{"own/file": "own", "keep": "own"})
	ownA := rng.IntN(8) == 0
	if ownA {
		files(t, d.root, map[string]string{"a/own": "own"})
	}
	require.NoError(t, os.Chmod(filepath.Join(d.root, "own"), 0o700))
	policies := randomPolicies(rng)
	s1, s2 := randomEntries(t, rng, policies), randomEntries(t, rng, policies)
	merge := s2.merge
	s2.merge = func(env map[string]string) error { outcomes["scripts run"]++; return merge(env) }
	d.cutAt(0)
	if err := d.stage("t1", s1); err != nil {
		require.ErrorIs(t, err, ErrUnmanaged)
		return "refused: first"
	}
	d.install("t1", s1)
	d.isWhole(s1)
	changed := localChanges(t, rng, d.root, s1)
	before := times(t, d.root)
	diff, diffErr := d.f.Diff(t.Context(), s2.c, s2)
	refuses := slices.ContainsFunc(diff, func(c ota.Change) bool { return strings.Contains(c.Detail, isRefused) })

	d.cutAt(1 + rng.IntN(80))
	err := d.stage("t2", s2)
	if err == nil {
		err = d.f.Activate(t.Context(), "t2", s2.c)
	}
	d.restart()
	if refusal := refused(err); refusal != "" {
		require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c))
		same(t, before, times(t, d.root), "refused")
		if refusal == "refused: local" {
			require.NotEmpty(t, changed)
		}
		require.True(t, refuses, "Diff says so: %v", diff)
		return refusal
	}
	if err != nil {
		require.ErrorIs(t, err, errCut)
	}
	back := rng.IntN(2) == 0
	if back {
		d.cutAt(1 + rng.IntN(20))
		_ = d.f.Revert(t.Context(), "t2", s2.c)
		d.restart()
		require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c))
		same(t, before, times(t, d.root), "back")
		require.Empty(t, listed(t, d.f.path(dirTx)))
		require.Empty(t, listed(t, d.f.path(dirTrash)))
	}
	if err := d.stage("t2", s2); err != nil {
		require.NotEmpty(t, refused(err), err.Error())
		require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c))
		same(t, before, times(t, d.root), "refused later")
		require.True(t, refuses, "Diff says so: %v", diff)
		return refused(err)
	}
	require.NoError(t, d.f.Activate(t.Context(), "t2", s2.c))
	require.NoError(t, diffErr)
	require.False(t, refuses, "%v", diff)
	outcomes["changes of Diff"] += diffFits(t, diff, before, snapshotLines(t, d.root))
	want := model(t, before, s1, s2, changed, policies, ownA)
	check := func(msg string) {
		t.Helper()
		same(t, want, snapshotOwn(t, d.root), msg)
		d.isWhole(s2)
	}
	check("on")
	require.NoError(t, d.f.Commit(t.Context(), "t2", s2.c))
	check("committed")
	require.Empty(t, d.damage(s2))
	if back {
		return "back"
	}
	return "on"
}

func refused(err error) string {
	switch {
	case errors.Is(err, ErrLocalChange):
		return "refused: local"
	case errors.Is(err, ErrUnmanaged):
		return "refused: unmanaged"
	}
	return ""
}

// snapshotOwn is snapshot without what pawl has of its own, and without modes
// of folders that nobody lists, which do not change.
func snapshotOwn(t *testing.T, dir string) map[string]string {
	all := snapshot(t, dir)
	maps.DeleteFunc(all, func(p, _ string) bool { return strings.Contains("/"+p+"/", "/.pawl.app/") })
	return all
}

// policies say what happens to a local change, by the first name of its path;
// "" is for all others.
type policies map[string]string

func randomPolicies(rng *rand.Rand) policies {
	p := policies{"": []string{"refuse", "keep", "overwrite"}[rng.IntN(3)]}
	for _, name := range []string{"a", "b", "c", "always"} {
		if rng.IntN(2) == 0 {
			p[name] = []string{"refuse", "keep", "overwrite", "merge", "merge"}[rng.IntN(5)]
		}
	}
	if rng.IntN(2) == 0 {
		p["always"] = "merge"
	}
	return p
}

func (p policies) of(path string) string {
	first, _, _ := strings.Cut(path, "/")
	if word, ok := p[first]; ok {
		return word
	}
	return p[""]
}

func (p policies) options() string {
	var paths []string
	for _, name := range slices.Sorted(maps.Keys(p))[1:] {
		script := ""
		if p[name] == "merge" {
			script = `,"script":"merge-conf"`
		}
		paths = append(paths, fmt.Sprintf(`{"path":%q,"localChanges":%q%s}`, name, p[name], script))
	}
	return fmt.Sprintf(`{"localChanges":%q,"paths":[%s]}`, p[""], strings.Join(paths, ","))
}

// diffFits checks that the changes that were said beforehand are those that
// there are, and returns how many.
func diffFits(t *testing.T, diff []ota.Change, before, after map[string]string, except ...string) int {
	t.Helper()
	said := map[string]ota.ChangeKind{}
	for _, c := range diff {
		said[c.Path] = c.What
	}
	excepted := func(p string) bool {
		return slices.ContainsFunc(except, func(e string) bool { return p == e || strings.HasPrefix(p, e+"/") })
	}
	seen := map[string]ota.ChangeKind{}
	for p := range maps.Clone(before) {
		was, now := strings.Fields(before[p]), strings.Fields(after[p])
		if i := slices.IndexFunc(was, func(s string) bool { return strings.HasPrefix(s, "20") && strings.Count(s, "-") == 2 }); i > 0 {
			was = was[:i] // without the time
		}
		kind := func(f []string) string { return f[0][:len(f[0])-4] } // of 100644, 40755, 120777
		switch {
		case slices.Equal(was, now):
		case len(now) == 0:
			seen[p] = ota.Removed
		case kind(was) != kind(now), kind(was) != "4" && was[len(was)-1] != now[len(now)-1]:
			seen[p] = ota.Changed
		default:
			seen[p] = ota.Metadata
		}
	}
	for p := range after {
		if before[p] == "" {
			seen[p] = ota.Added
		}
	}
	for p, what := range seen {
		if !excepted(p) && said[p] != ota.LocallyChanged {
			require.Equal(t, what, said[p], "%s\nwas %s\nis  %s\nsaid %v", p, before[p], after[p], diff)
		}
	}
	for p, what := range said {
		if !excepted(p) && what != ota.LocallyChanged {
			require.Equal(t, seen[p], what, "%s\nwas %s\nis  %s", p, before[p], after[p])
		}
	}
	return len(seen)
}

// randomEntries makes a release of random entries.
func randomEntries(t *testing.T, rng *rand.Rand, p policies) *shop {
	dir := t.TempDir()
	var absent []string
	randomPlaces(t, rng, dir, "", 0, &absent)
	files(t, dir, map[string]string{"always": fmt.Sprint(rng.IntN(3))})
	var list []release.Entry
	whole := newShop(t, dir)
	for _, e := range whole.ix.Entries {
		if e.Type != release.Dir || e.Path != "." && rng.IntN(2) == 0 {
			list = append(list, e)
		}
	}
	for _, p := range absent {
		list = append(list, release.Entry{Path: p, Type: release.Absent})
	}
	return withMerge(entriesShop(t, whole.blobs, list, p.options()))
}

func randomPlaces(t *testing.T, rng *rand.Rand, dir, rel string, depth int, absent *[]string) {
	for _, name := range []string{"a", "b", "c", "d-e"} {
		p := filepath.Join(rel, name)
		full := filepath.Join(dir, p)
		switch kind := rng.IntN(10); {
		case kind < 3:
			require.NoError(t, os.WriteFile(full, []byte(fmt.Sprint(rng.IntN(3))), 0o644))
			if rng.IntN(6) == 0 {
				require.NoError(t, unix.Setxattr(full, "user.x", []byte{byte(rng.IntN(2))}, 0))
			}
			require.NoError(t, os.Chmod(full, []os.FileMode{0o644, 0o755, 0o400}[rng.IntN(3)]))
		case kind == 3:
			require.NoError(t, os.Symlink([]string{"a", "/etc", ".."}[rng.IntN(3)], full))
		case kind < 7 && depth < 3:
			require.NoError(t, os.Mkdir(full, 0o755))
			require.NoError(t, os.Chmod(full, []os.FileMode{0o755, 0o700}[rng.IntN(2)]))
			randomPlaces(t, rng, dir, p, depth+1, absent)
		case kind == 7:
			*absent = append(*absent, p)
		}
	}
}

// localChanges changes some files of the release by hand, and says how.
func localChanges(t *testing.T, rng *rand.Rand, root string, s *shop) map[string]string {
	changed := map[string]string{}
	for _, e := range s.ix.Entries {
		how := []string{"content", "mode", "deleted", "link"}[rng.IntN(4)]
		switch {
		case e.Type == release.File && e.Path == "always" && rng.IntN(3) == 0:
			how = "content"
		case e.Type != release.File || rng.IntN(12) != 0:
			continue
		}
		changed[e.Path] = how
		p := filepath.Join(root, e.Path)
		switch how {
		case "content":
			require.NoError(t, os.Chmod(p, 0o644))
			require.NoError(t, os.WriteFile(p, []byte("by hand"), 0o644))
		case "mode":
			require.NoError(t, os.Chmod(p, 0o777))
		case "deleted":
			require.NoError(t, os.Remove(p))
		case "link":
			require.NoError(t, os.Remove(p))
			require.NoError(t, os.Symlink("by-hand", p))
		}
	}
	return changed
}

// model works out what has to be there after s2 over s1.
func model(t *testing.T, before map[string]string, s1, s2 *shop, changed map[string]string, policies policies, ownA bool) map[string]string {
	m := map[string]string{}
	for p, line := range before { // without the times
		m[p] = line[:strings.Index(line+" 20", " 20")]
	}
	lists := func(s *shop, p string) *release.Entry {
		i := slices.IndexFunc(s.ix.Entries, func(e release.Entry) bool { return e.Path == p })
		if i < 0 {
			return nil
		}
		return &s.ix.Entries[i]
	}
	below := func(p string) bool {
		for q := range m {
			if strings.HasPrefix(q, p+"/") {
				return true
			}
		}
		return false
	}
	lineWith := func(e *release.Entry, data []byte) string {
		alone := t.TempDir()
		p := filepath.Join(alone, "x")
		switch e.Type {
		case release.File:
			require.NoError(t, os.WriteFile(p, data, 0o600))
		case release.Dir:
			require.NoError(t, os.Mkdir(p, 0o700))
		case release.Symlink:
			require.NoError(t, os.Symlink(e.Target, p))
		}
		for _, x := range e.Xattrs {
			require.NoError(t, unix.Setxattr(p, x.Name, x.Value, 0))
		}
		if e.Type != release.Symlink {
			require.NoError(t, unix.Chmod(p, e.Mode))
		}
		text, err := describe(p)
		require.NoError(t, err)
		return text
	}
	line := func(e *release.Entry) string { return lineWith(e, s2.blobs[e.Digest]) }
	// merged is what a merge makes of p, where there is something to merge.
	merged := func(p string) (string, bool) {
		old, e := lists(s1, p), lists(s2, p)
		isFile := old != nil && e != nil && old.Type == release.File && e.Type == release.File
		switch {
		case policies.of(p) != "merge" || !isFile || line(old) == line(e):
			return "", false
		case changed[p] == "mode":
			return line(e), true
		case changed[p] == "content" && old.Blob == e.Blob:
			return lineWith(e, []byte("by hand")), true
		case changed[p] == "content":
			return lineWith(e, fmt.Appendf(nil, "<%s><by hand><%s>", s1.blobs[old.Digest], s2.blobs[e.Digest])), true
		}
		return "", false
	}
	kept := func(p string) bool {
		_, is := merged(p)
		return changed[p] != "" && !is && (policies.of(p) == "keep" || policies.of(p) == "merge")
	}
	implied := impliedBy(s1, ownA)
	for _, e := range slices.Backward(s1.ix.Entries) {
		next := lists(s2, e.Path)
		if next != nil || e.Type == release.Absent || kept(e.Path) || e.Type == release.Dir {
			continue
		}
		delete(m, e.Path)
	}
	for _, e := range s2.ix.Entries {
		if e.Type == release.Absent && !kept(e.Path) && !strings.HasPrefix(m[e.Path], "4") {
			delete(m, e.Path)
		}
	}
	removeEmpty(m, s1, s2, implied, below)
	for i := range s2.ix.Entries {
		e := &s2.ix.Entries[i]
		old := lists(s1, e.Path)
		switch {
		case e.Type == release.Absent:
		case kept(e.Path) && old != nil:
			if line(e) != line(old) {
				addParents(m, e.Path+suffixNew)
				m[e.Path+suffixNew] = line(e)
			}
		default:
			addParents(m, e.Path)
			m[e.Path] = line(e)
			if text, is := merged(e.Path); is {
				m[e.Path] = text
			}
		}
	}
	return m
}

func impliedBy(s *shop, ownA bool) map[string]bool {
	all := map[string]bool{}
	for _, e := range s.ix.Entries {
		for p := filepath.Dir(e.Path); p != "." && e.Type != release.Absent; p = filepath.Dir(p) {
			if p != "a" || !ownA { // that one was there before
				all[p] = true
			}
		}
	}
	return all
}

// removeEmpty removes the folders that s1 brought, that nothing is in and that
// s2 does not want, and those that are to be absent.
func removeEmpty(m map[string]string, s1, s2 *shop, implied map[string]bool, below func(string) bool) {
	gone := maps.Clone(implied)
	for _, e := range s1.ix.Entries {
		gone[e.Path] = true
	}
	for _, e := range s2.ix.Entries {
		gone[e.Path] = e.Type == release.Absent
		for p := filepath.Dir(e.Path); p != "." && e.Type != release.Absent; p = filepath.Dir(p) {
			delete(gone, p)
		}
	}
	for _, p := range slices.Backward(slices.Sorted(maps.Keys(gone))) {
		if gone[p] && strings.HasPrefix(m[p], "4") && !below(p) {
			delete(m, p)
		}
	}
}

func addParents(m map[string]string, p string) {
	for q := filepath.Dir(p); q != "."; q = filepath.Dir(q) {
		if !strings.HasPrefix(m[q], "4") {
			m[q] = fmt.Sprintf("%o %d:%d", unix.S_IFDIR|0o755, os.Geteuid(), os.Getegid())
		}
	}
}
