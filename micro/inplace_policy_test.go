//go:build linux

package micro

import (
	"fmt"
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

func oneFile(t testing.TB, path, content, options string) *shop {
	t.Helper()
	return placeShop(t, files(t, t.TempDir(), map[string]string{path: content}), options)
}

func TestInPlaceRefusesLocalChange(t *testing.T) {
	d := newPlaceDevice(t)
	d.install("t1", oneFile(t, "etc/conf", "one", ""))
	files(t, d.root, map[string]string{"etc/conf": "by hand"})
	before := times(t, d.root)
	for _, s := range []*shop{oneFile(t, "etc/conf", "two", ""), oneFile(t, "etc/other", "two", "")} {
		err := d.stage("t2", s)
		require.ErrorIs(t, err, ErrLocalChange)
		var local *LocalChangeError
		require.ErrorAs(t, err, &local)
		require.Equal(t, []LocalChange{{"etc/conf", "it has 7 bytes instead of 3"}}, local.Changes)
		require.NoError(t, d.f.Revert(t.Context(), "t2", s.c))
		same(t, before, times(t, d.root), "refused")
	}
}

func TestInPlaceChangedAfterStage(t *testing.T) {
	for _, policy := range []Policy{Refuse, Overwrite} {
		d := newPlaceDevice(t)
		d.install("t1", oneFile(t, "etc/conf", "one", ""))
		s2 := oneFile(t, "etc/conf", "two", fmt.Sprintf(`{"localChanges":%q}`, policy))
		require.NoError(t, d.stage("t2", s2))
		files(t, d.root, map[string]string{"etc/conf": "by hand"})
		before := times(t, d.root)
		err := d.f.Activate(t.Context(), "t2", s2.c)
		if policy == Refuse {
			require.ErrorIs(t, err, ErrLocalChange)
		} else {
			require.NoError(t, err)
			require.Equal(t, "two", d.read("etc/conf"))
		}
		require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c))
		same(t, before, times(t, d.root), "the change is there as before")
	}
}

// TestInPlaceFolderInUse: a folder that a release brought stays when something
// else is in it, and goes when nothing is.
func TestInPlaceFolderInUse(t *testing.T) {
	d := newPlaceDevice(t)
	d.install("t1", placeShop(t, files(t, t.TempDir(), map[string]string{"used/": "", "used2/f": "x", "unused/": "", "unused2/f": "x"}), ""))
	files(t, d.root, map[string]string{"used/own": "own", "used2/own": "own"})
	d.install("t2", oneFile(t, "other", "x", ""))
	got := times(t, d.root)
	for _, p := range []string{"used", "used2", "unused", "unused2"} {
		require.Equal(t, p == "used" || p == "used2", got[p] != "", p)
	}
	require.NotContains(t, got, "used2/f")
	require.Equal(t, "own", d.read("used/own"))
	require.Equal(t, "own", d.read("used2/own"))
}

func TestInPlaceKeepsLocalChange(t *testing.T) {
	const options = `{"localChanges":"refuse","paths":[{"path":"etc/*","localChanges":"keep"}]}`
	d := newPlaceDevice(t)
	s1 := oneFile(t, "etc/app/conf", "one", options)
	d.install("t1", s1)
	files(t, d.root, map[string]string{"etc/app/conf": "by hand"})
	s2 := oneFile(t, "etc/app/conf", "two", options)
	d.install("t2", s2)
	require.Equal(t, "by hand", d.read("etc/app/conf"))
	require.Equal(t, "two", d.read("etc/app/conf.pawl-new"))
	d.isWhole(s2)
	found, err := d.f.Verify(t.Context(), s2.c, s2)
	require.NoError(t, err)
	require.Empty(t, found, "what was kept is the device's")
	s3 := placeShop(t, files(t, t.TempDir(), map[string]string{"etc/app/conf": "two", "more": "x"}), options)
	d.install("t3", s3)
	require.Equal(t, "two", d.read("etc/app/conf.pawl-new"), "the entry did not change: it stays")
	d.install("t4", oneFile(t, "etc/app/conf", "four", `{"localChanges":"overwrite"}`))
	require.Equal(t, "four", d.read("etc/app/conf"))
	require.NoFileExists(t, filepath.Join(d.root, "etc/app/conf.pawl-new"))
	require.NoFileExists(t, filepath.Join(d.root, "more"))
}

