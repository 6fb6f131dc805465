//go:build linux

package micro

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// small are two releases of one small file each.
func small(t testing.TB) (s1, s2 *shop) {
	t.Helper()
	s1 = newShop(t, files(t, t.TempDir(), map[string]string{"bin/a": "1", "bin/same": "same"}))
	s2 = newShop(t, files(t, t.TempDir(), map[string]string{"bin/a": "2", "bin/same": "same"}))
	return s1, s2
}

// mount mounts something for the test.
func mount(t testing.TB, source, target, fs string, flags uintptr, data string) {
	t.Helper()
	testneeds.Root(t)
	require.NoError(t, os.MkdirAll(target, 0o755))
	if err := unix.Mount(source, target, fs, flags, data); err != nil {
		testneeds.Missing(t, "the right to mount "+fs)
	}
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
}

func TestUnmanaged(t *testing.T) {
	s1, s2 := small(t)
	d := newDevice(t)
	d.install("t1", s1)
	files(t, d.root, map[string]string{"bin/mine": "x", "notes/today": "y"})
	before := snapshot(t, d.root)
	err := d.stage("t2", s2)
	require.ErrorIs(t, err, ErrUnmanaged)
	var list *UnmanagedError
	require.ErrorAs(t, err, &list)
	require.Equal(t, []string{"bin/mine", "notes"}, list.Paths)
	same(t, before, snapshot(t, d.root), "nothing was touched")
	require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c))
	d.isWhole(s1)

	require.NoError(t, os.RemoveAll(filepath.Join(d.root, "notes")))
	require.NoError(t, os.Remove(filepath.Join(d.root, "bin/mine")))
	require.NoError(t, d.stage("t3", s2))
	files(t, d.root, map[string]string{"late": "made after Stage"})
	require.ErrorIs(t, d.f.Activate(t.Context(), "t3", s2.c), ErrUnmanaged)
	d.isWhole(s1)
	require.NoError(t, os.Remove(filepath.Join(d.root, "late")))
	require.NoError(t, d.f.Activate(t.Context(), "t3", s2.c))
	d.isWhole(s2)
}

func TestUnmanagedListIsBounded(t *testing.T) {
	s1, s2 := small(t)
	d := newDevice(t)
	d.install("t1", s1)
	for i := range maxUnmanaged + 7 {
		files(t, d.root, map[string]string{fmt.Sprintf("x%03d", i): ""})
	}
	var list *UnmanagedError
	require.ErrorAs(t, d.stage("t2", s2), &list)
	require.Len(t, list.Paths, maxUnmanaged)
	require.Equal(t, 7, list.More)
}

func TestAdoptUnknownRoot(t *testing.T) {
	s1, s2 := small(t)
	d := newDevice(t)
	files(t, d.root, map[string]string{"bin/a": "put there by hand", "bin/same": "same"})
	before := snapshot(t, d.root)
	require.Equal(t, ota.Mixed, d.active().State)
	d.activate("t1", s1)
	d.isWhole(s1)
	require.NoError(t, d.f.Revert(t.Context(), "t1", s1.c))
	same(t, before, snapshot(t, d.root), "as it was")
	d.install("t2", s2)
	d.isWhole(s2)
	require.Empty(t, listed(t, d.f.path(dirKept)))
}

