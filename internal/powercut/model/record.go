//go:build linux && (amd64 || arm64)

package model

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/internal/trace"
)

// The names in a folder in which something is recorded.
const (
	diskName   = "disk"
	factsName  = "facts"  // what is written to it is a fact
	inodesName = "inodes" // of known.write
)

// recorder makes a History of the calls that it is told of.
type recorder struct {
	root  string
	facts string
	see   func(*seam.Ident)
	h     *History
	calls int
	err   error
}

// newRecorder begins with the disk in the folder base.
func newRecorder(base string, see func(*seam.Ident)) (*recorder, error) {
	base, err := filepath.EvalSymlinks(base)
	if err != nil {
		return nil, err
	}
	r := &recorder{root: filepath.Join(base, diskName), facts: filepath.Join(base, factsName), see: see}
	start, err := Scan(r.root, see)
	if err != nil {
		return nil, err
	}
	real := map[string]uint64{}
	for _, e := range start {
		var sx unix.Statx_t
		if err := statx(filepath.Join(r.root, e.Path), &sx); err != nil {
			return nil, err
		}
		real[e.Path] = sx.Ino
	}
	r.h, err = NewHistory(start, real)
	return r, err
}

// run records one process, until kill, if it is there, is true.
func (r *recorder) run(ctx context.Context, cmd *exec.Cmd, kill func(*History) bool) error {
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	exit, err := trace.Run(ctx, cmd, trace.Options{
		Data: true, Below: filepath.Dir(r.root),
		Before: func(*trace.Call) trace.Action {
			if r.calls++; kill != nil && kill(r.h) {
				return trace.KillBefore
			}
			return trace.Continue
		},
		After: r.after,
	})
	if err := errors.Join(err, r.err); err != nil {
		return fmt.Errorf("cannot record: %w", err)
	}
	if exit.Killed != (kill != nil) || !exit.Killed && exit.Status.ExitStatus() != 0 {
		return fmt.Errorf("cannot record: the workload ended in %#x after %d calls: %s", uint32(exit.Status), r.calls, out.String())
	}
	if exit.Killed {
		r.add(Op{Kind: Killed})
	}
	return errors.Join(r.err, r.compare())
}

// compare holds the model against the disk: nothing was missed.
func (r *recorder) compare() error {
	now, err := Scan(r.root, r.see)
	if err != nil {
		return err
	}
	return r.h.End().same(now)
}

func (r *recorder) after(c *trace.Call) {
	if c.Result < 0 || r.err != nil {
		return
	}
	if c.Path == r.facts {
		for line := range strings.Lines(string(c.Data)) {
			r.add(Op{Kind: Fact, Text: strings.TrimSpace(line)})
		}
		return
	}
	in, in2 := r.rel(c.Path) != "", r.rel(c.Path2) != ""
	switch c.Name {
	case "link", "linkat", "rename", "renameat", "renameat2":
		if in != in2 {
			r.fail(c, "from a disk to another")
		}
		in = in && in2
	}
	if in || c.Name == "sync" {
		r.call(c)
	}
}

func (r *recorder) fail(c *trace.Call, why string) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %s", c, why)
	}
}

func (r *recorder) add(o Op) {
	if err := r.h.Add(o); err != nil && r.err == nil {
		r.err = err
	}
}

// rel returns a path as the model has it, or empty for one outside.
func (r *recorder) rel(p string) string {
	if p == r.root {
		return "."
	}
	if rest, ok := strings.CutPrefix(p, r.root+"/"); ok {
		return rest
	}
	return ""
}

// call adds what a call on the disk did.
func (r *recorder) call(c *trace.Call) {
	o := Op{Path: r.rel(c.Path), Path2: r.rel(c.Path2), Inode: c.Ino, Text: c.Attr, Data: c.Data}
	switch c.Name {
	case "open", "openat", "openat2", "creat":
		r.opened(c, o)
	case "write", "pwrite64", "writev", "pwritev", "pwritev2", "copy_file_range", "sendfile", "splice", "ficlone", "ficlonerange":
		o.Kind, o.Offset = Write, c.Offset
		r.addSeen(c, o)
	case "truncate", "ftruncate":
		o.Kind, o.Offset = Truncate, c.Size
		r.addSeen(c, o)
	case "fallocate":
		r.allocated(c, o)
	case "mkdir", "mkdirat":
		o.Kind = Mkdir
		r.addNew(c, o)
	case "symlink", "symlinkat":
		o.Kind, o.Text = Symlink, c.Target
		r.addNew(c, o)
	case "mknod", "mknodat":
		o.Kind = Create
		r.addNew(c, o)
	case "fsync", "fdatasync":
		o.Kind = Kind(c.Name)
		r.add(o)
	case "sync", "syncfs":
		o.Kind = SyncAll
		r.add(o)
	case "sync_file_range": // promises nothing
	case "rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "rmdir":
		r.named(c, o)
	default:
		r.changed(c, o)
	}
}

