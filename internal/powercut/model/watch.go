//go:build linux

package model

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// watch says what was changed below a folder since it was asked last: each inode
// in it is watched, as one may be reached by any name.
type watch struct {
	fd  int
	at  map[int32]string // the path of each
	buf []byte
}

// newWatch returns nil where the kernel has none.
func newWatch() *watch {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil
	}
	return &watch{fd, map[int32]string{}, make([]byte, 256<<10)}
}

func (w *watch) close() { _ = unix.Close(w.fd) }

// What happens to names in a folder, and to an inode itself. A change of the time
// of the last change alone is an IN_MODIFY, of a folder too.
const (
	aboutNames = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO
	aboutInode = unix.IN_ATTRIB | unix.IN_MODIFY | unix.IN_MOVE_SELF | unix.IN_DONT_FOLLOW
)

// add watches what has the path now.
func (w *watch) add(root, rel string, dir bool) error {
	mask := uint32(aboutInode)
	if dir {
		mask = aboutInode | aboutNames
	}
	id, err := unix.InotifyAddWatch(w.fd, filepath.Join(root, rel), mask)
	if err != nil {
		return os.NewSyscallError("inotify_add_watch", err)
	}
	w.at[int32(id)] = rel
	return nil
}

// changed returns the paths; ok is false when not all of them are known.
func (w *watch) changed() (paths map[string]bool, ok bool) {
	paths, ok = map[string]bool{}, true
	for {
		n, err := unix.Read(w.fd, w.buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return paths, ok && err == unix.EAGAIN
		}
		for events := w.buf[:n]; len(events) >= unix.SizeofInotifyEvent; {
			id, mask := int32(binary.NativeEndian.Uint32(events)), binary.NativeEndian.Uint32(events[4:])
			end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
			name, _, _ := bytes.Cut(events[unix.SizeofInotifyEvent:end], []byte{0})
			ok = w.event(paths, id, mask, string(name)) && ok
			events = events[end:]
		}
	}
}

// event notes one, and returns false for those that say that some are missing.
func (w *watch) event(paths map[string]bool, id int32, mask uint32, name string) bool {
	at, known := w.at[id]
	switch {
	case mask&unix.IN_Q_OVERFLOW != 0:
		return false
	case mask&unix.IN_IGNORED != 0:
		delete(w.at, id)
		return true
	case known:
		paths[filepath.Join(at, name)] = true
	}
	return known
}
