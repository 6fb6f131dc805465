package durable

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func renameNew(oldpath, newpath string) error {
	return unix.RenamexNp(oldpath, newpath, unix.RENAME_EXCL)
}

func exchange(a, b string) error {
	err := unix.RenamexNp(a, b, unix.RENAME_SWAP)
	for _, cannot := range []error{unix.ENOTSUP, unix.EINVAL, unix.EXDEV, unix.EBUSY} {
		if errors.Is(err, cannot) {
			return fmt.Errorf("%w: %w", ErrNoExchange, err)
		}
	}
	return err
}

func syncfs(*os.File) error { return syscall.ENOSYS }

func allocate(f *os.File, size int64) error { return fill(f, size) }

func flock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
