//go:build linux

package micro

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// newPlaceScene is a scene of the in-place layout: with files that no release
// lists, and a v2 that changes entries in every way.
func newPlaceScene(t testing.TB) *scene[*inPlaceFiles] { return newPlaceSceneOn(t, newPlaceDevice(t)) }

func newPlaceSceneOn(t testing.TB, d *placeDevice) *scene[*inPlaceFiles] {
	t.Helper()
	v1 := files(t, t.TempDir(), map[string]string{
		"bin/app": "app 1", "bin/tool": "tool", "lib/link": "->a", "gone/x": "x", "type1": "file", "type2/inner": "in",
		"type3": "->type1", "empty/": "", "opt/deep/er": "1",
	})
	v2 := files(t, t.TempDir(), map[string]string{
		"bin/app": "app 2", "bin/tool": "tool", "lib/link": "->b", "new/y/z": "y", "type1/inner": "in", "type2": "->empty",
		"type3": "file now", "empty/": "", "copy": "app 2", "etc/shipped": "new over the device's own",
	})
	require.NoError(t, os.Chmod(filepath.Join(v2, "bin/tool"), 0o4755))
	require.NoError(t, os.Chmod(filepath.Join(v2, "empty"), 0o700))
	require.NoError(t, unix.Setxattr(filepath.Join(v1, "bin/app"), "user.x", []byte("1"), 0))
	v3 := files(t, t.TempDir(), map[string]string{"bin/app": "app 3"})
	sc := &scene[*inPlaceFiles]{
		rig: d, look: times, own: []string{"etc/own", "bin/other"}, s1: placeShop(t, v1, ""), s2: placeShop(t, v2, "", "etc/old", "never/there"), s3: placeShop(t, v3, ""),
	}
	files(t, sc.root, map[string]string{"etc/own": "own", "etc/old": "own, and to go", "etc/shipped": "own", "bin/other": "own"})
	sc.install("t1", sc.s1)
	old := time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
	for p := range times(t, sc.root) {
		ts := []unix.Timespec{unix.NsecToTimespec(old.UnixNano()), unix.NsecToTimespec(old.UnixNano())}
		require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(sc.root, p), ts, unix.AT_SYMLINK_NOFOLLOW))
	}
	sc.want1 = times(t, sc.root)
	sc.want2 = snapshot(t, v2)
	for _, p := range []string{"etc/own", "bin/other", "bin", "etc", "."} {
		sc.want2[p] = snapshotLine(t, sc.root, p)
	}
	return sc
}

// cannotDo is a scene of a device that cannot do these calls.
func cannotDo(calls ...string) func(testing.TB) *scene[*inPlaceFiles] {
	return func(t testing.TB) *scene[*inPlaceFiles] {
		d := newPlaceDevice(t)
		d.without = calls
		d.restart()
		return newPlaceSceneOn(t, d)
	}
}

// poorDevices are the devices that cannot exchange names.
var poorDevices = map[string][]string{"links": {"exchange"}, "copies": {"exchange", "link"}}

// TestCutWithoutExchange runs the tests of power cuts where names cannot be
// exchanged, with and without second names for files.
func TestCutWithoutExchange(t *testing.T) {
	for name, calls := range poorDevices {
		fresh := cannotDo(calls...)
		for _, verb := range []string{"stage", "activate", "revert"} {
			t.Run(name+"/revert after "+verb, func(t *testing.T) { t.Parallel(); cutThenRevert(t, fresh, verb) })
		}
		for _, verb := range []string{"stage", "activate", "commit"} {
			t.Run(name+"/again "+verb, func(t *testing.T) { t.Parallel(); cutThenAgain(t, fresh, verb) })
		}
		t.Run(name+"/twice", func(t *testing.T) { t.Parallel(); cutTwice(t, fresh, "activate") })
	}
}

// TestInPlaceActiveSaysMixed asks between any two entries.
func TestInPlaceActiveSaysMixed(t *testing.T) {
	mixed := 0
	for n := range steps(t, newPlaceScene, "activate") {
		sc := cut(t, newPlaceScene, "activate", n+1)
		if maps.Equal(times(t, sc.root), sc.want1) {
			sc.isWhole(sc.s1)
			continue
		}
		require.Equal(t, ota.Mixed, sc.active().State, "step %d", n+1)
		mixed++
	}
	require.Greater(t, mixed, 8)
}

// TestInPlaceTrialChangesGoBack: whatever was done to entries in the trial, the
// way back ends at what was there before.
func TestInPlaceTrialChangesGoBack(t *testing.T) {
	sc := newPlaceScene(t)
	sc.upTo("revert")
	at := func(p string) string { return filepath.Join(sc.root, p) }
	require.NoError(t, os.WriteFile(at("bin/app"), []byte("written in place"), 0o644))
	require.NoError(t, os.Remove(at("bin/tool")))
	require.NoError(t, os.RemoveAll(at("lib")))
	files(t, sc.root, map[string]string{"gone/x": "made again", "new/y/more": "in a new folder", "etc/old": "again"})
	require.NoError(t, os.Rename(at("etc/old"), at("type3")))
	require.NoError(t, os.Chmod(at("empty"), 0o711))
	sc.restart()
	sc.isWhole(sc.s2)
	require.NoError(t, sc.verb("revert"))
	got := times(t, sc.root)
	require.Contains(t, got, "lib")
	got["lib"] = sc.want1["lib"] // it had to be made anew
	same(t, sc.want1, got, "back")
	sc.isWhole(sc.s1)
}

