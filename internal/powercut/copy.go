package powercut

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/powercut/firmware"
	"github.com/pawl-ota/pawl/internal/seam"
)

// copier copies a folder with modes, times, symbolic links, hard links and
// the one extended attribute of the campaigns. Owners are those of the process.
type copier struct {
	linked map[uint64]string // files that have more than one name
	dirs   []func() error    // what is left to do for folders, after their content
	pairs  [][2]string       // what was copied, and the copy
}

// copyTree copies the folder from to the path to, which must not be there.
func copyTree(from, to string) (*copier, error) {
	c := &copier{linked: map[uint64]string{}}
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		c.pairs = append(c.pairs, [2]string{path, filepath.Join(to, rel)})
		return c.one(path, filepath.Join(to, rel))
	})
	for i := len(c.dirs) - 1; i >= 0 && err == nil; i-- {
		err = c.dirs[i]()
	}
	return c, err
}

// copyDevice is copyTree of a device, which then knows its files again.
func copyDevice(from, to string) error {
	known, err := firmware.ReadInodes(from)
	if err != nil {
		return err
	}
	c, err := copyTree(from, to)
	if err != nil {
		return err
	}
	was := firmware.Inodes{}
	for _, pair := range c.pairs {
		had, err1 := Ident(pair[0])
		has, err2 := Ident(pair[1])
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		was[has.Ino] = firmware.Was{Ident: known.See(had), Copied: has.Ctime}
	}
	return firmware.WriteInodes(to, was)
}

// Ident returns what the kernel knows the inode at path by.
func Ident(path string) (seam.Ident, error) {
	var sx unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &sx)
	if err != nil {
		return seam.Ident{}, &fs.PathError{Op: "statx", Path: path, Err: err}
	}
	nanos := func(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }
	return seam.Ident{Ino: sx.Ino, Birth: nanos(sx.Btime), Ctime: nanos(sx.Ctime)}, nil
}

func (c *copier) one(from, to string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		if err := os.Symlink(target, to); err != nil {
			return err
		}
		when := unix.NsecToTimespec(info.ModTime().UnixNano())
		return unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{when, when}, unix.AT_SYMLINK_NOFOLLOW)
	case info.IsDir():
		c.dirs = append(c.dirs, func() error { return finish(from, to, info) })
		return os.Mkdir(to, 0o700)
	}
	id, err := Ident(from)
	if err != nil {
		return err
	}
	if first, ok := c.linked[id.Ino]; ok {
		return os.Link(first, to)
	}
	c.linked[id.Ino] = to
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	return errors.Join(err, finish(from, to, info))
}

// finish copies what is not content.
func finish(from, to string, info fs.FileInfo) error {
	buf := make([]byte, 256)
	if n, err := unix.Getxattr(from, "user.note", buf); err == nil {
		if err := unix.Setxattr(to, "user.note", buf[:n], 0); err != nil {
			return err
		}
	}
	if err := os.Chmod(to, info.Mode().Perm()); err != nil {
		return err
	}
	return os.Chtimes(to, time.Time{}, info.ModTime())
}
