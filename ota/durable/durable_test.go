package durable

import (
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWriteFile(t *testing.T) {
	dir := folder(t)
	umask := syscall.Umask(0o077)
	t.Cleanup(func() { syscall.Umask(umask) })
	require.NoError(t, os.Symlink("b", dir+"/link"))
	for name, perm := range map[string]os.FileMode{"new": 0o755, "a": 0o640, "link": 0o444} {
		require.NoError(t, WriteFile(dir+"/"+name, []byte("content of "+name), perm))
		info, err := os.Lstat(dir + "/" + name)
		require.NoError(t, err)
		require.Equal(t, perm, info.Mode(), "mode of %s, umask or not", name)
		require.Equal(t, "content of "+name, read(t, dir+"/"+name))
	}
	require.Equal(t, "b", read(t, dir+"/b"), "a link is replaced, not followed")
	require.Empty(t, leftovers(t, dir))
}

func TestWriteFileCannot(t *testing.T) {
	dir := folder(t)
	require.ErrorIs(t, WriteFile(dir+"/missing/a", nil, 0o600), fs.ErrNotExist)
	require.Error(t, WriteFile(dir+"/dir", nil, 0o600), "a folder has the name")
	require.Empty(t, leftovers(t, dir))
}

// TestWriteFileKeepsOpenFile: who reads the old file keeps reading it.
func TestWriteFileKeepsOpenFile(t *testing.T) {
	dir := folder(t)
	f, err := os.Open(dir + "/a")
	require.NoError(t, err)
	require.NoError(t, WriteFile(dir+"/a", []byte("new content"), 0o600))
	b := make([]byte, 16)
	n, err := f.Read(b)
	require.NoError(t, err)
	require.Equal(t, "a", string(b[:n]))
	require.NoError(t, f.Close())
}

func TestRename(t *testing.T) {
	dir := folder(t)
	require.NoError(t, Rename(dir+"/a", dir+"/b"))
	require.Equal(t, "a", read(t, dir+"/b"))
	require.ErrorIs(t, Rename(dir+"/a", dir+"/b"), fs.ErrNotExist)
	require.ErrorIs(t, RenameNew(dir+"/b", dir+"/dir"), fs.ErrExist)
	require.NoError(t, RenameNew(dir+"/b", dir+"/dir/c"))
	require.Equal(t, "a", read(t, dir+"/dir/c"))
}

func TestExchange(t *testing.T) {
	dir := folder(t)
	require.NoError(t, Exchange(dir+"/a", dir+"/b"))
	require.Equal(t, "b", read(t, dir+"/a"))
	require.Equal(t, "a", read(t, dir+"/b"))
	require.NoError(t, os.WriteFile(dir+"/full/x", nil, 0o600))
	require.NoError(t, Exchange(dir+"/full", dir+"/dir"))
	require.FileExists(t, dir+"/dir/x")
	require.ErrorIs(t, Exchange(dir+"/a", dir+"/missing"), fs.ErrNotExist)
	require.NotErrorIs(t, Exchange(dir+"/a", dir+"/missing"), ErrNoExchange)
}

// TestNoExchange: a folder and one inside it, and whatever a kernel without
// the call answers, are told apart from other errors.
func TestNoExchange(t *testing.T) {
	dir := folder(t)
	err := Exchange(dir+"/full", dir+"/full/below")
	require.ErrorIs(t, err, ErrNoExchange)
	require.ErrorIs(t, err, syscall.EINVAL)
}

func TestFolders(t *testing.T) {
	dir := folder(t)
	require.NoError(t, MkdirAll(dir+"/x/y/z", 0o700))
	require.NoError(t, MkdirAll(dir+"/x/y/z/", 0o700))
	require.DirExists(t, dir+"/x/y/z")
	require.ErrorIs(t, MkdirAll(dir+"/a", 0o700), syscall.ENOTDIR)
	require.ErrorIs(t, MkdirAll(dir+"/a/b", 0o700), syscall.ENOTDIR)
	require.ErrorIs(t, Mkdir(dir+"/x", 0o700), fs.ErrExist)
	require.Error(t, Remove(dir+"/x"), "it is not empty")
	require.NoError(t, RemoveAll(dir+"/x"))
	require.NoError(t, RemoveAll(dir+"/x"))
	require.NoError(t, RemoveAll(dir+"/x/y/z"), "nothing above it is there either")
	require.NoError(t, Remove(dir+"/x/y"))
	require.NoDirExists(t, dir+"/x")
}

func TestSyncCannot(t *testing.T) {
	dir := folder(t)
	for _, sync := range []func(string) error{SyncFile, SyncDir, SyncTree} {
		err := sync(dir + "/missing")
		require.ErrorIs(t, err, ErrSync)
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(data)
}
