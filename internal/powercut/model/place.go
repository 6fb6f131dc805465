//go:build linux

package model

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/seam"
)

// known are the inodes that are laid out, and what a program knows each by. All
// are on one file system.
type known struct{ all sync.Map }

// laid is one of them.
type laid struct{ is, was seam.Ident }

// show implements the Inode of internal/seam. An inode that was changed since
// has the time of that.
func (x *known) show(id *seam.Ident) {
	v, ok := x.all.Load(id.Ino)
	if !ok || v.(laid).is.Birth != id.Birth {
		return
	}
	l := v.(laid)
	if id.Ctime == l.is.Ctime {
		id.Ctime = l.was.Ctime
	}
	id.Ino, id.Birth = l.was.Ino, l.was.Birth
}

// install has the whole process see them, until the function returned is called.
func (x *known) install() func() {
	show := x.show
	seam.Inode.Store(&show)
	return func() { seam.Inode.Store(nil) }
}

// write saves them for another process.
func (x *known) write(path string) error {
	var buf bytes.Buffer
	for _, v := range x.all.Range {
		l := v.(laid)
		fmt.Fprintln(&buf, l.is.Ino, l.is.Birth, l.is.Ctime, l.was.Ino, l.was.Birth, l.was.Ctime)
	}
	return os.WriteFile(path, buf.Bytes(), 0o600)
}

func readKnown(path string) (*known, error) {
	data, err := os.ReadFile(path)
	x := &known{}
	for line := range strings.Lines(string(data)) {
		var l laid
		if _, err := fmt.Sscan(line, &l.is.Ino, &l.is.Birth, &l.is.Ctime, &l.was.Ino, &l.was.Birth, &l.was.Ctime); err != nil {
			return nil, err
		}
		x.all.Store(l.is.Ino, l)
	}
	return x, err
}

// layout is a disk in a folder.
type layout struct {
	root string
	x    *known
	uid  uint32
	gid  uint32
	inos []uint64
}

func newLayout(root string, x *known) *layout {
	return &layout{root: root, x: x, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}
}

// lay replaces what is in the folder by the disk.
func (l *layout) lay(all []Entry) error {
	if err := l.clear(); err != nil {
		return err
	}
	first := map[*Node]string{}
	for _, e := range all {
		if err := l.one(e, first); err != nil {
			return fmt.Errorf("cannot lay out %s: %w", e.Path, err)
		}
	}
	for _, e := range slices.Backward(all) {
		if err := l.finish(e, first[e.Node] == e.Path); err != nil {
			return fmt.Errorf("cannot lay out %s: %w", e.Path, err)
		}
	}
	return nil
}

// clear removes everything.
func (l *layout) clear() error {
	for _, ino := range l.inos {
		l.x.all.Delete(ino)
	}
	l.inos = l.inos[:0]
	return os.RemoveAll(l.root)
}

func (l *layout) one(e Entry, first map[*Node]string) error {
	to := filepath.Join(l.root, e.Path)
	if other, ok := first[e.Node]; ok {
		return unix.Link(filepath.Join(l.root, other), to)
	}
	first[e.Node] = e.Path
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
func (l *layout) finish(e Entry, first bool) error {
	if !first {
		return nil
	}
	to := filepath.Join(l.root, e.Path)
	link := e.is(unix.S_IFLNK)
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
	if perm := e.Mode & 0o7777; !link && perm != 0o600 || e.is(unix.S_IFDIR) {
		if err := unix.Chmod(to, perm); err != nil {
			return err
		}
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(e.Mtime)}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, to, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return l.note(to, e.Node)
}

func (l *layout) note(to string, n *Node) error {
	var sx unix.Statx_t
	if err := statx(to, &sx); err != nil {
		return err
	}
	l.inos = append(l.inos, sx.Ino)
	l.x.all.Store(sx.Ino, laid{identOf(&sx), n.Ident})
	return nil
}
