package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ErrInsecure is returned by [OpenDir] for a folder that a user other than
// this process's and root could change, directly or by renaming a folder above
// it. What is in it would be obeyed, so it has to be this program's own.
var ErrInsecure = errors.New("another user could change the folder")

// overflowUID is what the kernel shows for owners that a container does not
// know, such as that of its own root folder.
const overflowUID = 65534

// checkOwner checks the opened folder, and all folders above it by both of
// its names: with the symbolic links in path, and without.
func checkOwner(root *os.Root, path string) error {
	info, err := root.Stat(".")
	if err != nil {
		return fmt.Errorf("cannot look at %s: %w", path, err)
	}
	if uid := owner(info); uid != os.Geteuid() {
		return fmt.Errorf("%w: %s belongs to user %d; it has to belong to user %d", ErrInsecure, path, uid, os.Geteuid())
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Errorf("%w: %s has mode %04o; chmod go-w makes it safe", ErrInsecure, path, perm)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("cannot look at %s: %w", path, err)
	}
	return errors.Join(checkAbove(path), checkAbove(real))
}

func checkAbove(path string) error {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("cannot look at %s: %w", dir, err)
		}
		if err := checkOne(dir, info); err != nil {
			return err
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// checkOne takes a folder in which only its owner can rename what is ours.
func checkOne(dir string, info fs.FileInfo) error {
	if info.Mode()&fs.ModeSticky != 0 {
		return nil
	}
	if info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("%w: %s, a folder above it, can be written by everybody", ErrInsecure, dir)
	}
	if uid := owner(info); uid != 0 && uid != os.Geteuid() && uid != overflowUID {
		return fmt.Errorf("%w: %s, a folder above it, belongs to user %d", ErrInsecure, dir, uid)
	}
	return nil
}

func owner(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}
