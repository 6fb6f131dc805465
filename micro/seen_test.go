//go:build linux

package micro

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/micro/internal/at"
)

// sameInode has the kernel say of the inode of p what it says now, but for what
// the test changes in it.
func sameInode(t *testing.T, p string, change func(*seam.Ident)) {
	t.Helper()
	info, err := at.Lstat(p)
	require.NoError(t, err)
	hook := func(id *seam.Ident) {
		if id.Ino == info.Ino {
			*id = seam.Ident{Ino: info.Ino, Birth: info.Birth, Ctime: info.Ctime}
			change(id)
		}
	}
	seam.Inode.Store(&hook)
	t.Cleanup(func() { seam.Inode.Store(nil) })
}

// writeUnseen writes to a file and sets back its time.
func writeUnseen(t *testing.T, p, data string) {
	t.Helper()
	info, err := os.Stat(p)
	require.NoError(t, err)
	write(t, p, data)
	require.NoError(t, os.Chtimes(p, time.Time{}, info.ModTime()))
}

// TestSeenFileIsNotRead has a file be changed so that nothing shows it: it is
// shared without a look at its content, and Verify finds it.
func TestSeenFileIsNotRead(t *testing.T) {
	s1, s2 := small(t)
	d := newDevice(t)
	d.install("t1", s1)
	p := filepath.Join(d.root, "bin/same")
	sameInode(t, p, func(*seam.Ident) {})
	writeUnseen(t, p, "evil")
	d.restart()
	require.NoError(t, d.stage("t2", s2))
	got := filepath.Join(d.f.treePath("t2"), "bin/same")
	linked(t, p, got)
	data, err := os.ReadFile(got)
	require.NoError(t, err)
	require.Equal(t, "evil", string(data), "nobody read it")
	require.NoError(t, d.f.Activate(t.Context(), "t2", s2.c))
	found, err := d.f.Verify(t.Context(), s2.c, s2)
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Equal(t, "bin/same", found[0].Path)
}

// TestWhatShowsIsRead has a file be changed in ways that show: what is staged is
// right.
func TestWhatShowsIsRead(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, d *device, p string){
		"by its time of change": func(t *testing.T, _ *device, p string) { writeUnseen(t, p, "evil") },
		"by its time": func(t *testing.T, _ *device, p string) {
			sameInode(t, p, func(*seam.Ident) {})
			write(t, p, "evil")
		},
		"by its inode": func(t *testing.T, _ *device, p string) {
			sameInode(t, p, func(id *seam.Ident) { id.Ino++ })
			writeUnseen(t, p, "evil")
		},
		"while it is shared": func(t *testing.T, d *device, p string) {
			d.f.before = func(op, path string) error {
				if op == "link" && filepath.Base(path) == "same" {
					d.f.before = nil
					write(t, p, "evil")
				}
				return nil
			}
		},
		"by nothing that is known": func(t *testing.T, d *device, p string) {
			sameInode(t, p, func(*seam.Ident) {})
			writeUnseen(t, p, "evil")
			for _, name := range seenOf(t, d) {
				require.NoError(t, os.Truncate(d.f.path(dirIndex, name), 9))
			}
		},
		"by an attribute": func(t *testing.T, _ *device, p string) {
			if err := unix.Setxattr(p, "user.x", []byte("x"), 0); err != nil {
				t.Log(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s1, s2 := small(t)
			d := newDevice(t)
			d.install("t1", s1)
			change(t, d, filepath.Join(d.root, "bin/same"))
			require.NoError(t, d.stage("t2", s2))
			got := filepath.Join(d.f.treePath("t2"), "bin/same")
			data, err := os.ReadFile(got)
			require.NoError(t, err)
			require.Equal(t, "same", string(data))
			_, err = unix.Getxattr(got, "user.x", nil)
			require.Error(t, err)
		})
	}
}

// TestSeenIsOfWhatIsThere has what is known of trees go with them.
func TestSeenIsOfWhatIsThere(t *testing.T) {
	s1, s2 := small(t)
	d := newDevice(t)
	d.install("t1", s1)
	d.install("t2", s2)
	one, two := s1.c.Digest().String()+seenSuffix, s2.c.Digest().String()+seenSuffix
	require.ElementsMatch(t, []string{one, two}, seenOf(t, d))
	require.NoError(t, d.f.Prune(t.Context(), "app", nil, nil))
	require.Equal(t, []string{two}, seenOf(t, d))
}

