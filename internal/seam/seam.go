// Package seam is the one place where the engine of package ota can be put on
// another machine than the real one: a simulated device whose power can be
// cut. Nothing outside this module can reach it.
package seam

import (
	"context"
	"io"
	"sync/atomic"
	"time"
)

// Host is what the engine asks of the machine it runs on.
type Host interface {
	// Boot returns an id that is new at every boot.
	Boot() (string, error)
	// Process returns an id of this process that no other process of this
	// boot has or had.
	Process() (string, error)
	// Now returns the wall clock, which may be wrong.
	Now() time.Time
	// Uptime returns the running time since boot; it never jumps.
	Uptime() time.Duration
	// Sleep waits for d or until ctx ends, whose error it then returns.
	Sleep(ctx context.Context, d time.Duration) error
	// Space returns what is free for this process on the file system of path
	// (or of the nearest folder above it that exists), and a word that tells
	// file systems apart.
	Space(path string) (bytes, inodes int64, fs string, err error)
	// Memory returns how many bytes of memory this process holds, and how many
	// it could get above that.
	Memory() (held, available int64, err error)
	// Run runs a program to its end, and ends every process that it left. The
	// error is that the program could not be started at all, or could not be
	// ended; how it ended otherwise is in Ran.
	Run(ctx context.Context, p Program) (Ran, error)
	// End ends the processes that an earlier Run with the mark left behind,
	// when the process that called it was killed. It returns when none is left.
	End(ctx context.Context, mark string) error
}

// Program is a script to be run.
type Program struct {
	// Name is argv[0], and the only argument.
	Name string
	// Open returns the bytes of the executable; they are verified when it ends
	// in io.EOF.
	Open func() (io.ReadCloser, error)
	Size int64 // bytes of the executable
	// Env is the whole environment.
	Env []string
	Dir string // the working folder
	// Limit is how long it may take. When that is over, or the context ends,
	// it is told to stop with SIGTERM, and killed a little later.
	Limit time.Duration
	// Mark is one of Env, "NAME=VALUE", that no other run has: its processes
	// are known by it.
	Mark string
	// MaxOutput is how many bytes of its output are kept: the last ones.
	MaxOutput int
}

// Ran is how a program ended.
type Ran struct {
	Exit     int    // exit code, or -1
	Signal   string // the name of the signal that ended it, or empty
	TimedOut bool   // it was still running when Limit was over
	Left     int    // processes that it left behind, and that were ended
	Output   []byte // the end of stdout and stderr together
	Cut      int64  // bytes of output before that, not kept
	Took     time.Duration
}

// Dir is the folder that the engine keeps its state in. Names are slash
// separated and relative. WriteFile, Remove, RemoveAll and File.Commit are
// atomic, and durable when they return nil.
type Dir interface {
	// ReadFile returns the content of name, or an error that is fs.ErrNotExist.
	// It reads at most max bytes, and refuses a longer file.
	ReadFile(name string, max int64) ([]byte, error)
	// WriteFile replaces name by data.
	WriteFile(name string, data []byte) error
	// Create begins a file that gets its name at Commit.
	Create(name string) (File, error)
	// Open opens name for reading. The reader is an [io.ReaderAt] too.
	Open(name string) (io.ReadCloser, error)
	// Size returns the length of name in bytes, or an error that is
	// fs.ErrNotExist.
	Size(name string) (int64, error)
	// Append opens name for writing behind its first size bytes, and drops what
	// follows them; with 0 it makes the file when it is not there. What is
	// written can be read at once, and outlives the process; a power cut may
	// take it, the name with it, or leave garbage in its place until
	// Log.Persist returned.
	Append(name string, size int64) (Log, error)
	// Clear removes all files of folder, for garbage: a power cut may bring them
	// back.
	Clear(folder string) error
	// Remove removes name; a name that is not there is no error.
	Remove(name string) error
	// RemoveEach removes names of folder, one after the other, and is durable as
	// a whole.
	RemoveEach(folder string, names []string) error
	// List returns the names in folder, sorted; none when it is not there.
	List(folder string) ([]string, error)
	// Lock takes the folder for this process, waiting at most wait.
	Lock(ctx context.Context, wait time.Duration) (unlock func() error, err error)
	// SyncNames makes durable the names in folder, "." for the top, of files that
	// WriteFile, Create or Remove of another process gave or took: one that was
	// killed may have been about to.
	SyncNames(folder string) error
	// Sync makes durable everything that File.Place named before.
	Sync() error
	// Close lets go of what the Dir holds open.
	Close() error
}

// Log is a file that is being written behind its end.
type Log interface {
	io.WriteCloser
	// Persist makes durable what was written, and the name.
	Persist() error
}

// File is a file that is being written under no name yet.
type File interface {
	io.Writer
	// Commit makes the bytes durable and gives them the name.
	Commit() error
	// Place gives the bytes the name without making either durable: until
	// Dir.Sync returned, a power cut may leave the name with anything under
	// it or none at all. It is for content that is verified whenever it is
	// read, where thousands of files share one Sync.
	Place() error
	// Abort drops the bytes. It does nothing after Commit or Place.
	Abort() error
}

// Set puts the Options of package ota that options points to on another host
// and another state folder. Package ota fills it in.
var Set func(options any, host Host, dir Dir)

// Machine is the real machine, for a Host that differs from it in a part.
// Package ota fills it in.
var Machine Host

// Step, when a test set it, stands between ota/durable and every call of it
// that changes what a power cut leaves behind: it sees them in order, and may
// leave one out or fail it.
var Step atomic.Pointer[func(op, path string, call func() error) error]

// Leave, when a test set it, says which steps of ota/durable are left out, as
// if they had succeeded and before Step sees them.
var Leave atomic.Pointer[func(op string) bool]

// Ident is what the kernel says an inode is known by: its number, when it was
// made, and when it was last changed, in nanoseconds since 1970.
type Ident struct {
	Ino          uint64
	Birth, Ctime int64
}

// Inode, when a test set it, stands between package micro and the kernel: it may
// say that an inode is another one. A disk that is laid out anew after a
// simulated power cut has other inodes than it had.
var Inode atomic.Pointer[func(*Ident)]
