//go:build linux

package micro

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// newScene is a scene of the tree layout: with data of its app, and a v2 that
// carries more than v1.
func newScene(t testing.TB) *scene[*treeFiles] {
	t.Helper()
	v1 := files(t, t.TempDir(), map[string]string{
		"bin/app": "app 1", "bin/tool": "tool", "lib/a": "a", "lib/b": "b", "lib/link": "->a", "gone/x": "x",
		"etc/conf": "shipped", "type1": "file", "type2/inner": "dir", "type3": "->type1", "empty/": "", "var/": "",
	})
	v2 := files(t, t.TempDir(), map[string]string{
		"bin/app": "app 2", "bin/tool": "tool", "lib/a": "a", "lib/b": "b2", "lib/link": "->b", "new/y": "y",
		"type1/inner": "dir now", "type2": "->empty", "type3": "file now", "empty/": "", "var/": "", "copy": "app 2",
	})
	require.NoError(t, os.Chmod(filepath.Join(v2, "bin/tool"), 0o755))
	v3 := files(t, t.TempDir(), map[string]string{"bin/app": "app 3", "var/": ""})
	sc := &scene[*treeFiles]{
		rig: newDevice(t), s1: newShop(t, v1, "data", "var/log"), look: snapshot, own: []string{"data/db", "data/sub/f", "var/log"},
		s2: newShop(t, v2, "data", "var/log", "etc", "cache"), s3: newShop(t, v3, "data", "var/log", "etc", "cache", "empty"),
	}
	sc.install("t1", sc.s1)
	files(t, sc.root, map[string]string{"data/db": "rows", "data/sub/f": "more", "var/log": "line 1"})
	sc.want1 = snapshot(t, sc.root)
	sc.want2 = snapshot(t, v2)
	for _, p := range []string{"data", "data/db", "data/sub", "data/sub/f", "var/log", "etc", "etc/conf"} {
		sc.want2[p] = sc.want1[p]
	}
	return sc
}

// bothLayouts runs one test with a scene of either layout, and with each of
// the verbs.
func bothLayouts(t *testing.T, tree func(*testing.T, func(testing.TB) *scene[*treeFiles], string), place func(*testing.T, func(testing.TB) *scene[*inPlaceFiles], string), verbs ...string) {
	for _, verb := range verbs {
		t.Run("tree/"+verb, func(t *testing.T) { t.Parallel(); tree(t, newScene, verb) })
		t.Run("inplace/"+verb, func(t *testing.T) { t.Parallel(); place(t, newPlaceScene, verb) })
	}
}

// cut is a fresh scene whose verb was cut at step n, in a new process.
func cut[F eitherLayout](t *testing.T, fresh func(testing.TB) *scene[F], verb string, n int) *scene[F] {
	t.Helper()
	sc := fresh(t)
	sc.upTo(verb)
	sc.cutAt(n)
	require.ErrorIs(t, sc.verb(verb), errCut)
	sc.restart()
	return sc
}

// TestCutThenRevert cuts every verb at every step; a fresh process goes back,
// and another one goes on.
func TestCutThenRevert(t *testing.T) {
	bothLayouts(t, cutThenRevert, cutThenRevert, "stage", "activate", "revert")
}

func cutThenRevert[F eitherLayout](t *testing.T, fresh func(testing.TB) *scene[F], verb string) {
	for n := range someSteps(t, fresh, verb) {
		sc := cut(t, fresh, verb, n+1)
		ok, err := sc.f.CanRevert(t.Context(), "t2", sc.s2.c)
		require.NoError(t, err)
		require.True(t, ok)
		require.NoError(t, sc.verb("revert"), "step %d", n+1)
		sc.isOld(verb)
		sc.restart()
		require.NoError(t, sc.verb("revert"), "again")
		sc.isOld(verb)
		if n%4 == 0 || long() {
			sc.goesOn()
		}
	}
}

// TestCutThenAgain cuts every verb at every step; a fresh process runs it
// again and goes on.
func TestCutThenAgain(t *testing.T) {
	bothLayouts(t, cutThenAgain, cutThenAgain, "stage", "activate", "commit")
}

func cutThenAgain[F eitherLayout](t *testing.T, fresh func(testing.TB) *scene[F], verb string) {
	for n := range someSteps(t, fresh, verb) {
		sc := cut(t, fresh, verb, n+1)
		if verb == "commit" {
			sc.isNew("half committed")
		}
		require.NoError(t, sc.verb(verb), "step %d", n+1)
		if verb == "stage" {
			require.NoError(t, sc.verb("activate"), "step %d", n+1)
		}
		sc.isNew(verb)
		sc.restart()
		require.NoError(t, sc.verb("commit"))
		require.NoError(t, sc.verb("commit"), "again")
		sc.isNew(verb)
		sc.tidy(verb, sc.s1)
		if n%4 == 0 || long() {
			sc.installs3()
		}
	}
}

// TestCutActivateAndRevert cuts the power twice: in Activate at each step,
// then in Revert at each step.
func TestCutActivateAndRevert(t *testing.T) {
	bothLayouts(t, cutTwice, cutTwice, "activate")
}

func cutTwice[F eitherLayout](t *testing.T, fresh func(testing.TB) *scene[F], verb string) {
	pairs := 0
	for n := range someSteps(t, fresh, verb) {
		for m := 1; ; m += everyOther(n) {
			sc := cut(t, fresh, verb, n+1)
			sc.cutAt(m)
			err := sc.verb("revert")
			if err == nil {
				break
			}
			require.ErrorIs(t, err, errCut)
			pairs++
			require.Less(t, m, 100)
			sc.restart()
			require.NoError(t, sc.verb("revert"))
			sc.isOld("cut twice")
		}
	}
	t.Logf("%d pairs of cuts", pairs)
}

