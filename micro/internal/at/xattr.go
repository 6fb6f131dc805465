//go:build linux

package at

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/ota/release"
)

// Settled reports whether an extended attribute is part of what a release
// fixes even where the release does not list it. Others, such as labels that
// the kernel gives by policy, only matter where they are listed.
func Settled(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.") && !strings.HasPrefix(name, "trusted.overlay.")
}

// xattrs reaches the extended attributes of one inode: by descriptor, or by a
// name in an opened folder where there is no descriptor to be had.
type xattrs struct {
	fd   int    // -1 where there is none
	path string // for messages, and for calls where there is no descriptor
}

// SetXattrs gives an opened file exactly the listed extended attributes; those
// that are not settled stay.
func SetXattrs(f *os.File, listed []release.Xattr) error {
	return xattrs{int(f.Fd()), f.Name()}.set(listed)
}

// Xattrs returns the settled extended attributes of what has the path rel, and
// those of listed besides, sorted by name.
func (t *Tree) Xattrs(rel string, info Info, listed []release.Xattr) ([]release.Xattr, error) {
	var got []release.Xattr
	err := t.xattrs(rel, info, func(x xattrs) (err error) {
		got, err = x.read(listed)
		return err
	})
	return got, err
}

// SetXattrs is SetXattrs for what has the path rel, whatever it is.
func (t *Tree) SetXattrs(rel string, info Info, listed []release.Xattr) error {
	return t.xattrs(rel, info, func(x xattrs) error { return x.set(listed) })
}

// xattrs opens rel if it can be opened. There is no call for the attributes of
// a symbolic link by folder and name before Linux 6.13: the name then goes
// through the opened folder in /proc, and its last part is not followed.
func (t *Tree) xattrs(rel string, info Info, call func(xattrs) error) error {
	parent, base, err := t.Parent(rel)
	if err != nil {
		return err
	}
	if info.IsDir() || info.IsFile() {
		f, err := openAt(int(parent.Fd()), base, t.Name(rel), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err == nil {
			return errors.Join(call(xattrs{int(f.Fd()), f.Name()}), f.Close())
		}
		if !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	if _, err := os.Stat("/proc/self/fd"); err != nil && info.IsSymlink() {
		return nil
	}
	return call(xattrs{-1, "/proc/self/fd/" + strconv.Itoa(int(parent.Fd())) + "/" + base})
}

func (x xattrs) err(op, name string, err error) error {
	return &fs.PathError{Op: op + " " + name + " of", Path: x.path, Err: err}
}

func (x xattrs) names() ([]string, error) {
	var buf []byte
	for {
		n, err := x.list(buf)
		switch {
		case errors.Is(err, unix.ERANGE):
		case errors.Is(err, unix.ENOTSUP):
			return nil, nil
		case err != nil:
			return nil, x.err("list", "extended attributes", err)
		case n <= len(buf):
			return strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 }), nil
		}
		buf = make([]byte, max(n, 2*len(buf), 256))
	}
}

func (x xattrs) list(buf []byte) (int, error) {
	if x.fd >= 0 {
		return unix.Flistxattr(x.fd, buf)
	}
	return unix.Llistxattr(x.path, buf)
}

func (x xattrs) get(name string) ([]byte, error) {
	buf := make([]byte, release.MaxXattrValue)
	var n int
	var err error
	if x.fd >= 0 {
		n, err = unix.Fgetxattr(x.fd, name, buf)
	} else {
		n, err = unix.Lgetxattr(x.path, name, buf)
	}
	if err != nil {
		return nil, x.err("read", name, err)
	}
	return bytes.Clone(buf[:n]), nil
}

func (x xattrs) read(listed []release.Xattr) ([]release.Xattr, error) {
	names, err := x.names()
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var got []release.Xattr
	for _, name := range names {
		if !Settled(name) && !has(listed, name) {
			continue
		}
		value, err := x.get(name)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, err
		}
		got = append(got, release.Xattr{Name: name, Value: value})
	}
	return got, nil
}

func has(list []release.Xattr, name string) bool {
	return slices.ContainsFunc(list, func(x release.Xattr) bool { return x.Name == name })
}

func (x xattrs) set(listed []release.Xattr) error {
	names, err := x.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if Settled(name) && !has(listed, name) {
			if err := x.remove(name); err != nil && !errors.Is(err, unix.ENODATA) {
				return x.err("remove", name, err)
			}
		}
	}
	for _, a := range listed {
		if err := x.write(a); err != nil {
			return x.err("set", a.Name, err)
		}
	}
	return nil
}

func (x xattrs) remove(name string) error {
	if x.fd >= 0 {
		return unix.Fremovexattr(x.fd, name)
	}
	return unix.Lremovexattr(x.path, name)
}

func (x xattrs) write(a release.Xattr) error {
	if x.fd >= 0 {
		return unix.Fsetxattr(x.fd, a.Name, a.Value, 0)
	}
	return unix.Lsetxattr(x.path, a.Name, a.Value, 0)
}

// SameXattrs reports whether two lists, both sorted by name, are the same.
func SameXattrs(a, b []release.Xattr) bool {
	return slices.EqualFunc(a, b, func(a, b release.Xattr) bool { return a.Name == b.Name && bytes.Equal(a.Value, b.Value) })
}
