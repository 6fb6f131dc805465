package durable

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func renameNew(oldpath, newpath string) error {
	return renameNewAt(unix.AT_FDCWD, oldpath, unix.AT_FDCWD, newpath)
}

// renameNewAt finishes a move that a power cut halved: btrfs can come up with
// the file under both names, when only the new folder had been synced.
func renameNewAt(oldDir int, oldName string, newDir int, newName string) error {
	err := unix.Renameat2(oldDir, oldName, newDir, newName, unix.RENAME_NOREPLACE)
	if err != unix.EEXIST {
		return err
	}
	var from, to unix.Stat_t
	if unix.Fstatat(oldDir, oldName, &from, unix.AT_SYMLINK_NOFOLLOW) != nil || unix.Fstatat(newDir, newName, &to, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return err
	}
	// One name, however it is spelt, has one link.
	if from.Dev != to.Dev || from.Ino != to.Ino || from.Nlink < 2 || from.Mode&unix.S_IFMT == unix.S_IFDIR {
		return err
	}
	return unix.Unlinkat(oldDir, oldName, 0)
}

func exchange(a, b string) error {
	return noExchange(unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE))
}

// noExchange tells the answers of a kernel or a file system that cannot from
// all others.
func noExchange(err error) error {
	for _, cannot := range []error{unix.ENOSYS, unix.EINVAL, unix.EXDEV, unix.EBUSY, unix.EOPNOTSUPP} {
		if errors.Is(err, cannot) {
			return fmt.Errorf("%w: %w", ErrNoExchange, err)
		}
	}
	return err
}

func syncfs(f *os.File) error { return unix.Syncfs(int(f.Fd())) }

// allocate gives f blocks of its own, so that removing it makes room.
func allocate(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return fill(f, size)
	}
	return err
}

func flock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