// twoVolumes is a root with a file system of its own below it.
func twoVolumes(t testing.TB, d *placeDevice) string {
	t.Helper()
	testneeds.Root(t)
	mnt := filepath.Join(d.root, "mnt")
	require.NoError(t, os.Mkdir(mnt, 0o755))
	if err := unix.Mount("tmpfs", mnt, "tmpfs", 0, "size=16m"); err != nil {
		testneeds.Missing(t, "the right to mount a tmpfs")
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(mnt, unix.MNT_DETACH)) })
	return mnt
}

// twoVolumeShops are releases of n entries, half of them on the other file
// system.
func twoVolumeShops(t testing.TB, n int) (*shop, *shop) {
	var shops []*shop
	for v := range 2 {
		content := map[string]string{}
		for i := range n {
			dir := []string{"usr/", "mnt/data/"}[i%2]
			switch {
			case i%10 < 7:
				content[fmt.Sprint(dir, "f", i)] = fmt.Sprint("content ", v, i)
			case i%10 == 7:
				content[fmt.Sprint(dir, "l", i)] = fmt.Sprint("->", v)
			case i%10 == 8:
				content[fmt.Sprint(dir, "only", v, "-", i)] = "x"
			default:
				content[fmt.Sprint(dir, "d", v, i, "/")] = ""
			}
		}
		shops = append(shops, placeShop(t, files(t, t.TempDir(), content), ""))
	}
	return shops[0], shops[1]
}

func snapshotLines(t testing.TB, dir string) map[string]string {
	all, own := snapshot(t, dir), times(t, dir)
	maps.DeleteFunc(all, func(p, _ string) bool { return own[p] == "" })
	return all
}

func TestInPlaceOtherVolumeIsNotMounted(t *testing.T) {
	d := newPlaceDevice(t)
	mnt := twoVolumes(t, d)
	s1, s2 := twoVolumeShops(t, 20)
	d.install("t1", s1)
	before := times(t, d.root)
	d.activate("t2", s2)
	hidden := filepath.Join(t.TempDir(), "hidden")
	require.NoError(t, os.Mkdir(hidden, 0o755))
	require.NoError(t, unix.Mount(mnt, hidden, "", unix.MS_BIND, ""))
	require.NoError(t, unix.Unmount(mnt, unix.MNT_DETACH))
	d.restart()
	require.Equal(t, ota.Mixed, d.active().State)
	ok, err := d.f.CanRevert(t.Context(), "t2", s2.c)
	require.NoError(t, err)
	require.False(t, ok)
	require.ErrorIs(t, d.f.Revert(t.Context(), "t2", s2.c), ErrForeign)
	require.NoError(t, unix.Mount(hidden, mnt, "", unix.MS_BIND, ""))
	require.NoError(t, unix.Unmount(hidden, unix.MNT_DETACH))
	require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c))
	same(t, before, times(t, d.root), "back")
}

// TestInPlaceCommitCutKeepsAll cuts a Commit that replaces a kept set of the
// same release on two file systems: what is kept is all there afterwards, be the
// Commit called again or only what is not needed dropped, and nothing else is.
func TestInPlaceCommitCutKeepsAll(t *testing.T) {
	d := newPlaceDevice(t)
	mnt := twoVolumes(t, d)
	s1, s2 := twoVolumeShops(t, 20)
	ctx := t.Context()
	d1 := s1.c.Digest()
	d.install("a", s1)
	ends := map[string]func(){
		"again": func() {
			require.NoError(t, d.f.Commit(ctx, "d", s2.c))
			d.lends(s1)
		},
		"prune": func() {
			require.NoError(t, d.f.Prune(ctx, "app", []release.Digest{d1}, nil))
			d.lends(s1)
		},
		"drop": func() { require.NoError(t, d.f.Prune(ctx, "app", nil, nil)); d.tidy("dropped") },
	}
	whole := 0
	for n := 1; whole < len(ends); n++ {
		require.Less(t, n, 100)
		whole = 0
		for name, end := range ends {
			d.install("b", s2)
			d.install("c", s1)
			d.activate("d", s2)
			count := d.cutAt(n)
			if d.f.Commit(ctx, "d", s2.c) == nil {
				require.Greater(t, *count, 4)
				whole++
			}
			d.restart()
			end()
			d.isWhole(s2)
			require.Equal(t, listed(t, d.f.path(dirKept)), listed(t, filepath.Join(mnt, ".pawl.app", dirKept)), "%s: step %d", name, n)
			for _, dir := range []string{dirTx, dirTrash} {
				require.Empty(t, listed(t, filepath.Join(mnt, ".pawl.app", dir)), "%s: step %d", name, n)
			}
			d.install("e", s1)
		}
	}
}