func TestInPlaceOptions(t *testing.T) {
	for _, bad := range []string{
		`{"localChange":"keep"}`, `{"localChanges":"merge"}`, `{"paths":[{"path":"[","localChanges":"keep"}]}`,
		`{"paths":[{"path":"/etc","localChanges":"keep"}]}`, `{"paths":[{"path":"a"}]}`, `{"paths":[{"localChanges":"keep"}]}`, `[]`,
		`{"paths":[{"path":"a","localChanges":"merge"}]}`, `{"paths":[{"path":"a","localChanges":"keep","script":"x"}]}`,
		`{"paths":[{"path":"a","localChanges":"merge","script":"x"}]} {}`,
	} {
		_, err := ParseOptions([]byte(bad))
		require.Error(t, err, bad)
		d := newPlaceDevice(t)
		require.Error(t, d.stage("t1", oneFile(t, "a", "a", bad)), bad)
	}
	o, err := ParseOptions([]byte(`{"localChanges":"keep","paths":[{"path":"a/*.c","localChanges":"overwrite"},{"path":"a","localChanges":"refuse"}]}`))
	require.NoError(t, err)
	require.Equal(t, Overwrite, o.of("a/b.c"))
	require.Equal(t, Overwrite, o.of("a/b.c/d"))
	require.Equal(t, Refuse, o.of("a/b.d"))
	require.Equal(t, Keep, o.of("b"))
	o, err = ParseOptions(nil)
	require.NoError(t, err)
	require.Equal(t, Refuse, o.of("b"))
	f, err := New(Options{Name: "app", Root: "/", Layout: InPlace})
	require.NoError(t, err)
	require.Equal(t, "/.pawl.app", f.layout.(*inPlaceFiles).opts.Spool)
	_, err = New(Options{Name: "app", Root: "/x/y", Layout: InPlace, Spool: "/x"})
	require.Error(t, err)
}

// TestInPlaceNeverFollows: nothing is installed through a symbolic link, into
// the spool, or over what belongs to nobody.
func TestInPlaceNeverFollows(t *testing.T) {
	d := newPlaceDevice(t)
	outside := t.TempDir()
	require.NoError(t, os.Symlink(outside, filepath.Join(d.root, "lib")))
	files(t, d.root, map[string]string{"folder/own": "own", "file": "x"})
	before := times(t, d.root)
	require.ErrorContains(t, d.stage("t1", oneFile(t, "lib/a", "a", "")), "symbolic link")
	require.ErrorContains(t, d.stage("t1", oneFile(t, "file/a", "a", "")), "no folder")
	require.ErrorContains(t, d.stage("t1", oneFile(t, "x/.pawl.app/a", "a", "")), "spool")
	require.ErrorIs(t, d.stage("t1", oneFile(t, "folder", "a", "")), ErrUnmanaged)
	all := []release.Entry{{Path: "folder", Type: release.Absent}}
	require.ErrorIs(t, d.stage("t1", entriesShop(t, map[release.Digest][]byte{}, all, "")), ErrUnmanaged)
	same(t, before, times(t, d.root), "nothing happened")
	require.Empty(t, listed(t, outside))
}

func TestInPlaceLinkPutInTheWayAfterStage(t *testing.T) {
	d := newPlaceDevice(t)
	s1, s2 := oneFile(t, "lib/a", "a", ""), oneFile(t, "lib/a", "b", "")
	d.install("t1", s1)
	require.NoError(t, d.stage("t2", s2))
	outside := files(t, t.TempDir(), map[string]string{"a": "theirs"})
	require.NoError(t, os.Rename(filepath.Join(d.root, "lib"), filepath.Join(d.root, "lib2")))
	require.NoError(t, os.Symlink(outside, filepath.Join(d.root, "lib")))
	require.Error(t, d.f.Activate(t.Context(), "t2", s2.c))
	data, err := os.ReadFile(filepath.Join(outside, "a"))
	require.NoError(t, err)
	require.Equal(t, "theirs", string(data))
}

