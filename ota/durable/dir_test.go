package durable

import (
	"context"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := OpenDir(path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

func TestDir(t *testing.T) {
	path := t.TempDir() + "/var/lib/state"
	d := open(t, path)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.ModeDir|0o700, info.Mode())

	_, err = d.ReadFile("journal", 10)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, d.WriteFile("journal", []byte("one")))
	require.NoError(t, d.WriteFile("journal", []byte("two")))
	require.NoError(t, d.WriteFile("blobs/x", []byte("three")))
	got, err := d.ReadFile("journal", 3)
	require.NoError(t, err)
	require.Equal(t, "two", string(got))
	size, err := d.Size("blobs/x")
	require.NoError(t, err)
	require.EqualValues(t, 5, size)
	info, err = os.Stat(path + "/journal")
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())

	require.Equal(t, []string{"blobs", "journal"}, list(t, d, ""))
	require.Equal(t, []string{"x"}, list(t, d, "blobs"))
	require.Empty(t, list(t, d, "missing"))

	require.NoError(t, d.Remove("blobs/x"))
	require.NoError(t, d.Remove("blobs/x"))
	require.NoError(t, d.Remove("missing/x"))
	require.NoError(t, d.RemoveEach("missing", []string{"x"}))
	_, err = d.Size("blobs/x")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = d.Open("blobs/x")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestDirReadsNoMoreThanMax(t *testing.T) {
	d := open(t, t.TempDir()+"/state")
	require.NoError(t, d.WriteFile("a", []byte("1234")))
	_, err := d.ReadFile("a", 3)
	require.ErrorContains(t, err, "4 bytes")
}

func TestDirCreate(t *testing.T) {
	d := open(t, t.TempDir()+"/state")
	for _, name := range []string{"committed", "blobs/placed", "aborted", "dropped"} {
		f, err := d.Create(name)
		require.NoError(t, err)
		_, err = io.WriteString(f, name)
		require.NoError(t, err)
		_, err = d.Size(name)
		require.ErrorIs(t, err, fs.ErrNotExist, "no name before the end")
		switch name {
		case "committed":
			require.NoError(t, f.Commit())
		case "blobs/placed":
			require.NoError(t, f.Place())
			require.NoError(t, d.Sync())
		case "aborted":
			require.NoError(t, f.Abort())
			require.ErrorIs(t, f.Commit(), os.ErrClosed)
		}
		require.NoError(t, f.Abort(), "no effect after an end")
	}
	require.Equal(t, []string{"blobs", "committed"}, list(t, d, "."))
	r, err := d.Open("blobs/placed")
	require.NoError(t, err)
	data, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.Equal(t, "blobs/placed", string(data))
}

func TestDirNames(t *testing.T) {
	d := open(t, t.TempDir()+"/state")
	for _, name := range []string{
		"", ".", "..", "/", "a/", "/a", "../a", "a/..", "a/../b", "a//b", "a/b/c", ".hidden", "a/.hidden",
		reserveName, tempPrefix + "1", "a\x00b", `a\b`, strings.Repeat("n", 256),
	} {
		_, err := d.ReadFile(name, 10)
		require.ErrorIs(t, err, ErrName, "ReadFile %q", name)
		_, err = d.Create(name)
		require.ErrorIs(t, err, ErrName, "Create %q", name)
		_, err = d.Open(name)
		require.ErrorIs(t, err, ErrName, "Open %q", name)
		_, err = d.Size(name)
		require.ErrorIs(t, err, ErrName, "Size %q", name)
		require.ErrorIs(t, d.WriteFile(name, nil), ErrName, "WriteFile %q", name)
		require.ErrorIs(t, d.Remove(name), ErrName, "Remove %q", name)
		require.ErrorIs(t, d.RemoveEach("blobs", []string{"x", name + "/"}), ErrName, "RemoveEach %q", name)
	}
}

// TestDirStaysInside: neither a link at the end of a name nor one on the way
// is followed out of the folder, and nothing but a regular file is read.
func TestDirStaysInside(t *testing.T) {
	outside, path := t.TempDir(), t.TempDir()+"/state"
	require.NoError(t, os.WriteFile(outside+"/victim", []byte("untouched"), 0o600))
	d := open(t, path)
	require.NoError(t, os.Symlink(outside, path+"/blobs"))
	require.NoError(t, os.Symlink(outside+"/victim", path+"/journal"))
	require.NoError(t, os.Symlink("real", path+"/alias"))
	require.NoError(t, d.WriteFile("real", []byte("real")))
	require.NoError(t, syscall.Mkfifo(path+"/pipe", 0o600))
	require.NoError(t, os.Mkdir(path+"/folder", 0o700))

	for _, name := range []string{"blobs/victim", "journal", "alias", "pipe", "folder"} {
		_, err := d.ReadFile(name, 100)
		require.Error(t, err, name)
	}
	require.Error(t, d.WriteFile("blobs/victim", []byte("changed")))
	require.Error(t, d.WriteFile("blobs/new", []byte("changed")))
	require.Error(t, d.Remove("blobs/victim"))
	require.Error(t, d.RemoveEach("blobs", []string{"victim"}))
	_, err := d.Create("blobs/new")
	require.Error(t, err)
	_, err = d.List("blobs")
	require.Error(t, err)
	_, err = d.Size("journal")
	require.ErrorIs(t, err, ErrName)

	require.NoError(t, d.WriteFile("journal", []byte("mine")), "a link in the way is replaced")
	require.Equal(t, "untouched", read(t, outside+"/victim"))
	names, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Len(t, names, 1)
}

// TestSweep: garbage of a killed process goes when the lock is held, and not
// before, because it may be another process's work.
func TestSweep(t *testing.T) {
	path := t.TempDir() + "/state"
	d := open(t, path)
	f, err := d.Create("blobs/x")
	require.NoError(t, err)
	_, err = d.Create("journal")
	require.NoError(t, err)
	require.NoError(t, d.WriteFile("blobs/kept", nil))
	require.NoError(t, os.WriteFile(path+"/foreign", nil, 0o600))
	require.Len(t, leftovers(t, path), 2)

	again := open(t, path)
	require.Len(t, leftovers(t, path), 2)
	unlock, err := again.Lock(context.Background(), 0)
	require.NoError(t, err)
	require.Empty(t, leftovers(t, path))
	require.Equal(t, []string{"blobs", "foreign", "lock"}, list(t, again, ""))
	require.Equal(t, []string{"kept"}, list(t, again, "blobs"))
	require.NoError(t, unlock())
	require.Error(t, f.Commit(), "what was swept cannot be committed")
}

func list(t *testing.T, d *Dir, folder string) []string {
	t.Helper()
	names, err := d.List(folder)
	require.NoError(t, err)
	return names
}
