//go:build linux && (amd64 || arm64)

package trace

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// argument returns an argument of the call before which k stands, from 1; 0 is
// the argument that is not there.
func (k *task) argument(place int) uint64 {
	if place == 0 {
		return 0
	}
	return k.stop.args[place-1]
}

// descriptor returns an argument as a descriptor, which has 32 bits.
func (k *task) descriptor(place int) int {
	if place == 0 {
		return unix.AT_FDCWD
	}
	return int(int32(k.argument(place)))
}

// describe returns the call before which k stands, or nil when it does not
// count.
func (t *tracer) describe(k *task, s shape) *Call {
	c := &Call{
		Name: s.name, PID: k.pid, TID: k.tid, FD: -1,
		Flags: k.argument(s.flags), Mode: uint32(k.argument(s.mode)),
		Offset: int64(k.argument(s.offset)), Size: int64(k.argument(s.size)),
		UID: -1, GID: -1,
	}
	if s.owner > 0 {
		c.UID, c.GID = int(int32(k.argument(s.owner))), int(int32(k.argument(s.owner+1)))
	}
	counts := true
	switch {
	case s.fd > 0:
		counts = k.ofDescriptor(c, s)
	case s.path > 0:
		counts = k.ofName(c, s)
	}
	if !counts || !t.isBelow(c) {
		return nil
	}
	k.ofContent(c, s, t.opts.Data)
	return c
}

// isBelow reports whether the call is about something in the folder that
// counts.
func (t *tracer) isBelow(c *Call) bool {
	b := t.opts.Below
	if b == "" || c.Name == "sync" {
		return true
	}
	for _, p := range []string{c.Path, c.Path2} {
		if p == b || strings.HasPrefix(p, b+"/") {
			return true
		}
	}
	return false
}

// ofDescriptor fills in what a descriptor stands for.
func (k *task) ofDescriptor(c *Call, s shape) bool {
	c.FD = k.descriptor(s.fd)
	p, ok := k.open(c.FD)
	if !ok || !counts(p) {
		return false
	}
	c.Path, c.Ino, c.Dev, c.Type = p.path, p.ino, p.dev, p.kind
	if s.from > 0 {
		from, _ := k.open(k.descriptor(s.from))
		c.Path2, c.Ino2 = from.path, from.ino
	}
	if s.name == "ioctl" {
		return k.ofRequest(c)
	}
	if c.isWrite() && s.offset == 0 {
		c.Offset = k.position(c.FD)
	}
	if at := k.argument(s.offsetAt); at != 0 {
		if b, err := k.read(at, 8); err == nil {
			c.Offset = int64(order.Uint64(b))
		}
	}
	return true
}

// isWrite reports a call that puts data where the descriptor stands, unless it
// says where.
func (c *Call) isWrite() bool {
	switch c.Name {
	case "write", "writev", "copy_file_range", "sendfile", "splice":
		return true
	}
	return false
}

// ofRequest fills in an ioctl, of which few change something.
func (k *task) ofRequest(c *Call) bool {
	c.Flags &= 1<<32 - 1
	switch c.Flags {
	case unix.FICLONE:
		c.Name = "ficlone"
		from, _ := k.open(int(int32(k.argument(3))))
		c.Path2, c.Ino2 = from.path, from.ino
	case unix.FICLONERANGE:
		c.Name = "ficlonerange"
		b, err := k.read(k.argument(3), 32)
		if err != nil {
			return false
		}
		from, _ := k.open(int(int64(order.Uint64(b))))
		c.Path2, c.Ino2 = from.path, from.ino
		c.Size, c.Offset = int64(order.Uint64(b[16:])), int64(order.Uint64(b[24:]))
	case unix.FS_IOC_SETFLAGS, fsSetXattr:
	default:
		return false
	}
	return true
}

// fsSetXattr is FS_IOC_FSSETXATTR.
const fsSetXattr = 0x401c5820

