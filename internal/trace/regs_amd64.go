//go:build linux

package trace

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const (
	auditArch = unix.AUDIT_ARCH_X86_64
	// foreignFrom is the first number of another table of calls: x32's.
	foreignFrom = 0x40000000
)

// syscallText is the instruction that enters the kernel.
func syscallText() []byte { return []byte{0x0f, 0x05} }

// enter has r make a call with the instruction at its program counter.
func enter(r *unix.PtraceRegs, nr uintptr, args [4]uintptr) {
	r.Orig_rax, r.Rax = ^uint64(0), uint64(nr)
	r.Rdi, r.Rsi, r.Rdx, r.R10 = uint64(args[0]), uint64(args[1]), uint64(args[2]), uint64(args[3])
}

func programCounter(r *unix.PtraceRegs) uintptr { return uintptr(r.Rip) }
func stackPointer(r *unix.PtraceRegs) uintptr   { return uintptr(r.Rsp) }

// skip has the call at which tid stands not happen.
func skip(tid int) error {
	var r unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &r); err != nil {
		return err
	}
	r.Orig_rax = ^uint64(0)
	return unix.PtraceSetRegs(tid, &r)
}

// setResult has the call that tid returns from return v.
func setResult(tid int, v int64) error {
	var r unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &r); err != nil {
		return err
	}
	r.Rax = uint64(v)
	return unix.PtraceSetRegs(tid, &r)
}

var order = binary.LittleEndian

// more are the calls that only this processor has.
func more() map[uintptr]shape {
	return map[uintptr]shape{
		unix.SYS_OPEN:      {name: "open", path: 1, flags: 2, mode: 3, opens: true},
		unix.SYS_CREAT:     {name: "creat", path: 1, mode: 2, opens: true},
		unix.SYS_MKDIR:     {name: "mkdir", path: 1, mode: 2, makes: true},
		unix.SYS_MKNOD:     {name: "mknod", path: 1, mode: 2, makes: true},
		unix.SYS_SYMLINK:   {name: "symlink", target: 1, path: 2, makes: true},
		unix.SYS_LINK:      {name: "link", path: 1, path2: 2},
		unix.SYS_UNLINK:    {name: "unlink", path: 1},
		unix.SYS_RMDIR:     {name: "rmdir", path: 1},
		unix.SYS_RENAME:    {name: "rename", path: 1, path2: 2},
		unix.SYS_CHMOD:     {name: "chmod", path: 1, mode: 2, follow: true},
		unix.SYS_CHOWN:     {name: "chown", path: 1, owner: 2, follow: true},
		unix.SYS_LCHOWN:    {name: "lchown", path: 1, owner: 2},
		unix.SYS_UTIME:     {name: "utime", path: 1, follow: true},
		unix.SYS_UTIMES:    {name: "utimes", path: 1, follow: true},
		unix.SYS_FUTIMESAT: {name: "futimesat", dir: 1, path: 2, follow: true},
	}
}