func TestTrialWritesGoBack(t *testing.T) {
	sc := newScene(t)
	sc.upTo("revert")
	sc.isNew("on trial")
	files(t, sc.root, map[string]string{"data/db": "rows and one more", "data/new": "x", "var/log": "line 2", "cache/tmp": "new path", "etc/conf": "edited"})
	require.NoError(t, sc.verb("revert"))
	require.Equal(t, "rows and one more", sc.read("data/db"))
	require.FileExists(t, filepath.Join(sc.root, "data/new"))
	require.NoDirExists(t, filepath.Join(sc.root, "cache"), "the old release knows nothing of it")
	want := maps.Clone(sc.want1)
	got := snapshot(t, sc.root)
	for _, p := range []string{"data", "data/db", "data/new", "var/log"} {
		want[p] = got[p]
	}
	same(t, want, got, "all but what is the app's is as before")
}

func TestCarriedFileReplacedInTrial(t *testing.T) {
	sc := newScene(t)
	sc.upTo("revert")
	files(t, sc.root, map[string]string{"tmp-log": "rotated"})
	require.NoError(t, os.Rename(filepath.Join(sc.root, "tmp-log"), filepath.Join(sc.root, "var/log")))
	files(t, sc.f.treePath("t2"), map[string]string{"var/log": "by a process that never left the old tree"})
	sc.restart()
	require.NoError(t, sc.f.Activate(t.Context(), "t2", sc.s2.c))
	sc.isWhole(sc.s2)
	require.NoError(t, sc.verb("revert"))
	require.Equal(t, "rotated", sc.read("var/log"))
}

func TestMixedWhileCarriedPathsAreOnTheWay(t *testing.T) {
	sc := cut(t, newScene, "activate", steps(t, newScene, "activate"))
	require.Equal(t, ota.Mixed, sc.active().State)
	require.NoError(t, sc.verb("activate"))
	sc.isNew("moved at last")
}

func TestStageAgainRedoesWhatIsWrong(t *testing.T) {
	sc := newScene(t)
	require.NoError(t, sc.verb("stage"))
	tree := sc.f.treePath("t2")
	require.NoError(t, os.Remove(filepath.Join(tree, "new/y")))
	require.NoError(t, os.WriteFile(filepath.Join(tree, "new/y"), []byte("z"), 0o644))
	require.NoError(t, os.Remove(filepath.Join(tree, "lib/link")))
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(tree, "lib/link")))
	require.NoError(t, os.RemoveAll(filepath.Join(tree, "type1")))
	require.NoError(t, os.WriteFile(filepath.Join(tree, "stray"), []byte("z"), 0o644))
	require.NoError(t, os.Chmod(filepath.Join(tree, "bin/app"), 0o600))
	require.NoError(t, os.Chmod(filepath.Join(tree, "empty"), 0o500))
	kept, err := os.Stat(filepath.Join(tree, "lib/b"))
	require.NoError(t, err)
	sc.s2.fetched = 0
	sc.restart()
	require.NoError(t, sc.verb("stage"))
	require.Equal(t, int64(len("y")+len("dir now")+len("app 2")), sc.s2.fetched, "only what was wrong")
	again, err := os.Stat(filepath.Join(tree, "lib/b"))
	require.NoError(t, err)
	require.True(t, os.SameFile(kept, again))
	require.NoError(t, sc.verb("activate"))
	sc.isNew("staged twice")
	require.NoError(t, sc.verb("revert"))
	sc.isOld("back")
}

// TestNewerOverStuck puts a newer transaction over one that cannot be
// finished, and takes it back, or keeps it.
func TestNewerOverStuck(t *testing.T) {
	last := steps(t, newScene, "activate")
	for _, n := range []int{0, last, last - 1} {
		for _, keep := range []bool{false, true} {
			sc := newScene(t)
			sc.upTo("activate")
			sc.cutAt(n)
			_ = sc.verb("activate")
			sc.restart()
			sc.activate("t3", sc.s3)
			sc.isWhole(sc.s3)
			require.FileExists(t, filepath.Join(sc.root, "data/db"))
			if keep {
				require.NoError(t, sc.f.Commit(t.Context(), "t3", sc.s3.c))
				require.DirExists(t, sc.f.treePath("t2"), "the stuck one is not touched")
				require.NoError(t, sc.f.Prune(t.Context(), "app", nil, nil))
				require.Empty(t, listed(t, sc.f.path(dirTx)))
				sc.isWhole(sc.s3)
				require.FileExists(t, filepath.Join(sc.root, "data/db"))
				continue
			}
			require.NoError(t, sc.f.Prune(t.Context(), "app", nil, []ota.TxID{"t2", "t3"}))
			require.NoError(t, sc.f.Revert(t.Context(), "t3", sc.s3.c))
			require.NoError(t, sc.verb("revert"))
			sc.isOld("both are undone")
		}
	}
}

func TestPrune(t *testing.T) {
	sc := newScene(t)
	sc.upTo("commit")
	require.NoError(t, sc.verb("commit"))
	d1 := sc.s1.c.Digest()
	require.NoError(t, sc.f.Prune(t.Context(), "app", []release.Digest{d1}, nil))
	require.Equal(t, []string{d1.String()}, listed(t, sc.f.path(dirKept)))
	require.Len(t, indexesOf(t, sc.f.path(dirIndex)), 2)
	require.NoError(t, sc.f.Prune(t.Context(), "app", nil, nil))
	require.Empty(t, listed(t, sc.f.path(dirKept)))
	require.Equal(t, []string{sc.s2.c.Digest().String()}, indexesOf(t, sc.f.path(dirIndex)))
	sc.isNew("what runs stays")
}
