//go:build linux && (amd64 || arm64)

package trace

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// install puts the filter into a task that stands before its first
// instruction: the task is made to call prctl and seccomp itself, and is then
// as it was before.
func install(tid int, program []unix.SockFilter) error {
	var before unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &before); err != nil {
		return fmt.Errorf("cannot read registers: %w", err)
	}
	at := programCounter(&before)
	text := make([]byte, len(syscallText()))
	if _, err := unix.PtracePeekText(tid, at, text); err != nil {
		return fmt.Errorf("cannot read the first instruction: %w", err)
	}
	if _, err := unix.PtracePokeText(tid, at, syscallText()); err != nil {
		return fmt.Errorf("cannot write an instruction: %w", err)
	}
	prog, err := place(tid, stackPointer(&before)-16<<10, program)
	if err != nil {
		return fmt.Errorf("cannot write the filter: %w", err)
	}
	if err := makeCall(tid, before, unix.SYS_PRCTL, [4]uintptr{unix.PR_SET_NO_NEW_PRIVS, 1}); err != nil {
		return fmt.Errorf("cannot give up privileges: %w", err)
	}
	if err := makeCall(tid, before, unix.SYS_SECCOMP, [4]uintptr{unix.SECCOMP_SET_MODE_FILTER, 0, prog}); err != nil {
		return fmt.Errorf("cannot install the filter: %w", err)
	}
	if _, err := unix.PtracePokeText(tid, at, text); err != nil {
		return fmt.Errorf("cannot restore the first instruction: %w", err)
	}
	return unix.PtraceSetRegs(tid, &before)
}

// place writes a struct sock_fprog and the instructions it points to below the
// stack of tid, and returns its address.
func place(tid int, below uintptr, program []unix.SockFilter) (uintptr, error) {
	at := below &^ 15
	head := make([]byte, 16)
	order.PutUint16(head, uint16(len(program)))
	order.PutUint64(head[8:], uint64(at+16))
	code := unsafe.Slice((*byte)(unsafe.Pointer(&program[0])), len(program)*int(unsafe.Sizeof(program[0])))
	_, err := unix.PtracePokeData(tid, at, append(head, code...))
	return at, err
}

// makeCall has tid make one call, and waits until it returned.
func makeCall(tid int, r unix.PtraceRegs, nr uintptr, args [4]uintptr) error {
	enter(&r, nr, args)
	if err := unix.PtraceSetRegs(tid, &r); err != nil {
		return err
	}
	for range 2 { // at its entry and at its exit
		if err := unix.PtraceSyscall(tid, 0); err != nil {
			return err
		}
		var ws unix.WaitStatus
		if _, err := wait(tid, &ws); err != nil {
			return err
		}
		if !ws.Stopped() || ws.StopSignal() != sysStop {
			return fmt.Errorf("the program did not stop at a call but with %#x", uint32(ws))
		}
	}
	info, err := look(tid)
	if err != nil {
		return err
	}
	if v := info.result(); v < 0 {
		return unix.Errno(-v)
	}
	return nil
}

// sysStop is the signal of a stop at the entry or the exit of a call.
const sysStop = unix.SIGTRAP | 0x80

// info is struct ptrace_syscall_info.
type info struct {
	op     uint8
	_      [3]byte
	arch   uint32
	ip, sp uint64
	nr     uint64 // at an exit: the result
	args   [6]uint64
	data   uint32 // what the filter said
	_      uint32
}

func (i *info) result() int64 { return int64(i.nr) }

// look asks at which call tid stands.
func look(tid int) (info, error) {
	var i info
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(i), uintptr(unsafe.Pointer(&i)), 0, 0)
	if errno != 0 {
		return i, errno
	}
	return i, nil
}

// wait waits for one task of this thread, or with -1 for any of them: not for
// children that other threads of this process have.
func wait(tid int, ws *unix.WaitStatus) (int, error) {
	for {
		got, err := unix.Wait4(tid, ws, unix.WALL|unix.WNOTHREAD, nil)
		if err != unix.EINTR {
			return got, err
		}
	}
}
