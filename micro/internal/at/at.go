//go:build linux

// Package at works below one folder by opened descriptors only. A symbolic
// link in the way is an error, wherever it points: whoever can write to the
// tree cannot lead a reader or a writer elsewhere.
package at

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Tree is an opened folder. Paths are relative to it, clean and separated by
// slashes; "." is the folder itself. A Tree is used by one goroutine.
type Tree struct {
	root *os.File
	// open are the folders on the way to the last path used, so that work in
	// the order of paths opens each folder about once.
	open []folder
}

type folder struct {
	path string
	file *os.File
}

const openFolder = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// Open opens the folder at name. Symbolic links above it are followed, it
// itself must not be one.
func Open(name string) (*Tree, error) {
	f, err := openAt(unix.AT_FDCWD, name, name, openFolder, 0)
	if err != nil {
		return nil, err
	}
	return &Tree{root: f}, nil
}

// Again opens the folder once more, for another goroutine.
func (t *Tree) Again() (*Tree, error) {
	fd, err := unix.FcntlInt(t.root.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: t.root.Name(), Err: err}
	}
	return &Tree{root: os.NewFile(uintptr(fd), t.root.Name())}, nil
}

// openAt opens base in the folder fd, as the file called name.
func openAt(fd int, base, name string, flags int, mode uint32) (*os.File, error) {
	for {
		got, err := unix.Openat(fd, base, flags|unix.O_CLOEXEC, mode)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		default:
			return os.NewFile(uintptr(got), name), nil
		}
	}
}

// Close closes the folder.
func (t *Tree) Close() error {
	t.Forget()
	return t.root.Close()
}

// Forget closes the folders that are open on the way. It is called after a
// folder was removed or moved.
func (t *Tree) Forget() {
	for _, f := range t.open {
		_ = f.file.Close()
	}
	t.open = t.open[:0]
}

// Name returns the full path of rel, for messages.
func (t *Tree) Name(rel string) string { return filepath.Join(t.root.Name(), rel) }

// Parent returns the opened folder that holds rel and rel's last name. The
// folder is valid until the next call. For "." it is the tree and ".".
func (t *Tree) Parent(rel string) (*os.File, string, error) {
	dir, base := path.Split(rel)
	f, err := t.folder(strings.TrimSuffix(dir, "/"))
	return f, base, err
}

// folder opens the folder dir, "" being the root, one name after another.
func (t *Tree) folder(dir string) (*os.File, error) {
	for len(t.open) > 0 && !within(t.open[len(t.open)-1].path, dir) {
		_ = t.open[len(t.open)-1].file.Close()
		t.open = t.open[:len(t.open)-1]
	}
	at, from := t.root, ""
	if n := len(t.open); n > 0 {
		at, from = t.open[n-1].file, t.open[n-1].path
	}
	rest := strings.TrimPrefix(strings.TrimPrefix(dir, from), "/")
	for rest != "" {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		from = path.Join(from, name)
		f, err := openAt(int(at.Fd()), name, t.Name(from), openFolder, 0)
		if err != nil {
			return nil, err
		}
		t.open = append(t.open, folder{from, f})
		at = f
	}
	return at, nil
}

// within reports whether dir is above or the same as p.
func within(dir, p string) bool {
	return dir == p || strings.HasPrefix(p, dir) && p[len(dir)] == '/'
}

// ReadDir returns the names in the folder rel, sorted.
func (t *Tree) ReadDir(rel string) ([]string, error) {
	parent, base, err := t.Parent(rel)
	if err != nil {
		return nil, err
	}
	f, err := openAt(int(parent.Fd()), base, t.Name(rel), openFolder, 0)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, errors.Join(err, f.Close())
}

