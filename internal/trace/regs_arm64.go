//go:build linux

package trace

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	auditArch = unix.AUDIT_ARCH_AARCH64
	// foreignFrom is beyond every number: there is one table of calls.
	foreignFrom = 0x40000000
)

// syscallText is the instruction that enters the kernel: svc #0.
func syscallText() []byte { return []byte{0x01, 0x00, 0x00, 0xd4} }

// enter has r make a call with the instruction at its program counter.
func enter(r *unix.PtraceRegs, nr uintptr, args [4]uintptr) {
	r.Regs[8] = uint64(nr)
	for i, a := range args {
		r.Regs[i] = uint64(a)
	}
}

func programCounter(r *unix.PtraceRegs) uintptr { return uintptr(r.Pc) }
func stackPointer(r *unix.PtraceRegs) uintptr   { return uintptr(r.Sp) }

// skip has the call at which tid stands not happen. The number is in a set of
// registers of its own.
func skip(tid int) error {
	none := int32(-1)
	set := unix.Iovec{Base: (*byte)(unsafe.Pointer(&none)), Len: uint64(unsafe.Sizeof(none))}
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SETREGSET, uintptr(tid), unix.NT_ARM_SYSTEM_CALL, uintptr(unsafe.Pointer(&set)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// setResult has the call that tid returns from return v.
func setResult(tid int, v int64) error {
	var r unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &r); err != nil {
		return err
	}
	r.Regs[0] = uint64(v)
	return unix.PtraceSetRegs(tid, &r)
}

var order = binary.LittleEndian

// more are the calls that only this processor has: none.
func more() map[uintptr]shape { return nil }
