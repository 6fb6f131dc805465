//go:build linux

package model

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/seam"
)

// layout is a folder in which one disk after the other is laid out. What the
// one before left as it was, and the next one has too, stays. Where it is watched,
// nothing else is looked at; whether nothing was missed says prove.
type layout struct {
	root     string
	x        *known
	uid, gid uint32
	fine     bool // two changes of a file never have the same time
	have     map[uint64]held
	watch    *watch // nil is none
	last     []Entry
	ino      map[*Node]uint64 // as they were laid out

	want  map[string]*Node
	names map[*Node]int // how many it has
	first map[*Node]string
	there map[string]bool // those of want that stayed
	dirty map[string]bool // folders in which something came or went
	next  map[uint64]held
}

// follow has the folder watched, until the function returned is called.
func (l *layout) follow() (done func()) {
	if l.watch = newWatch(); l.watch == nil {
		return func() {}
	}
	return l.watch.close
}

// forget has nobody know the inodes of it any more.
func (l *layout) forget() {
	for ino := range l.have {
		l.x.all.Delete(ino)
	}
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
	l.there, l.next, l.dirty = map[string]bool{}, map[uint64]held{}, map[string]bool{}
	for _, e := range all {
		l.want[e.Path] = e.Node
		l.names[e.Node]++
	}
	if err := l.room(); err != nil {
		return fmt.Errorf("cannot make room: %w", err)
	}
	for _, e := range all {
		if err := l.one(e); err != nil {
			return fmt.Errorf("cannot lay out %s: %w", e.Path, err)
		}
	}
	for _, e := range slices.Backward(all) {
		if l.first[e.Node] != e.Path || l.there[e.Path] && !l.dirty[e.Path] {
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
	l.have, l.last = l.next, all
	if l.watch != nil {
		l.watch.changed() // what this did
	}
	return nil
}

// room removes what is not wanted.
func (l *layout) room() error {
	was := l.ino
	l.ino = map[*Node]uint64{}
	if l.watch != nil && l.last != nil {
		if changed, ok := l.watch.changed(); ok {
			return l.sift(changed, was)
		}
	}
	return l.keep(".")
}

// sift is keep where only these paths may have changed since last was laid out.
func (l *layout) sift(changed map[string]bool, ino map[*Node]uint64) error {
	for p := range changed {
		l.dirty[filepath.Dir(p)] = true
	}
	spoiled := l.spoiled(changed)
	done := "/" // what is below it is done
	for _, e := range l.last {
		if strings.HasPrefix(e.Path, done) || done == "./" {
			continue
		}
		if !spoiled[e.Node] {
			if err := l.stay(e, ino[e.Node]); err != nil {
				return err
			}
			continue
		}
		done = e.Path + "/"
		l.dirty[filepath.Dir(e.Path)] = true
		if err := l.keep(e.Path); err != nil {
			return err
		}
	}
	return l.strangers(changed)
}

// spoiled are those that changed, or do not have the same names any more, or a name
// in a folder that is spoiled.
func (l *layout) spoiled(changed map[string]bool) map[*Node]bool {
	names, spoiled := map[*Node]int{}, map[*Node]bool{}
	above := "/"
	for _, e := range l.last {
		names[e.Node]++
		below := strings.HasPrefix(e.Path, above) || above == "./"
		if !below && !changed[e.Path] && l.want[e.Path] == e.Node {
			continue
		}
		spoiled[e.Node] = true
		if !below {
			above = e.Path + "/"
		}
	}
	for node, n := range names {
		if n != l.names[node] {
			spoiled[node] = true
		}
	}
	return spoiled
}

// stay takes what was not touched.
func (l *layout) stay(e Entry, ino uint64) error {
	l.there[e.Path], l.ino[e.Node], l.next[ino] = true, ino, l.have[ino]
	if l.first[e.Node] == "" {
		l.first[e.Node] = e.Path
	}
	if l.uid == 0 || !e.is(unix.S_IFDIR) || e.Mode&0o700 == 0o700 {
		return nil
	}
	l.dirty[e.Path] = true
	return unix.Chmod(filepath.Join(l.root, e.Path), 0o700)
}

// strangers removes what came to folders that stayed.
func (l *layout) strangers(changed map[string]bool) error {
	known := map[string]bool{}
	for _, e := range l.last {
		known[e.Path] = true
	}
	for p := range changed {
		dir := filepath.Dir(p)
		if known[p] || p == "." || !l.there[dir] || !l.want[dir].is(unix.S_IFDIR) {
			continue
		}
		if err := l.keep(p); err != nil {
			return err
		}
	}
	return nil
}

// prove compares all that is there with what was laid out last.
func (l *layout) prove() error {
	there, err := Scan(l.root, l.x.show)
	if err != nil {
		return err
	}
	if len(there) != len(l.last) {
		return fmt.Errorf("the disk has %d entries, and %d were laid out", len(there), len(l.last))
	}
	for i, e := range l.last {
		is := there[i]
		err := e.same(is.Node)
		if err == nil && (e.Path != is.Path || e.Ino != is.Ino || e.Mtime != is.Mtime || e.Ident != is.Ident && e.is(unix.S_IFREG)) {
			err = fmt.Errorf("%s with %v of %d, and %v of %d", is.Path, is.Ident, is.Mtime, e.Ident, e.Mtime)
		}
		if err != nil {
			return fmt.Errorf("%s was not laid out: %w", e.Path, err)
		}
	}
	return nil
}

// seen notes what has a path now, and watches it.
func (l *layout) seen(rel string, ino uint64, dir bool) error {
	if l.ino[l.want[rel]] = ino; l.watch == nil {
		return nil
	}
	return l.watch.add(l.root, rel, dir)
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
	dir := sx.Mode&unix.S_IFMT == unix.S_IFDIR
	if err := l.seen(rel, sx.Ino, dir); err != nil {
		return err
	}
	if !dir {
		l.next[sx.Ino] = l.have[sx.Ino]
		return nil
	}
	l.dirty[rel] = true
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
	l.dirty[filepath.Dir(e.Path)] = true
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
	return l.seen(e.Path, sx.Ino, e.is(unix.S_IFDIR))
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
