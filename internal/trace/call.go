package trace

import (
	"errors"
	"fmt"
	"syscall"
)

// ErrUnavailable is returned, wrapped, where this machine does not let a
// process trace its children.
var ErrUnavailable = errors.New("tracing is not available")

// Call is one call that changes something. Before it happens it tells what was
// asked and what is there; afterwards what came of it.
type Call struct {
	N        int    // ordinal among the changing calls of the whole tree, from 1
	Name     string // the kernel's name of it, as "renameat2"; "ficlone" and "ficlonerange" for these two of ioctl
	PID, TID int

	// Path is what the call is about: absolute, with symbolic links resolved but
	// for a last one that the call does not follow. For a descriptor it is the
	// name that the file has now, or had last. It is empty for sync.
	Path string
	// Path2 is the second one: the new name of rename and link, the file that a
	// copy reads.
	Path2 string
	// Ino and Ino2 are the inodes of the two, 0 where there is none; Dir and
	// Dir2 those of the folders that they are in, 0 for a descriptor. After a
	// call that made something, Ino or Ino2 is that of the new inode.
	Ino, Ino2, Dir, Dir2 uint64
	Dev                  uint64 // the file system of Path, or of its folder
	Type                 uint32 // S_IFMT bits of Path, 0 where it is not there
	New                  bool   // afterwards: the call made the inode of Path (or of Path2 for link: the name)

	FD     int    // the descriptor that is changed, or -1
	Flags  uint64 // of open, rename, unlinkat, linkat, fallocate (its mode), setxattr; the request of ioctl
	Mode   uint32 // of open, mkdir, mknod, chmod
	UID    int    // of chown, -1: not changed
	GID    int
	Offset int64  // where data goes to: that of the call or of the descriptor, or the end
	Size   int64  // bytes asked for; afterwards bytes written. The new length for truncate
	Target string // of symlink
	Attr   string // name of the extended attribute
	// Data is what is written, as far as Options.Data asks for it: known before
	// write and its kind, only afterwards where the kernel copies between
	// files. For setxattr it is always the value.
	Data []byte

	Result int64 // afterwards: what the call returned, or -errno
}

// Errno returns the error that the call ended in, or 0.
func (c *Call) Errno() syscall.Errno {
	if c.Result < 0 {
		return syscall.Errno(-c.Result)
	}
	return 0
}

// String describes the call in one line for people.
func (c *Call) String() string {
	s := fmt.Sprintf("%d %s %s", c.N, c.Name, c.Path)
	for _, more := range []string{c.Path2, c.Attr, c.Target} {
		if more != "" {
			s += " " + more
		}
	}
	if c.Size != 0 {
		s += fmt.Sprintf(" %d bytes at %d", c.Size, c.Offset)
	}
	if e := c.Errno(); e != 0 {
		s += ": " + e.Error()
	}
	return s
}

// Action is what is to become of a call that has not happened yet.
type Action int

// What a callback may answer, beside Fail.
const (
	// Continue lets the call happen.
	Continue Action = 0
	// KillBefore kills every process of the tree; the call does not happen.
	KillBefore Action = -1
	// KillAfter kills every process of the tree when the call has happened,
	// before its caller learns of it.
	KillAfter Action = -2
)

// Fail has the call return errno without happening.
func Fail(errno syscall.Errno) Action { return Action(errno) }

// Options say what to look at and what to do.
type Options struct {
	// Before is asked before each changing call; nil lets all of them happen.
	// The callbacks are called one at a time, on one goroutine, and must not
	// start processes; the traced program stands still as far as it wants to
	// change something.
	Before func(*Call) Action
	// After is told of each call that happened or failed, also of one after
	// which the tree is killed.
	After func(*Call)
	// Data asks for the bytes that are written.
	Data bool
	// Below, when not empty, is a folder: calls that touch nothing in it or
	// below it do not count. sync always counts.
	Below string
}

// Exit is how a traced program ended.
type Exit struct {
	Calls  int  // changing calls that were counted
	Stops  int  // how often any task was stopped, for measurements
	Killed bool // by an Action
	// Status is that of the first process.
	Status syscall.WaitStatus
}