func TestInPlaceFindsAtStage(t *testing.T) {
	t.Run("mount point", func(t *testing.T) {
		d := newPlaceDevice(t)
		twoVolumes(t, d)
		require.ErrorIs(t, d.stage("t1", entriesShop(t, map[release.Digest][]byte{}, []release.Entry{{Path: "mnt", Type: release.Absent}}, "")), ErrNoExchange)
		require.ErrorIs(t, d.stage("t1", oneFile(t, "mnt", "x", "")), ErrNoExchange)
	})
	t.Run("mounted file", func(t *testing.T) {
		testneeds.Root(t)
		d := newPlaceDevice(t)
		files(t, d.root, map[string]string{"etc/hosts": "x", "other": "y"})
		p := filepath.Join(d.root, "etc/hosts")
		require.NoError(t, unix.Mount(filepath.Join(d.root, "other"), p, "", unix.MS_BIND, ""))
		defer func() { require.NoError(t, unix.Unmount(p, unix.MNT_DETACH)) }()
		require.ErrorIs(t, d.stage("t1", oneFile(t, "etc/hosts", "z", "")), ErrNoExchange)
	})
	t.Run("read-only mount", func(t *testing.T) {
		d := newPlaceDevice(t)
		mnt := twoVolumes(t, d)
		require.NoError(t, unix.Mount("", mnt, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		require.ErrorIs(t, d.stage("t1", oneFile(t, "mnt/x", "z", "")), ErrReadOnly)
	})
	t.Run("full disk", func(t *testing.T) {
		d := newPlaceDevice(t)
		twoVolumes(t, d)
		big := oneFile(t, "mnt/x", string(make([]byte, 17<<20)), "")
		require.ErrorIs(t, d.stage("t1", big), ota.ErrNoSpace)
		require.NoError(t, d.f.Revert(t.Context(), "t1", big.c))
		require.Empty(t, listed(t, filepath.Join(d.root, "mnt/.pawl.app/tx")))
		d.install("t2", oneFile(t, "mnt/x", "small", ""))
	})
	t.Run("no root", func(t *testing.T) {
		d := newPlaceDevice(t)
		require.NoError(t, os.Remove(d.root))
		require.ErrorContains(t, d.stage("t1", oneFile(t, "x", "z", "")), "root")
	})
}

// TestInPlaceFullDiskAtSwitch fills the disk after Stage: the switch, the
// commit and the way back have their room.
func TestInPlaceFullDiskAtSwitch(t *testing.T) {
	testneeds.Root(t)
	for _, back := range []bool{false, true} {
		d := newPlaceDevice(t)
		require.NoError(t, unix.Mount("tmpfs", d.root, "tmpfs", 0, "size=8m"))
		defer func() { require.NoError(t, unix.Unmount(d.root, unix.MNT_DETACH)) }()
		f, err := New(Options{Name: "app", Root: d.root, Layout: InPlace, Spool: filepath.Join(d.root, ".pawl.app")})
		require.NoError(t, err)
		d.f = f.layout.(*inPlaceFiles)
		s1, s2 := oneFile(t, "bin/app", "one", ""), oneFile(t, "bin/app", "two", "")
		d.install("t1", s1)
		require.NoError(t, d.stage("t2", s2))
		fill(t, d.root)
		require.NoError(t, d.f.Activate(t.Context(), "t2", s2.c))
		d.isWhole(s2)
		if back {
			require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c))
			d.isWhole(s1)
			continue
		}
		require.NoError(t, d.f.Commit(t.Context(), "t2", s2.c))
		d.isWhole(s2)
	}
}

func TestInPlaceVerifyAndRepair(t *testing.T) {
	sc := newPlaceScene(t)
	sc.upTo("commit")
	require.NoError(t, sc.verb("commit"))
	at := func(p string) string { return filepath.Join(sc.root, p) }
	require.NoError(t, os.WriteFile(at("bin/app"), []byte("rotten"), 0o644))
	require.NoError(t, os.RemoveAll(at("new")))
	require.NoError(t, os.Chmod(at("bin/tool"), 0o700))
	require.NoError(t, os.Remove(at("lib/link")))
	require.NoError(t, os.Symlink("elsewhere", at("lib/link")))
	require.NoError(t, os.Remove(at("empty")))
	files(t, sc.root, map[string]string{"etc/old": "again", "unlisted": "own"})
	found, err := sc.f.Verify(t.Context(), sc.s2.c, sc.s2)
	require.NoError(t, err)
	require.Len(t, found, 6)
	left, err := sc.f.Repair(t.Context(), sc.s2.c, sc.s2)
	require.NoError(t, err)
	require.Equal(t, []ota.Damage{{Component: "app", Path: "etc/old", Reason: "it should be absent"}}, left)
	require.NoError(t, os.Remove(at("etc/old")))
	require.NoError(t, os.Remove(at("unlisted")))
	got := snapshot(t, sc.root)
	sc.want2["new"] = got["new"] // made again as it has to be, above what is listed
	same(t, sc.want2, got, "repaired")
	sc.isWhole(sc.s2)
}