// TestSecuredBeforeItIsReplaced: where names cannot be exchanged, what will be
// replaced is in the spool when Stage returns; what was changed since then, with
// a release that overwrites it, is there and durable before the first rename.
func TestSecuredBeforeItIsReplaced(t *testing.T) {
	for _, name := range []string{"exchange", "links", "copies"} {
		d := newPlaceDevice(t)
		d.without = poorDevices[name]
		d.restart()
		const overwrite = `{"localChanges":"overwrite"}`
		v1, v2 := map[string]string{}, map[string]string{}
		for _, p := range []string{"a", "b", "c"} {
			v1[p], v2[p] = "1", "2"
		}
		s1, s2 := placeShop(t, files(t, t.TempDir(), v1), overwrite), placeShop(t, files(t, t.TempDir(), v2), overwrite)
		d.install("t1", s1)
		for _, changed := range []bool{false, true} {
			require.NoError(t, d.stage("t2", s2))
			if changed {
				require.NoError(t, os.Remove(filepath.Join(d.root, "b")))
				files(t, d.root, map[string]string{"b": "by hand", "c": "in place"})
			}
			before := times(t, d.root)
			secured, dirty := 0, false
			d.f.before = func(op, _ string) error {
				if op == "secure" {
					secured, dirty = secured+1, true
				}
				return nil
			}
			onStep(t, func(op, path string, call func() error) error {
				if op == "syncfs" {
					dirty = false
				}
				require.False(t, dirty && op == "rename" && filepath.Dir(path) == d.root, "%s: before it is durable", name)
				return call()
			})
			require.NoError(t, d.f.Activate(t.Context(), "t2", s2.c))
			require.Equal(t, changed && name != "exchange", secured > 0, name)
			require.Equal(t, "2", d.read("b"))
			d.restart()
			d.revert("t2", s2)
			same(t, before, times(t, d.root), name)
			if changed {
				require.Equal(t, "by hand", d.read("b"))
			}
		}
	}
}

// TestInPlaceStrays has things in the store of an interrupted Stage that nobody
// needs any more, under the name that an entry will have which is to leave.
func TestInPlaceStrays(t *testing.T) {
	for name, calls := range maps.All(poorDevices) {
		sc := cannotDo(calls...)(t)
		for _, calls := range [][]string{nil, calls} {
			sc.without = calls
			sc.restart()
			require.NoError(t, sc.verb("stage"))
			for _, p := range []string{"gone/x", "nobody"} {
				stray := nameInSpool(p)
				files(t, sc.f.txPath("t2", dirContent), map[string]string{stray: "stray", stray + suffixOld + "/stray": "stray", "stray": "stray"})
			}
			sc.restart()
			require.NoError(t, sc.verb("stage"))
			require.NoError(t, sc.verb("activate"), name)
			sc.isNew(name)
			require.NoError(t, sc.verb("revert"))
			sc.isOld(name)
		}
	}
}

// TestInPlaceUnderBothNames: a power cut on btrfs can leave what was moved with
// its old name too, when only the new folder had been synced.
func TestInPlaceUnderBothNames(t *testing.T) {
	d := newPlaceDevice(t)
	s := oneFile(t, "etc/conf", "one", "")
	require.NoError(t, d.stage("t1", s))
	d.activate("t1", s)
	require.NoError(t, os.Link(d.f.path(fileMark), d.f.txPath("t1", fileMark)))
	require.NoError(t, os.Link(filepath.Join(d.root, "etc/conf"), d.f.txPath("t1", dirContent, nameInSpool("etc/conf"))))
	d.restart()
	d.revert("t1", s)
	require.Equal(t, ota.None, d.active().State)
	require.NoDirExists(t, filepath.Join(d.root, "etc"))
	d.install("t2", s)
}

// TestInPlacePlanIsOfNow: what changed between Stage and Activate is in the plan
// that a process after a cut finds: a file that the release overwrites, and the
// time of a folder.
func TestInPlacePlanIsOfNow(t *testing.T) {
	for name, change := range map[string]map[string]string{"file": {"etc/conf": "by hand"}, "folder": {"etc/own": "own"}} {
		d := newPlaceDevice(t)
		d.install("t1", oneFile(t, "etc/conf", "one", ""))
		s := oneFile(t, "etc/conf", "two", `{"localChanges":"overwrite"}`)
		require.NoError(t, d.stage("t2", s))
		files(t, d.root, change)
		before := times(t, d.root)
		d.f.before = func(op, _ string) error {
			if op == "flush" {
				return errCut
			}
			return nil
		}
		require.ErrorIs(t, d.f.Activate(t.Context(), "t2", s.c), errCut)
		d.restart()
		d.revert("t2", s)
		same(t, before, times(t, d.root), name)

		require.NoError(t, d.stage("t3", s))
		files(t, d.root, map[string]string{"etc/conf": "by hand again"})
		d.f.before = func(op, _ string) error {
			if op == "switch" {
				return errCut
			}
			return nil
		}
		require.ErrorIs(t, d.f.Activate(t.Context(), "t3", s.c), errCut)
		d.restart()
		require.NoError(t, d.f.Activate(t.Context(), "t3", s.c), name)
	}
}