// seenOf returns the files that say what the files of trees were.
func seenOf(t *testing.T, d *device) []string {
	t.Helper()
	return slices.DeleteFunc(listed(t, d.f.path(dirIndex)), func(n string) bool { return !strings.HasSuffix(n, seenSuffix) })
}

// indexesOf returns the other files of that folder.
func indexesOf(t testing.TB, dir string) []string {
	t.Helper()
	return slices.DeleteFunc(listed(t, dir), func(n string) bool { return strings.HasSuffix(n, seenSuffix) })
}

// TestSeenFileOfAnotherMode has the next release give a file that did not change
// another mode.
func TestSeenFileOfAnotherMode(t *testing.T) {
	s1, _ := small(t)
	v2 := files(t, t.TempDir(), map[string]string{"bin/a": "2", "bin/same": "same"})
	require.NoError(t, os.Chmod(filepath.Join(v2, "bin/same"), 0o750))
	s2 := newShop(t, v2)
	d := newDevice(t)
	d.install("t1", s1)
	want := snapshot(t, d.root)
	d.activate("t2", s2)
	same(t, snapshot(t, v2), snapshot(t, d.root), "as the release says")
	d.revert("t2", s2)
	same(t, want, snapshot(t, d.root), "and back")
}

// TestWhatIsNotTrusted has records of looks after which a write need not show.
func TestWhatIsNotTrusted(t *testing.T) {
	now := time.Now()
	at := func(d time.Duration) int64 { return now.Add(d).UnixNano() }
	for name, c := range map[string]struct {
		s    shared
		want bool
	}{
		"its own":                   {shared{Own: true, Mtime: at(-time.Hour), Ctime: at(-time.Hour)}, true},
		"shared, written long ago":  {shared{Mtime: at(-time.Hour), Ctime: at(-time.Minute)}, true},
		"shared, just written":      {shared{Mtime: at(-time.Minute), Ctime: at(-time.Minute)}, false},
		"shared, written later":     {shared{Mtime: at(-time.Second), Ctime: at(-time.Minute)}, false},
		"its own, of another clock": {shared{Own: true, Mtime: at(-time.Hour), Ctime: at(time.Second)}, false},
		"shared, of another clock":  {shared{Mtime: at(-time.Hour), Ctime: at(time.Minute)}, false},
	} {
		require.Equal(t, c.want, c.s.trusted(now), name)
	}
}

// TestSwitchWaitsForTheClock has a tree be switched to at once: a write after that
// cannot have the time of a look.
func TestSwitchWaitsForTheClock(t *testing.T) {
	_, s2 := small(t)
	d := newDevice(t)
	require.NoError(t, d.stage("t1", s2))
	log := d.f.txPath("t1", "shared")
	now := time.Now()
	require.NoError(t, os.Chtimes(log, now, now))
	require.NoError(t, d.f.Activate(t.Context(), "t1", s2.c))
	require.GreaterOrEqual(t, time.Since(now), oneTick)
	info, err := at.Lstat(filepath.Join(d.root, "bin/same"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(d.root, "bin/same"), []byte("evil"), 0o644))
	after, err := at.Lstat(filepath.Join(d.root, "bin/same"))
	require.NoError(t, err)
	require.NotEqual(t, info.Mtime, after.Mtime)
}

// TestWrittenRightAfterTheLook has the kernel's clock stand still from the look at
// a shared file on, through a write to it of the same length.
func TestWrittenRightAfterTheLook(t *testing.T) {
	s1, s2 := small(t)
	s3 := newShop(t, files(t, t.TempDir(), map[string]string{"bin/a": "3", "bin/same": "same"}))
	d := newDevice(t)
	d.install("t1", s1)
	p := filepath.Join(d.root, "bin/same")
	then := time.Now()
	require.NoError(t, os.Chtimes(p, then, then))
	d.install("t2", s2)
	sameInode(t, p, func(*seam.Ident) {})
	write(t, p, "evil")
	require.NoError(t, os.Chtimes(p, then, then))
	require.NoError(t, d.stage("t3", s3))
	data, err := os.ReadFile(filepath.Join(d.f.treePath("t3"), "bin/same"))
	require.NoError(t, err)
	require.Equal(t, "same", string(data))
}
