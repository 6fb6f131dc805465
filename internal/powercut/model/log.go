//go:build linux

package model

import (
	"fmt"

	"github.com/pawl-ota/pawl/internal/seam"
)

// Kind is what a call does. A call of the kernel that does two things is two
// Ops.
type Kind string

// The kinds of Op.
const (
	Create   Kind = "create"   // Path: a new file, with Inode, ID, Mode, UID, GID; no Path where it has no name yet
	Mkdir    Kind = "mkdir"    // as Create
	Symlink  Kind = "symlink"  // as Create, to Text
	Link     Kind = "link"     // Path2: one more name of Inode
	Unlink   Kind = "unlink"   // Path, of a file or a folder
	Rename   Kind = "rename"   // Path to Path2
	Exchange Kind = "exchange" // Path with Path2
	Write    Kind = "write"    // Data to Inode at Offset
	Truncate Kind = "truncate" // Inode to the length Offset
	Chmod    Kind = "chmod"    // Inode to Mode
	Chown    Kind = "chown"    // Inode to UID and GID
	Times    Kind = "times"    // Inode to Mtime
	SetXattr Kind = "setxattr" // Inode: Text is Data
	DelXattr Kind = "delxattr" // Inode: Text goes
	Fsync    Kind = "fsync"    // Inode
	Datasync Kind = "fdatasync"
	SyncAll  Kind = "sync" // everything
	Fact     Kind = "fact" // Text was acknowledged
	Killed   Kind = "kill" // the process ends here, and the next one begins
)

// Op is one call, after it succeeded.
type Op struct {
	Kind     Kind
	Path     string // relative to the folder that is modelled
	Path2    string
	Inode    uint64 // the inode that it is about, by its number in the recording
	Mode     uint32 // permission bits; of a new inode its type too
	UID, GID uint32
	Offset   int64
	Data     []byte
	Text     string
	// ID is what the program knows Inode by, after it, and Mtime when its content
	// changed last, in nanoseconds since 1970; 0 where they are not known.
	ID    seam.Ident
	Mtime int64
}

// String describes the call for a person.
func (o *Op) String() string {
	what := o.Path
	switch o.Kind {
	case Rename, Exchange, Link:
		return fmt.Sprintf("%s %s -> %s", o.Kind, o.Path, o.Path2)
	case Write:
		return fmt.Sprintf("write %s [%d:%d]", what, o.Offset, o.Offset+int64(len(o.Data)))
	case Truncate:
		return fmt.Sprintf("truncate %s %d", what, o.Offset)
	case Chmod:
		return fmt.Sprintf("chmod %s %o", what, o.Mode)
	case Fact, SetXattr, DelXattr, Symlink:
		return fmt.Sprintf("%s %s %s", o.Kind, what, o.Text)
	}
	return fmt.Sprintf("%s %s", o.Kind, what)
}

// matters reports a call that others are ordered by.
func (o *Op) matters() bool {
	return o.isSync() || o.Kind == Fact || o.Kind == Rename || o.Kind == Exchange || o.Kind == Unlink
}

// isSync reports whether the op makes something durable.
func (o *Op) isSync() bool { return o.Kind == Fsync || o.Kind == Datasync || o.Kind == SyncAll }
