package durable

import (
	"context"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/testneeds"
)

// small mounts a file system of the given options for the test.
func small(t *testing.T, options string) string {
	t.Helper()
	testneeds.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		testneeds.Missing(t, "the right to mount")
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// fillUp takes the room that is left, down to the last page.
func fillUp(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	for page := make([]byte, 4096); err == nil; {
		_, err = f.Write(page)
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, f.Close())
}

// TestFullDisk: state can be written on a full disk, again and again, and
// nothing else can use what is set aside for it.
func TestFullDisk(t *testing.T) {
	disk := small(t, "size=512k,mode=0755")
	d := open(t, disk+"/state")
	require.NoError(t, d.WriteFile("journal", make([]byte, 4096)))
	unlock, err := d.Lock(context.Background(), 0)
	require.NoError(t, err)
	require.FileExists(t, disk+"/state/"+reserveName)
	fillUp(t, disk+"/app-data")

	require.ErrorIs(t, WriteFile(disk+"/state/other", make([]byte, 4096), 0o600), syscall.ENOSPC)
	for i := range 20 {
		require.NoError(t, d.WriteFile("journal", []byte{byte(i)}), "write %d", i)
		got, err := d.ReadFile("journal", 10)
		require.NoError(t, err)
		require.Equal(t, []byte{byte(i)}, got)
	}
	require.NoError(t, os.Remove(disk+"/app-data"))
	require.NoError(t, d.WriteFile("journal", nil))
	info, err := os.Stat(disk + "/state/" + reserveName)
	require.NoError(t, err)
	require.EqualValues(t, reserveSize, info.Size())
	require.NoError(t, unlock())
}

// TestFullDiskTooLarge: what is larger than the reserve is refused, and the
// old content stays.
func TestFullDiskTooLarge(t *testing.T) {
	disk := small(t, "size=512k,mode=0755")
	d := open(t, disk+"/state")
	unlock, err := d.Lock(context.Background(), 0)
	require.NoError(t, err)
	require.NoError(t, d.WriteFile("journal", []byte("old")))
	fillUp(t, disk+"/app-data")
	require.ErrorIs(t, d.WriteFile("journal", make([]byte, 2*reserveSize)), syscall.ENOSPC)
	require.Equal(t, "old", read(t, disk+"/state/journal"))
	require.Empty(t, leftovers(t, disk))
	require.NoError(t, unlock())
}

// TestNoInodes: a disk can be full of files, too.
func TestNoInodes(t *testing.T) {
	disk := small(t, "nr_inodes=12,mode=0755")
	d := open(t, disk+"/state")
	unlock, err := d.Lock(context.Background(), 0)
	require.NoError(t, err)
	require.NoError(t, d.WriteFile("journal", []byte("old")))
	for i := 0; err == nil; i++ {
		err = os.WriteFile(disk+"/app"+string(rune('a'+i)), nil, 0o600)
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, d.WriteFile("journal", []byte("new")))
	require.Equal(t, "new", read(t, disk+"/state/journal"))
	require.NoError(t, unlock())
}

// TestReadOnly: the state can be read where nothing can be written.
func TestReadOnly(t *testing.T) {
	disk := small(t, "size=512k,mode=0755")
	d := open(t, disk+"/state")
	require.NoError(t, d.WriteFile("journal", []byte("old")))
	require.NoError(t, unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	again := open(t, disk+"/state")
	got, err := again.ReadFile("journal", 10)
	require.NoError(t, err)
	require.Equal(t, "old", string(got))
	require.ErrorIs(t, again.WriteFile("journal", nil), syscall.EROFS)
	_, err = again.Lock(context.Background(), 0)
	require.ErrorIs(t, err, syscall.EROFS)
}

// TestOtherFileSystem: what needs one file system says so.
func TestOtherFileSystem(t *testing.T) {
	disk, dir := small(t, "size=512k"), folder(t)
	require.NoError(t, os.WriteFile(disk+"/a", nil, 0o600))
	require.ErrorIs(t, Exchange(dir+"/a", disk+"/a"), ErrNoExchange)
	require.ErrorIs(t, Rename(dir+"/a", disk+"/a"), syscall.EXDEV)
	require.ErrorIs(t, Exchange(dir+"/a", disk), ErrNoExchange, "a mount point")
	require.ErrorIs(t, Durable(disk+"/a"), ErrVolatile)
}
