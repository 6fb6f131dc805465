//go:build linux

package model

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/seam"
)

// Node is an inode.
type Node struct {
	seam.Ident
	Mode     uint32 // type and permission bits, as in stat(2)
	UID, GID uint32
	Mtime    int64             // nanoseconds since 1970
	Data     []byte            // of a regular file
	Target   string            // of a symbolic link
	Xattrs   map[string]string // by name
}

func (n *Node) is(format uint32) bool { return n.Mode&unix.S_IFMT == format }

// Entry is a name, and the inode it is of. Names of one inode share the Node.
type Entry struct {
	Path string // relative to the folder that is modelled, which is "." itself
	*Node
}

// Scan reads a folder as it is now, parents before children, sorted. see,
// if it is not nil, is what stands between the program and the kernel.
func Scan(root string, see func(*seam.Ident)) ([]Entry, error) {
	var all []Entry
	seen := map[uint64]*Node{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var sx unix.Statx_t
		if err := statx(path, &sx); err != nil {
			return err
		}
		n := seen[sx.Ino]
		if n == nil {
			if n, err = readNode(path, &sx); err != nil {
				return err
			}
			if see != nil {
				see(&n.Ident)
			}
			seen[sx.Ino] = n
		}
		rel, err := filepath.Rel(root, path)
		all = append(all, Entry{rel, n})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the disk: %w", err)
	}
	return all, nil
}

func statx(path string, sx *unix.Statx_t) error {
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, sx)
	if err != nil {
		return &fs.PathError{Op: "statx", Path: path, Err: err}
	}
	return nil
}

func nanos(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

func identOf(sx *unix.Statx_t) seam.Ident {
	return seam.Ident{Ino: sx.Ino, Birth: nanos(sx.Btime), Ctime: nanos(sx.Ctime)}
}

func readNode(path string, sx *unix.Statx_t) (*Node, error) {
	n := &Node{
		Ident: identOf(sx), Mode: uint32(sx.Mode), UID: sx.Uid, GID: sx.Gid, Mtime: nanos(sx.Mtime),
	}
	var err error
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		n.Data, err = os.ReadFile(path)
	case unix.S_IFLNK:
		n.Target, err = os.Readlink(path)
	case unix.S_IFDIR:
	default:
		err = fmt.Errorf("%s is of a type that is not modelled", path)
	}
	if err == nil {
		n.Xattrs, err = readXattrs(path)
	}
	return n, err
}

func readXattrs(path string) (map[string]string, error) {
	buf := make([]byte, 64<<10)
	size, err := unix.Llistxattr(path, buf)
	if err != nil || size == 0 {
		if errors.Is(err, unix.ENOTSUP) {
			err = nil
		}
		return nil, err
	}
	all := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:size]), "\x00"), "\x00") {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, fmt.Errorf("cannot read %s of %s: %w", name, path, err)
		}
		all[name] = string(value[:n])
	}
	return all, nil
}

// same reports how two nodes differ in what lasts, but for times.
func (n *Node) same(m *Node) error {
	switch {
	case n.Mode != m.Mode:
		return fmt.Errorf("mode %o and %o", n.Mode, m.Mode)
	case n.UID != m.UID || n.GID != m.GID:
		return fmt.Errorf("owner %d:%d and %d:%d", n.UID, n.GID, m.UID, m.GID)
	case string(n.Data) != string(m.Data):
		return fmt.Errorf("content of %d bytes and %d bytes", len(n.Data), len(m.Data))
	case n.Target != m.Target:
		return fmt.Errorf("target %q and %q", n.Target, m.Target)
	case !maps.Equal(n.Xattrs, m.Xattrs):
		return fmt.Errorf("attributes %q and %q", n.Xattrs, m.Xattrs)
	}
	return nil
}