func TestRootIsNoFolder(t *testing.T) {
	s1, _ := small(t)
	for _, make := range []func(string) error{
		func(p string) error { return os.WriteFile(p, nil, 0o644) },
		func(p string) error { return os.Symlink(t.TempDir(), p) },
	} {
		d := newDevice(t)
		require.NoError(t, os.MkdirAll(filepath.Dir(d.root), 0o755))
		require.NoError(t, make(d.root))
		require.ErrorContains(t, d.stage("t1", s1), "not a folder")
		require.Equal(t, ota.Mixed, d.active().State)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{
		{}, {Name: "app"}, {Name: "Üpp", Root: "/x"}, {Name: "app", Root: "/"}, {Name: "app", Root: "/x", Layout: "else"},
		{Name: "app", Root: "/x", Spool: "/x/y"}, {Name: "app", Root: "/x/y", Spool: "/x"}, {Name: "app", Root: "/x", Effect: "later"},
		{Name: "app", Root: "/x", Effect: ota.NeedsReboot},
	} {
		_, err := New(o)
		require.ErrorContains(t, err, "option", "%+v", o)
	}
	f, err := New(Options{Name: "app", Root: "/srv/app"})
	require.NoError(t, err)
	require.Equal(t, "/srv/.pawl.app", f.layout.(*treeFiles).opts.Spool)
}

func TestForeignComponentAndTransaction(t *testing.T) {
	s1, _ := small(t)
	d := newDevice(t)
	c := s1.c
	c.Kind = "compose"
	require.ErrorContains(t, d.f.Commit(t.Context(), "t1", c), "kind")
	c = s1.c
	c.Name = "other"
	require.ErrorContains(t, d.f.Activate(t.Context(), "t1", c), "backend of")
	require.ErrorContains(t, d.f.Revert(t.Context(), "../t1", s1.c), "transaction")
	require.ErrorIs(t, d.f.Activate(t.Context(), "t1", s1.c), ota.ErrState)
	require.ErrorIs(t, d.f.Commit(t.Context(), "t1", s1.c), ota.ErrState)
}

func TestSpoolOfAnotherUser(t *testing.T) {
	s1, _ := small(t)
	d := newDevice(t)
	require.NoError(t, os.MkdirAll(d.f.path(), 0o777))
	require.NoError(t, os.Chmod(d.f.path(), 0o777))
	require.ErrorContains(t, d.stage("t1", s1), "spool")
}

func TestContentThatIsWrong(t *testing.T) {
	s1, s2 := small(t)
	d := newDevice(t)
	d.install("t1", s1)
	s2.corrupt = map[release.Digest]bool{s2.ix.Find("bin/a").Digest: true}
	require.ErrorIs(t, d.stage("t2", s2), ota.ErrDigest)
	require.NoFileExists(t, filepath.Join(d.f.treePath("t2"), "bin/a"))
	require.ErrorIs(t, d.f.Activate(t.Context(), "t2", s2.c), ota.ErrState)
	s2.corrupt = nil
	require.NoError(t, d.stage("t2", s2))
}

func TestContentThatIsShort(t *testing.T) {
	_, s2 := small(t)
	d := newDevice(t)
	b := s2.ix.Find("bin/same").Blob
	s2.blobs[b.Digest] = s2.blobs[b.Digest][:3]
	require.ErrorIs(t, d.stage("t1", s2), ota.ErrLength)
}

// TestDamagedFileIsNotShared shares nothing that is not what was signed.
func TestDamagedFileIsNotShared(t *testing.T) {
	s1, s2 := small(t)
	d := newDevice(t)
	d.install("t1", s1)
	require.NoError(t, os.WriteFile(filepath.Join(d.root, "bin/same"), []byte("sAme"), 0o644))
	before := snapshot(t, d.root)
	d.activate("t2", s2)
	data, err := os.ReadFile(filepath.Join(d.root, "bin/same"))
	require.NoError(t, err)
	require.Equal(t, "same", string(data))
	require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c))
	same(t, before, snapshot(t, d.root), "exactly as it was before")
}

// TestHostileSymlinks puts links where folders and files were. None is
// followed, not by a reader and not by a writer.
func TestHostileSymlinks(t *testing.T) {
	outside := files(t, t.TempDir(), map[string]string{"a": "1", "same": "same", "db": "not yours"})
	want := snapshot(t, outside)
	s1 := newShop(t, files(t, t.TempDir(), map[string]string{"bin/a": "1", "bin/same": "same", "var/": ""}), "var/data")
	s2 := newShop(t, files(t, t.TempDir(), map[string]string{"bin/a": "2", "bin/same": "same", "var/": ""}), "var/data")
	d := newDevice(t)
	d.install("t1", s1)
	for _, dir := range []string{"bin", "var"} {
		require.NoError(t, os.RemoveAll(filepath.Join(d.root, dir)))
		require.NoError(t, os.Symlink(outside, filepath.Join(d.root, dir)))
	}
	before := snapshot(t, d.root)
	d.activate("t2", s2)
	same(t, want, snapshot(t, outside), "outside")
	info, err := os.Lstat(filepath.Join(d.root, "bin"))
	require.NoError(t, err)
	require.True(t, info.IsDir())

	require.NoError(t, os.RemoveAll(filepath.Join(d.root, "var")))
	require.NoError(t, os.Symlink(outside, filepath.Join(d.root, "var")))
	require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c))
	same(t, before, snapshot(t, d.root), "as it was")
	same(t, want, snapshot(t, outside), "outside")

	left, err := d.f.Repair(t.Context(), s1.c, s1)
	require.NoError(t, err)
	require.Empty(t, left)
	same(t, want, snapshot(t, outside), "outside")
	left, err = d.f.Verify(t.Context(), s1.c, s1)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestMountPoints(t *testing.T) {
	s1, s2 := small(t)
	d := newDevice(t)
	mount(t, "tmpfs", d.root, "tmpfs", 0, "")
	require.ErrorIs(t, d.stage("t1", s1), ErrLayout)
	require.NoError(t, unix.Unmount(d.root, 0))
	require.NoError(t, os.Remove(d.root))
	d.install("t1", s1)
	mount(t, "tmpfs", filepath.Join(d.root, "bin"), "tmpfs", 0, "")
	require.ErrorIs(t, d.stage("t2", s2), ErrLayout)
	require.NoError(t, unix.Unmount(filepath.Join(d.root, "bin"), 0))
	for _, name := range []string{"bin/a", "bin/same"} {
		p := filepath.Join(d.root, name)
		require.NoError(t, unix.Mount(p, p, "", unix.MS_BIND, ""))
		t.Cleanup(func() { _ = unix.Unmount(p, unix.MNT_DETACH) })
		require.ErrorIs(t, d.stage("t2", s2), ErrLayout, name)
		require.NoError(t, unix.Unmount(p, 0))
		require.NoError(t, d.stage("t2", s2))
		require.NoError(t, unix.Mount(p, p, "", unix.MS_BIND, ""))
		require.ErrorIs(t, d.f.Activate(t.Context(), "t2", s2.c), ErrLayout, name)
		require.NoError(t, unix.Unmount(p, 0))
		d.revert("t2", s2)
	}

	one := newDevice(t)
	other := t.TempDir()
	mount(t, "tmpfs", other, "tmpfs", 0, "")
	f, err := New(Options{Name: "app", Root: one.root, Spool: filepath.Join(other, "spool")})
	require.NoError(t, err)
	_, err = f.Stage(t.Context(), "t1", s1.c, s1)
	require.ErrorIs(t, err, ErrLayout)
	require.ErrorContains(t, err, "in-place")
}

