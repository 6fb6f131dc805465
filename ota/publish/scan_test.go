package publish

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/ota/release"
)

func scan(t *testing.T, dir string, o ScanOptions) *release.Index {
	ix, err := Scan(t.Context(), dir, o)
	require.NoError(t, err)
	return ix
}

func TestScan(t *testing.T) {
	dir := tree{"bin/app": "app", "-first": "x", "bin-old": "y", "empty/": ""}.write(t)
	require.NoError(t, os.Link(filepath.Join(dir, "bin/app"), filepath.Join(dir, "hard")))
	require.NoError(t, os.Symlink("/outside/../x", filepath.Join(dir, "link")))
	require.NoError(t, os.Chmod(filepath.Join(dir, "bin/app"), 0o4711|os.ModeSetuid))
	require.NoError(t, os.Chmod(filepath.Join(dir, "empty"), 0o700|os.ModeSticky))
	require.NoError(t, os.Chmod(dir, 0o750))
	var progress int64
	ix := scan(t, dir, ScanOptions{Carry: []string{"bin/data"}, Progress: func(_ string, done int64) { progress = done }})
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	for i := range ix.Entries {
		if e := &ix.Entries[i]; e.Type != release.Carry {
			require.Equal(t, []uint32{uid, gid}, []uint32{e.UID, e.GID})
			e.UID, e.GID = 0, 0
		}
	}
	app := release.Blob{Digest: release.Sum([]byte("app")), Size: 3}
	require.Equal(t, []release.Entry{
		{Path: ".", Type: release.Dir, Mode: 0o750},
		{Path: "-first", Type: release.File, Mode: 0o644, Blob: release.Blob{Digest: release.Sum([]byte("x")), Size: 1}},
		{Path: "bin", Type: release.Dir, Mode: 0o755},
		{Path: "bin-old", Type: release.File, Mode: 0o644, Blob: release.Blob{Digest: release.Sum([]byte("y")), Size: 1}},
		{Path: "bin/app", Type: release.File, Mode: 0o4711, Blob: app},
		{Path: "bin/data", Type: release.Carry},
		{Path: "empty", Type: release.Dir, Mode: 0o1700},
		{Path: "hard", Type: release.File, Mode: 0o4711, Blob: app},
		{Path: "link", Type: release.Symlink, Mode: 0o777, Target: "/outside/../x"},
	}, ix.Entries)
	require.Equal(t, int64(5), progress, "a hard link is read once")
	ix = scan(t, dir, ScanOptions{Owner: &Owner{UID: 7, GID: 8}})
	require.Equal(t, uint32(7), ix.Entries[3].UID)
	require.Equal(t, uint32(8), ix.Entries[3].GID)
}

func TestScanPartial(t *testing.T) {
	dir := tree{"etc/conf": "c", "usr/bin/app": "app", "var/lib/app/": ""}.write(t)
	ix := scan(t, dir, ScanOptions{Partial: true, Absent: []string{"etc/old", "usr/share/old"}})
	var got []string
	for _, e := range ix.Entries {
		got = append(got, string(e.Type)+" "+e.Path)
	}
	require.Equal(t, []string{"f etc/conf", "a etc/old", "f usr/bin/app", "a usr/share/old", "d var/lib/app"}, got)
	ix = scan(t, dir, ScanOptions{Absent: []string{"etc/old"}})
	require.Len(t, ix.Entries, 10)
}

func TestScanXattrs(t *testing.T) {
	dir := tree{"a": "a"}.write(t)
	path := filepath.Join(dir, "a")
	if err := unix.Setxattr(path, "user.b", []byte("two"), 0); err != nil {
		testneeds.Missing(t, "a file system with extended attributes: "+err.Error())
	}
	require.NoError(t, unix.Setxattr(path, "user.a", nil, 0))
	require.NoError(t, unix.Setxattr(dir, "user.dir", []byte{0, 255}, 0))
	ix := scan(t, dir, ScanOptions{})
	require.Equal(t, []release.Xattr{{Name: "user.dir", Value: []byte{0, 255}}}, ix.Entries[0].Xattrs)
	require.Equal(t, []release.Xattr{{Name: "user.a"}, {Name: "user.b", Value: []byte("two")}}, ix.Entries[1].Xattrs)
}

func TestTakenXattrs(t *testing.T) {
	require.True(t, taken("security.capability", false))
	require.True(t, taken("system.posix_acl_access", false))
	require.False(t, taken("security.selinux", false))
	require.True(t, taken("security.selinux", true))
	require.False(t, taken("trusted.overlay.opaque", true))
	require.False(t, taken("com.apple.quarantine", true))
	require.False(t, taken("", true))
}

func TestScanRefuses(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"socket": listen,
		"name\xff": func(path string) error {
			return os.WriteFile(path, nil, 0o600)
		},
		"dir\xff": func(path string) error { return os.Mkdir(path, 0o700) },
		"target":  func(path string) error { return os.Symlink("\xff", path) },
	} {
		if runtime.GOOS != "linux" && name[len(name)-1] == 0xff {
			continue // such names cannot be made there
		}
		dir := tree{"sub/": ""}.write(t)
		require.NoError(t, make(filepath.Join(dir, "sub", name)), name)
		_, err := Scan(t.Context(), dir, ScanOptions{})
		require.ErrorIs(t, err, ErrSpecial, name)
		require.ErrorContains(t, err, "sub", "the path is named")
	}
	_, err := Scan(t.Context(), filepath.Join(t.TempDir(), "none"), ScanOptions{})
	require.ErrorIs(t, err, os.ErrNotExist)
	file := filepath.Join(tree{"f": ""}.write(t), "f")
	_, err = Scan(t.Context(), file, ScanOptions{})
	require.Error(t, err)
}

func listen(path string) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	return l.Close()
}

// TestChangedWhileRead changes a file between the scan and the packing.
func TestChangedWhileRead(t *testing.T) {
	f := newFixture(t)
	dir := tree{"a": "one", "b": "b"}.write(t)
	f.open(t, func(what string) error {
		if what == "after shelf" {
			return os.WriteFile(filepath.Join(dir, "a"), []byte("two"), 0o644)
		}
		return nil
	})
	_, err := f.Release(t.Context(), spec("1", dir))
	require.ErrorIs(t, err, ErrChanged)
	require.ErrorContains(t, err, `"a"`)
	f.open(t, nil)
	_, err = f.Release(t.Context(), spec("1", dir))
	require.NoError(t, err)
}

// TestWhatIsOpened: a pipe or another file in the place of one that was scanned
// is not read.
func TestWhatIsOpened(t *testing.T) {
	dir := tree{"a": "a", "b": "b"}.write(t)
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	info, err := root.Lstat("a")
	require.NoError(t, err)
	require.NoError(t, os.Rename(filepath.Join(dir, "b"), filepath.Join(dir, "a")))
	_, err = openRegular(root, "a", info)
	require.ErrorIs(t, err, ErrChanged)
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	_, err = openRegular(root, "pipe", nil)
	require.ErrorIs(t, err, ErrChanged)
}