func (r *recorder) opened(c *trace.Call, o Op) {
	c.FD = int(c.Result)
	if c.New {
		o.Kind = Create
		if c.Flags&unix.O_TMPFILE == unix.O_TMPFILE {
			o.Path = ""
		}
		r.addNew(c, o)
	} else if c.Flags&unix.O_TRUNC != 0 {
		o.Kind = Truncate
		r.addSeen(c, o)
	}
}

func (r *recorder) allocated(c *trace.Call, o Op) {
	if c.Flags&^unix.FALLOC_FL_KEEP_SIZE != 0 {
		r.fail(c, "this way to allocate is not modelled")
	}
	o.Kind, o.Offset = Truncate, c.Offset+c.Size
	if i := r.h.real[c.Ino]; c.Flags == 0 && i != nil && o.Offset > int64(len(i.now.Data)) {
		r.addSeen(c, o)
	}
}

// named adds a call that only changes names.
func (r *recorder) named(c *trace.Call, o Op) {
	switch {
	case strings.HasPrefix(c.Name, "link"):
		o.Kind = Link
	case !strings.HasPrefix(c.Name, "rename"):
		o.Kind = Unlink
		r.add(o)
		return
	case c.Name == "renameat2" && c.Flags&unix.RENAME_EXCHANGE != 0:
		o.Kind = Exchange
	case c.Name == "renameat2" && c.Flags&unix.RENAME_WHITEOUT != 0:
		r.fail(c, "whiteouts are not modelled")
	default:
		o.Kind = Rename
	}
	c.Path, c.FD = c.Path2, -1
	r.addSeen(c, o)
}

// changed adds a change of metadata.
func (r *recorder) changed(c *trace.Call, o Op) {
	switch {
	case strings.Contains(c.Name, "chmod"):
		o.Kind = Chmod
	case strings.Contains(c.Name, "chown"):
		o.Kind = Chown
	case strings.Contains(c.Name, "utime"):
		o.Kind = Times
	case strings.Contains(c.Name, "setxattr"):
		o.Kind = SetXattr
	case strings.Contains(c.Name, "removexattr"):
		o.Kind = DelXattr
	default:
		r.fail(c, "this call is not modelled")
		return
	}
	r.addSeen(c, o)
}

// look says what the call's file is now. Its process stands still.
func (r *recorder) look(c *trace.Call) (sx unix.Statx_t, ok bool) {
	err := statx(c.Path, &sx)
	if c.FD >= 0 {
		name := "/proc/" + strconv.Itoa(c.TID) + "/fd/" + strconv.Itoa(c.FD)
		err = unix.Statx(unix.AT_FDCWD, name, 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &sx)
	}
	if err != nil {
		r.fail(c, "cannot look at it: "+err.Error())
	}
	return sx, err == nil
}

func (r *recorder) addSeen(c *trace.Call, o Op) {
	sx, ok := r.look(c)
	if !ok {
		return
	}
	o.ID, o.Mtime = identOf(&sx), nanos(sx.Mtime)
	if r.see != nil {
		r.see(&o.ID)
	}
	o.Mode, o.UID, o.GID = uint32(sx.Mode), sx.Uid, sx.Gid
	r.add(o)
}

// addNew adds a new inode.
func (r *recorder) addNew(c *trace.Call, o Op) {
	if o.Inode == 0 {
		r.fail(c, "it is not known what was made")
		return
	}
	r.addSeen(c, o)
}

// self starts this program again, for the workload that the environment names.
func self(ctx context.Context, env ...string) (*exec.Cmd, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(os.Environ(), env...)
	return cmd, nil
}