// TestInPlaceRollsBackFromKept goes back two releases with nothing but what is
// on the device.
func TestInPlaceRollsBackFromKept(t *testing.T) {
	sc := newPlaceScene(t)
	sc.upTo("commit")
	require.NoError(t, sc.verb("commit"))
	sc.install("t3", sc.s3)
	keep := []release.Digest{sc.s1.c.Digest(), sc.s2.c.Digest()}
	require.NoError(t, sc.f.Prune(t.Context(), "app", keep, nil))
	sc.lends(sc.s1)
	sc.lends(sc.s2)
	require.NoError(t, sc.f.Prune(t.Context(), "app", keep[:1], nil))
	sc.lends(sc.s1, "the newer set stays with the older release that needs it")
}

// TestInPlaceOneFile installs one file alone.
func TestInPlaceOneFile(t *testing.T) {
	d := newPlaceDevice(t)
	files(t, d.root, map[string]string{"etc/conf": "own"})
	before := times(t, d.root)
	s := oneFile(t, "etc/conf", "one", "")
	start := time.Now()
	d.activate("t1", s)
	t.Logf("staged and switched in %v", time.Since(start))
	require.Equal(t, int64(3), s.fetched-s.c.Index.Size, "the index and the file")
	require.NoError(t, d.f.Revert(t.Context(), "t1", s.c))
	same(t, before, times(t, d.root), "back")
	d.install("t2", s)
	d.isWhole(s)
	require.Len(t, times(t, d.root), 3)
}

// TestInPlaceRealTrees updates real sources, and takes them back.
func TestInPlaceRealTrees(t *testing.T) {
	dir := t.TempDir()
	v1, v2 := filepath.Join(dir, "v1"), filepath.Join(dir, "v2")
	for _, v := range []string{v1, v2} {
		goSources(t, v, "net", "encoding")
	}
	for i, p := range regular(t, v2) {
		switch i % 10 {
		case 0:
			require.NoError(t, os.WriteFile(p, []byte(fmt.Sprint("changed ", i)), 0o644))
		case 1:
			require.NoError(t, os.Remove(p))
		case 2:
			require.NoError(t, os.Rename(p, p+".moved"))
		}
	}
	s1, s2 := newShop(t, v1), newShop(t, v2)
	d := newPlaceDevice(t)
	d.install("t1", s1)
	same(t, snapshot(t, v1), snapshot(t, d.root), "first")
	before := times(t, d.root)
	d.activate("t2", s2)
	same(t, snapshot(t, v2), snapshot(t, d.root), "updated")
	require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c))
	same(t, before, times(t, d.root), "back, with all times")
	d.install("t3", s2)
	d.install("t4", s1)
	same(t, snapshot(t, v1), snapshot(t, d.root), "rolled back by a release")
	took := d.quickest(s1)
	require.Less(t, took, time.Second)
	t.Logf("%d entries, Active took %v", len(s1.ix.Entries), took)
}

// TestInPlaceChangedWhileSwitching changes an entry after the plan was written,
// just before its turn comes.
func TestInPlaceChangedWhileSwitching(t *testing.T) {
	for _, change := range []func(p string) error{
		func(p string) error { return os.WriteFile(p, []byte("by hand"), 0o644) },
		os.Remove,
	} {
		sc := newPlaceScene(t)
		sc.upTo("activate")
		p := filepath.Join(sc.root, "bin/tool")
		sc.f.before = func(op, path string) error {
			if op == "switch" && path == p {
				return change(p)
			}
			return nil
		}
		require.ErrorIs(t, sc.verb("activate"), ErrLocalChange)
		sc.restart()
		require.NoError(t, sc.verb("revert"))
		got := times(t, sc.root)
		require.NotEqual(t, sc.want1["bin/tool"], got["bin/tool"], "the change is still there")
		delete(got, "bin/tool")
		delete(sc.want1, "bin/tool")
		got["bin"] = sc.want1["bin"]
		same(t, sc.want1, got, "all else is as before")
	}
}