func TestReadOnlyRoot(t *testing.T) {
	s1, s2 := small(t)
	d := newDevice(t)
	mount(t, "tmpfs", filepath.Dir(d.root), "tmpfs", 0, "")
	d.install("t1", s1)
	require.NoError(t, unix.Mount("", filepath.Dir(d.root), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	require.ErrorIs(t, d.stage("t2", s2), ErrReadOnly)
	d.isWhole(s1)
	require.NoError(t, unix.Mount("", filepath.Dir(d.root), "", unix.MS_REMOUNT, ""))
	require.NoError(t, d.stage("t2", s2))
	require.NoError(t, unix.Mount("", filepath.Dir(d.root), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	require.ErrorIs(t, d.f.Activate(t.Context(), "t2", s2.c), ErrReadOnly)
	d.isWhole(s1)
	require.NoError(t, unix.Mount("", filepath.Dir(d.root), "", unix.MS_REMOUNT, ""))
	require.NoError(t, d.f.Activate(t.Context(), "t2", s2.c))
	d.isWhole(s2)
}

func TestImmutable(t *testing.T) {
	testneeds.Root(t)
	chattr := testneeds.Program(t, "chattr")
	s1, s2 := small(t)
	for _, name := range []string{"", "bin/a", "bin/same", "bin"} {
		d := newDevice(t)
		d.install("t1", s1)
		p := filepath.Join(d.root, name)
		if err := exec.Command(chattr, "+i", p).Run(); err != nil {
			testneeds.Missing(t, "a file system with immutable files")
		}
		t.Cleanup(func() { _ = exec.Command(chattr, "-i", p).Run() })
		require.ErrorIs(t, d.stage("t2", s2), ErrReadOnly, name)
		require.NoError(t, exec.Command(chattr, "-i", p).Run())
		require.NoError(t, d.stage("t2", s2))
	}
}

func TestNoSpace(t *testing.T) {
	s1, s2 := small(t)
	big := strings.Repeat("0123456789abcdef", 1<<16)
	s3 := newShop(t, files(t, t.TempDir(), map[string]string{"big1": big, "big2": big + "x", "bin/a": "3"}))
	d := newDevice(t)
	mount(t, "tmpfs", filepath.Dir(d.root), "tmpfs", 0, "size=1536k")
	d.install("t1", s1)
	before := snapshot(t, d.root)
	require.ErrorIs(t, d.stage("t2", s3), ota.ErrNoSpace)
	same(t, before, snapshot(t, d.root), "nothing was touched")
	require.NoError(t, d.f.Revert(t.Context(), "t2", s3.c))
	d.install("t3", s2)
	d.isWhole(s2)
	need, err := d.f.Budget(t.Context(), s3.c, s3)
	require.NoError(t, err)
	require.Greater(t, need[0].Bytes, int64(2<<20))
}

// TestFullDisk has a disk that is full to the last block after Stage: the
// switch, the way back and the commit need nothing more.
func TestFullDisk(t *testing.T) {
	s1, s2 := small(t)
	for _, commit := range []bool{false, true} {
		d := newDevice(t)
		mount(t, "tmpfs", filepath.Dir(d.root), "tmpfs", 0, "size=1m")
		d.install("t1", s1)
		before := snapshot(t, d.root)
		require.NoError(t, d.stage("t2", s2))
		fill(t, filepath.Dir(d.root))
		require.NoError(t, d.f.Activate(t.Context(), "t2", s2.c))
		d.isWhole(s2)
		if commit {
			require.NoError(t, d.f.Commit(t.Context(), "t2", s2.c))
			d.isWhole(s2)
			continue
		}
		require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c))
		same(t, before, snapshot(t, d.root), "v1")
		d.isWhole(s1)
	}
}

func TestOverlay(t *testing.T) {
	s1, s2 := small(t)
	base := t.TempDir()
	mount(t, "tmpfs", base, "tmpfs", 0, "")
	for _, dir := range []string{"upper", "work", "merged"} {
		require.NoError(t, os.Mkdir(filepath.Join(base, dir), 0o755))
	}
	files(t, filepath.Join(base, "lower"), map[string]string{"srv/app/bin/a": "1", "srv/app/bin/same": "same"})
	merged := filepath.Join(base, "merged")
	mount(t, "overlay", merged, "overlay", 0, fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", base, base, base))
	d := &device{t: t, root: filepath.Join(merged, "srv/app")}
	d.restart()
	err := d.stage("t1", s1)
	require.ErrorIs(t, err, ErrLayout)
	require.ErrorContains(t, err, "lower layer")

	d.root = filepath.Join(merged, "srv/other")
	d.restart()
	d.install("t1", s1)
	d.install("t2", s2)
	d.isWhole(s2)
	d.root = filepath.Join(merged, "srv/byhand")
	d.restart()
	files(t, d.root, map[string]string{"bin/a": "by hand"})
	d.install("t1", s1)
	d.isWhole(s1)
}

// TestAsUser runs the tests of this package as an ordinary user.
func TestAsUser(t *testing.T) {
	testneeds.Root(t)
	self, err := os.Executable()
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "pawl-user-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	data, err := os.ReadFile(self)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "test"), data, 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "tmp"), 0o700))
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.Chown(filepath.Join(dir, "tmp"), 4242, 4242))
	cmd := exec.Command(filepath.Join(dir, "test"), "-test.timeout=120s",
		"-test.run=^(TestUser|TestOnlyChanges|TestFirst|TestSame|TestUnmanaged|TestHostile|TestTrial|TestMend|TestRepair|TestShared|TestXattr|TestReadOnlyFolders)")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TMPDIR="+filepath.Join(dir, "tmp"), "CI=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4242, Gid: 4242}}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}