// Entries returns the names in the folder rel, sorted, with what type the folder
// says that they are of.
func (t *Tree) Entries(rel string) ([]fs.DirEntry, error) {
	f, err := t.OpenDir(rel)
	if err != nil {
		return nil, err
	}
	all, err := f.ReadDir(-1)
	slices.SortFunc(all, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return all, errors.Join(err, f.Close())
}

// OpenFile opens a regular file for reading.
func (t *Tree) OpenFile(rel string) (*os.File, error) {
	parent, base, err := t.Parent(rel)
	if err != nil {
		return nil, err
	}
	f, err := openAt(int(parent.Fd()), base, t.Name(rel), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := StatFile(f)
	if err == nil && !info.IsFile() {
		err = &fs.PathError{Op: "open", Path: f.Name(), Err: errors.New("not a regular file")}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// OpenDir opens the folder rel, for changing its metadata or syncing it.
func (t *Tree) OpenDir(rel string) (*os.File, error) {
	parent, base, err := t.Parent(rel)
	if err != nil {
		return nil, err
	}
	return openAt(int(parent.Fd()), base, t.Name(rel), openFolder, 0)
}

// Create makes a new regular file for writing, readable by its owner only.
func (t *Tree) Create(rel string) (*os.File, error) {
	parent, base, err := t.Parent(rel)
	if err != nil {
		return nil, err
	}
	return openAt(int(parent.Fd()), base, t.Name(rel), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
}

// Mkdir makes a folder with mode 0700.
func (t *Tree) Mkdir(rel string) error {
	return t.do("mkdir", rel, func(fd int, base string) error { return unix.Mkdirat(fd, base, 0o700) })
}

// Symlink makes a symbolic link.
func (t *Tree) Symlink(target, rel string) error {
	return t.do("symlink", rel, func(fd int, base string) error { return unix.Symlinkat(target, fd, base) })
}

// Unlink removes a file, a symbolic link or an empty folder. That it is not
// there is no error.
func (t *Tree) Unlink(rel string) error {
	err := t.do("unlink", rel, func(fd int, base string) error {
		err := unix.Unlinkat(fd, base, 0)
		if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
			if e := unix.Unlinkat(fd, base, unix.AT_REMOVEDIR); !errors.Is(e, unix.ENOTDIR) {
				return e
			}
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Chown changes the owner of rel itself, symbolic link or not.
func (t *Tree) Chown(rel string, uid, gid uint32) error {
	return t.do("chown", rel, func(fd int, base string) error {
		return unix.Fchownat(fd, base, int(int32(uid)), int(int32(gid)), unix.AT_SYMLINK_NOFOLLOW)
	})
}

// SetMtime sets the time of the last change of rel itself, in nanoseconds since
// 1970.
func (t *Tree) SetMtime(rel string, mtime int64) error {
	return t.do("set the time of", rel, func(fd int, base string) error {
		times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(mtime)}
		return unix.UtimesNanoAt(fd, base, times, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// Writable returns why this process may not change the entries of the folder
// rel, or move it to another folder.
func (t *Tree) Writable(rel string) error {
	return t.do("write to", rel, func(fd int, base string) error {
		return unix.Faccessat(fd, base, unix.W_OK, unix.AT_EACCESS)
	})
}

// Readlink returns the target of a symbolic link.
func (t *Tree) Readlink(rel string) (string, error) {
	buf := make([]byte, 4096)
	n := 0
	err := t.do("readlink", rel, func(fd int, base string) (err error) {
		n, err = unix.Readlinkat(fd, base, buf)
		return err
	})
	return string(buf[:max(n, 0)]), err
}

func (t *Tree) do(op, rel string, call func(fd int, base string) error) error {
	parent, base, err := t.Parent(rel)
	if err != nil {
		return err
	}
	if err := call(int(parent.Fd()), base); err != nil {
		return &fs.PathError{Op: op, Path: t.Name(rel), Err: err}
	}
	return nil
}

// RemoveAll removes rel and everything below it, folders that their owner may
// not write to as well. That it is not there is no error. It goes at most as
// deep as a path can be long.
func (t *Tree) RemoveAll(rel string) error {
	return t.RemoveEach(rel, func(string, Info) {})
}

// RemoveEach is RemoveAll that calls gone for each path but a folder's right after
// that was removed, with what it was right before.
func (t *Tree) RemoveEach(rel string, gone func(rel string, was Info)) error {
	defer t.Forget()
	return t.removeAll(rel, 0, gone)
}

const maxDepth = 2048

func (t *Tree) removeAll(rel string, depth int, gone func(string, Info)) error {
	info, err := t.Stat(rel)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || !info.IsDir() {
		if err = errors.Join(err, t.Unlink(rel)); err == nil {
			gone(rel, info)
		}
		return err
	}
	if info.MountRoot && depth > 0 {
		return fmt.Errorf("cannot remove %s: it is a mount point", t.Name(rel))
	}
	if depth > maxDepth {
		return fmt.Errorf("cannot remove %s: folders are nested more than %d deep", t.Name(rel), maxDepth)
	}
	if info.Perm()&0o700 != 0o700 {
		if err := t.openUp(rel); err != nil {
			return err
		}
	}
	names, err := t.ReadDir(rel)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := t.removeAll(path.Join(rel, name), depth+1, gone); err != nil {
			return err
		}
	}
	return t.Unlink(rel)
}

// openUp gives the owner of a folder all rights to it. The folder may not be
// readable, so that it is changed by name: the name is checked to be no
// symbolic link first, and nobody but this user may change the trees that are
// removed or rebuilt.
func (t *Tree) openUp(rel string) error {
	return t.do("chmod", rel, func(fd int, base string) error { return unix.Fchmodat(fd, base, 0o700, 0) })
}

// Unlock makes the folder rel one that its owner can change.
func (t *Tree) Unlock(rel string) error { return t.openUp(rel) }

// Clone makes dst share the bytes of src, where the file system can.
func Clone(dst, src *os.File) error {
	if err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); err != nil {
		return fmt.Errorf("cannot share the bytes of %s: %w", src.Name(), err)
	}
	return nil
}

// CopyTo copies through buf, and nothing smarter: the bytes pass this process.
func CopyTo(dst io.Writer, src io.Reader, buf []byte) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, buf)
}
