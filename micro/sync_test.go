//go:build linux

package micro

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/micro/internal/at"
)

// onStep has all calls of package durable go through hook until the test ends.
func onStep(t *testing.T, hook func(op, path string, call func() error) error) {
	t.Helper()
	seam.Step.Store(&hook)
	t.Cleanup(func() { seam.Step.Store(nil) })
}

// TestStageAnewAfterFailedSync has the sync of a tree fail: what the next Stage
// ends with is none of its files.
func TestStageAnewAfterFailedSync(t *testing.T) {
	d := newDevice(t)
	s := newShop(t, files(t, t.TempDir(), map[string]string{"a": "11111", "b/c": "22222"}))
	var failed at.Info
	onStep(t, func(op, _ string, call func() error) error {
		if op != "syncfs" || failed.Ino != 0 {
			return call()
		}
		var err error
		failed, err = at.Lstat(filepath.Join(d.f.treePath("t1"), "a"))
		require.NoError(t, err)
		return syscall.EIO
	})
	require.ErrorIs(t, d.stage("t1", s), syscall.EIO)
	require.NoDirExists(t, d.f.treePath("t1"))
	require.False(t, d.f.synced)
	require.Empty(t, listed(t, d.f.path(dirIndex)))
	s.fetched = 0
	d.restart()
	require.NoError(t, d.stage("t1", s))
	again, err := at.Lstat(filepath.Join(d.f.treePath("t1"), "a"))
	require.NoError(t, err)
	require.False(t, failed.Like(again.ID))
	require.Equal(t, s.c.Index.Size+10, s.fetched)
	require.NoError(t, d.f.Activate(t.Context(), "t1", s.c))
	d.isWhole(s)
}

// TestSyncedBeforeItIsDropped has every sync of a folder fail once, in Activate
// and in Revert: the verb that is called again makes what the first one changed
// durable before it goes on.
func TestSyncedBeforeItIsDropped(t *testing.T) {
	for _, name := range []string{"activate", "revert", "first activate", "first revert", "revert" + rootLost} {
		t.Run(name, func(t *testing.T) {
			for n := 1; ; n++ {
				require.Less(t, n, 30)
				if !failFolder(t, name, n) {
					require.Greater(t, n, 1)
					return
				}
			}
		})
	}
}

const rootLost = " without a root"

// failFolder fails the nth sync of a folder that follows a change of its
// names, and reports whether there was one.
func failFolder(t *testing.T, name string, n int) bool {
	d, one, two := carriers(t)
	first := strings.HasPrefix(name, "first ")
	if first {
		require.NoError(t, os.RemoveAll(d.root))
	} else {
		files(t, d.root, map[string]string{"data/db": "rows"})
	}
	require.NoError(t, d.stage("t2", two))
	verb := func() error { return d.f.Activate(t.Context(), "t2", two.c) }
	if strings.Contains(name, "revert") {
		require.NoError(t, verb())
		verb = func() error { return d.f.Revert(t.Context(), "t2", two.c) }
	}
	if strings.HasSuffix(name, rootLost) {
		require.NoError(t, os.RemoveAll(d.root))
	}
	dirty, failed := map[string]bool{}, false
	onStep(t, func(op, path string, call func() error) error {
		switch {
		case op == "exchange" || op == "rename" && (path == d.root || path == d.f.treePath("t2")):
			dirty[filepath.Dir(d.root)], dirty[d.f.txPath("t2")] = true, true
		case op == "rename" && filepath.Base(path) == "data":
			dirty[d.root], dirty[d.f.treePath("t2")] = true, true
		case op == "rename" && strings.HasPrefix(path, d.f.path(dirTrash)):
			require.Empty(t, dirty, "what is not durable is being dropped")
		case op == "fsyncdir" && dirty[path] && !failed:
			if n--; n == 0 {
				failed = true
				return syscall.EIO
			}
			delete(dirty, path)
		case op == "fsyncdir":
			delete(dirty, path)
		}
		return call()
	})
	err := verb()
	if !failed {
		require.NoError(t, err)
		require.Empty(t, dirty)
		return false
	}
	require.ErrorIs(t, err, syscall.EIO)
	d.restart()
	require.NoError(t, verb())
	require.Empty(t, dirty, name)
	seam.Step.Store(nil)
	switch {
	case strings.HasSuffix(name, "activate"):
		d.isWhole(two)
	case !first:
		d.isWhole(one)
	}
	return true
}

