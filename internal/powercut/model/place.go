//go:build linux

package model

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/seam"
)

// layout is a folder in which one disk after the other is laid out. What the
// one before left as it was, and the next one has too, stays.
type layout struct {
	root     string
	x        *known
	uid, gid uint32
	fine     bool // two changes of a file never have the same time
	have     map[uint64]held

	want  map[string]*Node
	names map[*Node]int // how many it has
	first map[*Node]string
	there map[string]bool // those of want that stayed
	next  map[uint64]held
}

// held is an inode as it was laid out.
type held struct {
	node *Node
	is   seam.Ident
}

func newLayout(root string, x *known) *layout {
	return &layout{root: root, x: x, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), fine: isFine(filepath.Dir(root))}
}

// isFine reports whether the file system tells two changes apart, however soon
// one comes after the other ("multigrain timestamps", since Linux 6.13).
func isFine(dir string) bool {
	f, err := os.CreateTemp(dir, "fine")
	if err != nil {
		return false
	}
	defer func() { _, _ = f.Close(), os.Remove(f.Name()) }()
	last := int64(0)
	for range 50 {
		var sx unix.Statx_t
		if f.Chmod(0o600) != nil || statx(f.Name(), &sx) != nil || nanos(sx.Ctime) == last {
			return false
		}
		last = nanos(sx.Ctime)
	}
	return true
}

// lay replaces what is in the folder by the disk.
func (l *layout) lay(all []Entry) error {
	l.want, l.names, l.first = map[string]*Node{}, map[*Node]int{}, map[*Node]string{}
	l.there, l.next = map[string]bool{}, map[uint64]held{}
	for _, e := range all {
		l.want[e.Path] = e.Node
		l.names[e.Node]++
	}
	if err := l.keep("."); err != nil {
		return fmt.Errorf("cannot make room: %w", err)
	}
	for _, e := range all {
		if err := l.one(e); err != nil {
			return fmt.Errorf("cannot lay out %s: %w", e.Path, err)
		}
	}
	for _, e := range slices.Backward(all) {
		if l.first[e.Node] != e.Path || l.there[e.Path] && !e.is(unix.S_IFDIR) {
			continue
		}
		if err := l.finish(e); err != nil {
			return fmt.Errorf("cannot lay out %s: %w", e.Path, err)
		}
	}
	for ino := range l.have {
		if _, ok := l.next[ino]; !ok {
			l.x.all.Delete(ino)
		}
	}
	l.have = l.next
	return nil
}

// keep removes what is at a path, and below it, but what is as it should be.
func (l *layout) keep(rel string) error {
	full := filepath.Join(l.root, rel)
	var sx unix.Statx_t
	if statx(full, &sx) != nil {
		return nil
	}
	if !l.stays(rel, &sx) {
		return removeAll(full)
	}
	l.first[l.want[rel]], l.there[rel] = rel, true
	if sx.Mode&unix.S_IFMT != unix.S_IFDIR {
		l.next[sx.Ino] = l.have[sx.Ino]
		return nil
	}
	if l.uid != 0 && sx.Mode&0o700 != 0o700 {
		if err := unix.Chmod(full, 0o700); err != nil {
			return err
		}
	}
	below, err := os.ReadDir(full)
	for _, e := range below {
		if err == nil {
			err = l.keep(filepath.Join(rel, e.Name()))
		}
	}
	return err
}

// stays reports whether what is there was laid out for what is wanted, and not
// changed since. Of a folder it is only the inode.
func (l *layout) stays(rel string, sx *unix.Statx_t) bool {
	want, h := l.want[rel], l.have[sx.Ino]
	if want == nil || h.node != want || h.is.Birth != nanos(sx.Btime) || sx.Uid != want.UID || sx.Gid != want.GID {
		return false
	}
	if want.is(unix.S_IFDIR) {
		size, err := unix.Llistxattr(filepath.Join(l.root, rel), nil)
		return size == 0 && (err == nil || err == unix.ENOTSUP) && len(want.Xattrs) == 0
	}
	return l.fine && h.is.Ctime == nanos(sx.Ctime) && sx.Nlink == 1 && l.names[want] == 1
}

func (l *layout) one(e Entry) error {
	if l.there[e.Path] {
		return nil
	}
	to := filepath.Join(l.root, e.Path)
	if other, ok := l.first[e.Node]; ok {
		return unix.Link(filepath.Join(l.root, other), to)
	}
	l.first[e.Node] = e.Path
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return unix.Mkdir(to, 0o700)
	case unix.S_IFLNK:
		return unix.Symlink(e.Target, to)
	}
	return l.file(to, e.Node)
}

func (l *layout) file(to string, n *Node) error {
	fd, err := unix.Open(to, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	for data := n.Data; len(data) > 0 && err == nil; {
		var done int
		done, err = unix.Write(fd, data)
		data = data[max(0, done):]
	}
	if closed := unix.Close(fd); err == nil {
		err = closed
	}
	return err
}

// finish sets owner, mode, attributes and times, children before parents, and
// notes the inode.
func (l *layout) finish(e Entry) error {
	to := filepath.Join(l.root, e.Path)
	if e.UID != l.uid || e.GID != l.gid {
		if err := unix.Lchown(to, int(e.UID), int(e.GID)); err != nil {
			return err
		}
	}
	for name, value := range e.Xattrs {
		if err := unix.Lsetxattr(to, name, []byte(value), 0); err != nil {
			return err
		}
	}
	if perm := e.Mode & 0o7777; !e.is(unix.S_IFLNK) && (perm != 0o600 || e.is(unix.S_IFDIR)) {
		if err := unix.Chmod(to, perm); err != nil {
			return err
		}
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(e.Mtime)}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, to, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	var sx unix.Statx_t
	if err := statx(to, &sx); err != nil {
		return err
	}
	l.next[sx.Ino] = held{e.Node, identOf(&sx)}
	l.x.all.Store(sx.Ino, laid{identOf(&sx), e.Ident})
	return nil
}

// removeAll removes folders too that have no mode to be removed with.
func removeAll(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}