func TestUserMayNotGiveAway(t *testing.T) {
	if os.Geteuid() == 0 {
		return
	}
	s1, _ := small(t)
	s := newShop(t, files(t, t.TempDir(), map[string]string{"a": "1"}))
	s.setOwner(t, 0)
	d := newDevice(t)
	err := d.stage("t1", s)
	require.ErrorIs(t, err, os.ErrPermission)
	require.ErrorContains(t, err, "IgnoreOwner")
	d.f.opts.IgnoreOwner = true
	d.install("t2", s)
	found, err := d.f.Verify(t.Context(), s.c, s)
	require.NoError(t, err)
	require.Empty(t, found)
	d.install("t3", s1)
}

func TestUserCannotMoveInReadOnlyFolders(t *testing.T) {
	if os.Geteuid() == 0 {
		return
	}
	v := files(t, t.TempDir(), map[string]string{"var/x": "1"})
	require.NoError(t, os.Chmod(filepath.Join(v, "var"), 0o555))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(v, "var"), 0o755) })
	s := newShop(t, v, "var/data")
	d := newDevice(t)
	require.ErrorIs(t, d.stage("t1", s), ErrReadOnly)
}

// TestReadOnlyFolders has folders that even their owner may not write to.
func TestReadOnlyFolders(t *testing.T) {
	var shops []*shop
	for _, data := range []string{"1", "2"} {
		v := files(t, t.TempDir(), map[string]string{"ro/deep/x": data, "ro/y": "same"})
		for _, p := range []string{"ro/deep", "ro"} {
			require.NoError(t, os.Chmod(filepath.Join(v, p), 0o555))
			t.Cleanup(func() { _ = os.Chmod(filepath.Join(v, p), 0o755) })
		}
		shops = append(shops, newShop(t, v))
	}
	d := newDevice(t)
	t.Cleanup(func() { _ = exec.Command("chmod", "-R", "u+w", filepath.Dir(d.root)).Run() })
	d.install("t1", shops[0])
	want := snapshot(t, d.root)
	require.NoError(t, d.stage("t2", shops[1]))
	require.NoError(t, d.stage("t2", shops[1]))
	require.NoError(t, d.f.Activate(t.Context(), "t2", shops[1].c))
	require.NoError(t, d.f.Revert(t.Context(), "t2", shops[1].c))
	same(t, want, snapshot(t, d.root), "as before")
	d.install("t3", shops[1])
	require.NoError(t, d.f.Prune(t.Context(), "app", nil, nil))
	require.Empty(t, listed(t, d.f.path(dirKept)))
}