// TestInPlaceSyncedBeforeItIsDropped does the same in the in-place layout, where
// folders are made durable together: after every failed sync the verb that is
// called again ends with all of them durable, and nothing is dropped before.
func TestInPlaceSyncedBeforeItIsDropped(t *testing.T) {
	for _, verb := range []string{"activate", "revert"} {
		n := 1
		for ; failPlaceFolder(t, verb, n); n++ {
			require.Less(t, n, 40)
		}
		require.Greater(t, n, 4, verb)
	}
}

func failPlaceFolder(t *testing.T, name string, n int) bool {
	seam.Step.Store(nil)
	d := newPlaceDevice(t)
	d.install("t1", oneFile(t, "etc/conf", "one", ""))
	s := oneFile(t, "etc/conf", "two", "")
	require.NoError(t, d.stage("t2", s))
	verb := func() error { return d.f.Activate(t.Context(), "t2", s.c) }
	if name == "revert" {
		require.NoError(t, verb())
		verb = func() error { return d.f.Revert(t.Context(), "t2", s.c) }
	}
	content := d.f.txPath("t2", dirContent)
	dirty, failed := map[string]bool{}, false
	onStep(t, func(op, path string, call func() error) error {
		switch {
		case op == "exchange" && filepath.Dir(path) == content:
			require.False(t, dirty[d.f.txPath("t2")], "the plan is not durable yet")
			dirty[content], dirty[filepath.Join(d.root, "etc")] = true, true
		case op == "exchange" || op == "rename" && path == d.f.path(fileMark):
			require.Empty(t, dirty, "the mark goes before the entries")
			dirty[d.f.path()], dirty[d.f.txPath("t2")] = true, true
		case op == "link":
			dirty[d.f.txPath("t2")] = true
		case op == "remove" && filepath.Dir(path) == d.f.txPath("t2"):
			require.Empty(t, dirty, "the plan goes before the entries are back for certain")
		case op == "rename" && filepath.Dir(path) == d.f.path(dirTrash):
			require.Empty(t, dirty, "what is not durable is being dropped")
		case op == "fsyncdir" && dirty[path] && !failed:
			if n--; n == 0 {
				failed = true
				return syscall.EIO
			}
			delete(dirty, path)
		case op == "fsyncdir":
			delete(dirty, path)
		}
		return call()
	})
	err := verb()
	if !failed {
		require.NoError(t, err)
		require.Empty(t, dirty)
		return false
	}
	require.ErrorIs(t, err, syscall.EIO)
	d.restart()
	require.NoError(t, verb())
	require.Empty(t, dirty, name)
	return true
}

// TestInPlaceStagedWhenDurable has the record of Stage get its name after the
// file systems of all entries were synced, and after a failed sync not at all:
// what the next Stage ends with is none of its files.
func TestInPlaceStagedWhenDurable(t *testing.T) {
	d := newPlaceDevice(t)
	mnt := twoVolumes(t, d)
	s := placeShop(t, files(t, t.TempDir(), map[string]string{"etc/conf": "one", "mnt/f": "two"}), "")
	stores := []string{d.f.txPath("t1", dirContent), filepath.Join(mnt, ".pawl.app/tx/t1", dirContent)}
	for _, failing := range append(stores, "") {
		synced := map[string]bool{}
		onStep(t, func(op, path string, call func() error) error {
			if op == "rename" && path == d.f.txPath("t1", "staged") {
				require.Len(t, synced, 2)
			}
			if op == "syncfs" && path == failing {
				return syscall.EIO
			}
			synced[path] = op == "syncfs" || synced[path]
			maps.DeleteFunc(synced, func(_ string, whole bool) bool { return !whole })
			return call()
		})
		err := d.stage("t1", s)
		seam.Step.Store(nil)
		if failing == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, syscall.EIO)
		for _, store := range stores {
			require.NoDirExists(t, store)
		}
		require.Empty(t, listed(t, d.f.path(dirIndex)))
	}
}
