//go:build linux

package micro

import (
	"context"
	"errors"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

var errCut = errors.New("cut")

// cutAt makes step n and all after it fail, and counts the steps.
func (d *device) cutAt(n int) *int {
	count := new(int)
	d.f.before = func(string, string) error {
		if *count++; n > 0 && *count >= n {
			return errCut
		}
		return nil
	}
	return count
}

// scene is a device on v1 with data of its app, and a v2 that changes
// everything in every way.
type scene struct {
	*device
	s1, s2, s3 *shop
	want1      map[string]string // the root before
	want2      map[string]string // the root on trial
}

func newScene(t testing.TB) *scene {
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
	sc := &scene{
		device: newDevice(t), s1: newShop(t, v1, "data", "var/log"),
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

// verbs are the steps of an update, each from a fresh process.
func (sc *scene) verb(name string) error {
	ctx := context.Background()
	switch name {
	case "stage":
		return sc.stage("t2", sc.s2)
	case "activate":
		return sc.f.Activate(ctx, "t2", sc.s2.c)
	case "commit":
		return sc.f.Commit(ctx, "t2", sc.s2.c)
	}
	return sc.f.Revert(ctx, "t2", sc.s2.c)
}

// upTo runs the verbs before the one that will be cut.
func (sc *scene) upTo(name string) {
	sc.t.Helper()
	for _, v := range map[string][]string{
		"stage": nil, "activate": {"stage"}, "commit": {"stage", "activate"}, "revert": {"stage", "activate"},
	}[name] {
		require.NoError(sc.t, sc.verb(v))
	}
}

// steps counts the steps of one verb.
func steps(t *testing.T, name string) int {
	sc := newScene(t)
	sc.upTo(name)
	count := sc.cutAt(0)
	require.NoError(t, sc.verb(name))
	require.Greater(t, *count, 2, name)
	t.Logf("%s: %d steps", name, *count)
	return *count
}

// long says that the tests of power cuts are to take the time they need.
func long() bool { return os.Getenv("PAWL_CRASH") == "long" }

// someSteps are the steps of a verb at which it is cut: of a long one every
// third, unless there is time for all.
func someSteps(t *testing.T, name string) iter.Seq[int] {
	all, every := steps(t, name), 1
	if all > 30 && !long() {
		every = 3
	}
	return func(yield func(int) bool) {
		for n := 0; n < all && yield(n); n += every {
		}
	}
}

// isOld checks that the device is exactly as before.
func (sc *scene) isOld(msg string) {
	sc.t.Helper()
	same(sc.t, sc.want1, snapshot(sc.t, sc.root), msg)
	sc.isWhole(sc.s1)
	require.Empty(sc.t, listed(sc.t, sc.f.path(dirTx)), msg)
	require.Empty(sc.t, listed(sc.t, sc.f.path(dirTrash)), msg)
	require.Equal(sc.t, []string{sc.s1.c.Digest().String()}, listed(sc.t, sc.f.path(dirIndex)), msg)
}

func (sc *scene) isNew(msg string) {
	sc.t.Helper()
	same(sc.t, sc.want2, snapshot(sc.t, sc.root), msg)
	sc.isWhole(sc.s2)
}

// goesOn checks that a good release installs afterwards.
func (sc *scene) goesOn() {
	sc.t.Helper()
	sc.restart()
	sc.install("t9", sc.s3)
	sc.isWhole(sc.s3)
	data, err := os.ReadFile(filepath.Join(sc.root, "data/db"))
	require.NoError(sc.t, err)
	require.Equal(sc.t, "rows", string(data))
}

func TestCutThenRevert(t *testing.T) {
	for _, name := range []string{"stage", "activate", "revert"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := range someSteps(t, name) {
				sc := newScene(t)
				sc.upTo(name)
				sc.cutAt(n + 1)
				require.ErrorIs(t, sc.verb(name), errCut)
				sc.restart()
				ok, err := sc.f.CanRevert(t.Context(), "t2", sc.s2.c)
				require.NoError(t, err)
				require.True(t, ok)
				require.NoError(t, sc.verb("revert"), "step %d", n+1)
				sc.isOld(name)
				require.NoError(t, sc.verb("revert"), "again")
				sc.isOld(name)
				if n%4 == 0 {
					sc.goesOn()
				}
			}
		})
	}
}

func TestCutThenAgain(t *testing.T) {
	for _, name := range []string{"stage", "activate", "commit"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := range someSteps(t, name) {
				sc := newScene(t)
				sc.upTo(name)
				sc.cutAt(n + 1)
				require.ErrorIs(t, sc.verb(name), errCut)
				sc.restart()
				if name == "commit" {
					sc.isNew("half committed")
				}
				require.NoError(t, sc.verb(name), "step %d", n+1)
				if name == "stage" {
					require.NoError(t, sc.verb("activate"), "step %d", n+1)
				}
				sc.isNew(name)
				require.NoError(t, sc.verb("commit"))
				require.NoError(t, sc.verb("commit"), "again")
				sc.isNew(name)
				require.Equal(t, []string{sc.s1.c.Digest().String()}, listed(t, sc.f.path(dirKept)))
				require.Empty(t, listed(t, sc.f.path(dirTx)))
				if n%4 == 0 {
					sc.goesOn()
				}
			}
		})
	}
}

// TestCutActivateAndRevert cuts the power twice: in Activate at each step,
// then in Revert at each step.
func TestCutActivateAndRevert(t *testing.T) {
	t.Parallel()
	pairs := 0
	for n := range steps(t, "activate") + 1 {
		for m := 1; ; m++ {
			sc := newScene(t)
			sc.upTo("activate")
			sc.cutAt(n + 1)
			if err := sc.verb("activate"); err != nil {
				require.ErrorIs(t, err, errCut)
			}
			sc.restart()
			sc.cutAt(m)
			if err := sc.verb("revert"); err == nil {
				break
			}
			pairs++
			require.Less(t, m, 50)
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
	data, err := os.ReadFile(filepath.Join(sc.root, "data/db"))
	require.NoError(t, err)
	require.Equal(t, "rows and one more", string(data))
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
	data, err := os.ReadFile(filepath.Join(sc.root, "var/log"))
	require.NoError(t, err)
	require.Equal(t, "rotated", string(data))
}

func TestMixedWhileCarriedPathsAreOnTheWay(t *testing.T) {
	sc := newScene(t)
	sc.upTo("activate")
	last := steps(t, "activate")
	sc.cutAt(last)
	require.ErrorIs(t, sc.verb("activate"), errCut)
	sc.restart()
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
	last := steps(t, "activate")
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
	require.Len(t, listed(t, sc.f.path(dirIndex)), 2)
	require.NoError(t, sc.f.Prune(t.Context(), "app", nil, nil))
	require.Empty(t, listed(t, sc.f.path(dirKept)))
	require.Equal(t, []string{sc.s2.c.Digest().String()}, listed(t, sc.f.path(dirIndex)))
	sc.isNew("what runs stays")
}