// ofName fills in what names stand for.
func (k *task) ofName(c *Call, s shape) bool {
	if s.how && !k.readHow(c, s) {
		return false
	}
	if s.name == "creat" {
		c.Flags = unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC
	}
	follow := s.follow && c.Flags&unix.AT_SYMLINK_NOFOLLOW == 0
	if s.opens {
		follow = c.Flags&unix.O_NOFOLLOW == 0 && c.Flags&(unix.O_CREAT|unix.O_EXCL) != unix.O_CREAT|unix.O_EXCL
	}
	if s.name == "linkat" {
		follow = c.Flags&unix.AT_SYMLINK_FOLLOW != 0
	}
	p, err := k.resolve(k.descriptor(s.dir), k.argument(s.path), follow)
	if err != nil || s.opens && c.Flags&(changingFlags) == 0 || !counts(p) {
		return false
	}
	c.Path, c.Ino, c.Dir, c.Dev, c.Type = p.path, p.ino, p.dir, p.dev, p.kind
	if s.opens && p.kind != 0 && p.kind != unix.S_IFREG && p.kind != unix.S_IFDIR {
		return false // a pipe or a device is opened, not made
	}
	if s.target > 0 {
		c.Target, _ = k.text(k.argument(s.target))
	}
	if s.path2 > 0 {
		to, err := k.resolve(k.descriptor(s.dir2), k.argument(s.path2), false)
		if err != nil {
			return false
		}
		c.Path2, c.Ino2, c.Dir2 = to.path, to.ino, to.dir
	}
	return true
}

// readHow reads struct open_how.
func (k *task) readHow(c *Call, s shape) bool {
	b, err := k.read(k.argument(s.path+1), 16)
	if err != nil {
		return false
	}
	c.Flags, c.Mode = order.Uint64(b), uint32(order.Uint64(b[8:]))
	return true
}

// ofContent fills in the bytes and the attribute.
func (k *task) ofContent(c *Call, s shape, data bool) {
	if s.count > 0 {
		c.Size = k.sizeOf(k.argument(s.vec), k.argument(s.count))
	}
	if data && s.buf > 0 {
		c.Data, _ = k.read(k.argument(s.buf), int(c.Size))
	}
	if data && s.count > 0 {
		c.Data = k.gather(k.argument(s.vec), k.argument(s.count))
	}
	if s.attr > 0 {
		c.Attr, _ = k.text(k.argument(s.attr))
		k.ofValue(c, s)
	}
}

// ofValue reads the value that an attribute is set to.
func (k *task) ofValue(c *Call, s shape) {
	switch s.name {
	case "setxattr", "lsetxattr", "fsetxattr":
		c.Data, _ = k.read(k.argument(s.attr+1), int(k.argument(s.attr+2)))
	case "setxattrat": // struct xattr_args: value, size, flags
		if b, err := k.read(k.argument(s.attr+1), 16); err == nil {
			c.Data, _ = k.read(order.Uint64(b), int(order.Uint32(b[8:])))
		}
	}
	c.Size = int64(len(c.Data))
}

// complete fills in what is known once the call has happened.
func (t *tracer) complete(k *task) error {
	c, s := k.call, t.calls[uintptr(k.stop.nr)]
	if c.Result < 0 {
		return nil
	}
	switch {
	case s.opens:
		k.opened(c)
	case s.makes:
		if p, err := k.resolve(k.descriptor(s.dir), k.argument(s.path), false); err == nil {
			c.Ino, c.Type, c.New = p.ino, p.kind, true
		}
	case s.name == "link" || s.name == "linkat":
		c.New, c.Ino2 = true, c.Ino
	case s.from > 0 || c.isWrite() || s.vec > 0 || s.buf > 0:
		c.Size = c.Result
	}
	if !t.opts.Data {
		return nil
	}
	return k.written(c, s)
}

// opened fills in what open made.
func (k *task) opened(c *Call) {
	p, ok := k.open(int(c.Result))
	if !ok {
		return
	}
	c.New = c.Ino == 0
	if c.Flags&unix.O_TMPFILE == unix.O_TMPFILE {
		c.New, c.Dir, c.Path = true, c.Ino, p.path
	}
	c.Ino, c.Type = p.ino, p.kind
}

// written fills in the bytes of a call that has happened: those that did not
// all fit are cut off, those that the kernel copied are read from where they
// went.
func (k *task) written(c *Call, s shape) error {
	if s.buf > 0 || s.vec > 0 {
		c.Data = c.Data[:min(int64(len(c.Data)), c.Size)]
		if int64(len(c.Data)) < c.Size {
			return fmt.Errorf("cannot read the bytes of %s", c)
		}
		return nil
	}
	clone := c.Name == "ficlone" || c.Name == "ficlonerange"
	if !clone && s.from == 0 {
		return nil
	}
	if clone && c.Size == 0 {
		c.Size = k.size(c.FD) - c.Offset
	}
	data, err := k.contents(c.FD, c.Offset, c.Size)
	if err != nil {
		return fmt.Errorf("cannot read what %s wrote: %w", c, err)
	}
	c.Data = data
	return nil
}
