//go:build linux

package at

import (
	"errors"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/ota/release"
)

// File is a regular file of a Tree that is open for reading from its start on.
// It costs less than an *os.File, which counts where a tree has many files. It
// is used by one goroutine, which need not be the Tree's.
type File struct {
	fd   int
	tree *Tree
	rel  string
}

// Read opens a regular file for reading, and describes it.
func (t *Tree) Read(rel string) (*File, Info, error) {
	parent, base, err := t.Parent(rel)
	if err != nil {
		return nil, Info{}, err
	}
	fd, err := unix.Openat(int(parent.Fd()), base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	for errors.Is(err, unix.EINTR) {
		fd, err = unix.Openat(int(parent.Fd()), base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, Info{}, &fs.PathError{Op: "open", Path: t.Name(rel), Err: err}
	}
	f := &File{fd, t, rel}
	info, err := stat(fd, "")
	if err == nil && !info.IsFile() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return nil, info, errors.Join(&fs.PathError{Op: "open", Path: f.Name(), Err: err}, f.Close())
	}
	return f, info, nil
}

// Name returns the full path of the file, for messages.
func (f *File) Name() string { return f.tree.Name(f.rel) }

// Read implements [io.Reader].
func (f *File) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err := unix.Read(f.fd, p)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, &fs.PathError{Op: "read", Path: f.Name(), Err: err}
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Xattrs is [Tree.Xattrs] of the file.
func (f *File) Xattrs(listed []release.Xattr) ([]release.Xattr, error) {
	got, err := xattrs{fd: f.fd}.read(listed)
	if err != nil { // once more, for a message with the name
		return xattrs{f.fd, f.Name()}.read(listed)
	}
	return got, nil
}

// Close closes the file.
func (f *File) Close() error {
	if err := unix.Close(f.fd); err != nil {
		return &fs.PathError{Op: "close", Path: f.Name(), Err: err}
	}
	return nil
}
