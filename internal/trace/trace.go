//go:build linux && (amd64 || arm64)

package trace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Run starts cmd, traces it and every process that it starts, and returns when
// none of them is left. When ctx ends it kills all of them and returns its
// error. How the program ended is in Exit; that it failed is no error. Runs at
// the same time do not meet. The command's own Wait must not be called.
func Run(ctx context.Context, cmd *exec.Cmd, o Options) (Exit, error) {
	var exit Exit
	var err error
	onThread(func() { exit, err = run(ctx, cmd, o) })
	return exit, err
}

// onThread calls f on a thread of its own: the kernel lets only the thread that
// traces ask and wait. It is one that has no children yet, and not the main
// one, which gets those of threads that ended: f would take in processes that
// are none of its business.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if unix.Gettid() == unix.Getpid() || hasChildren() {
			onThread(f)
			return
		}
		f()
	}()
	<-done
}

// hasChildren reports whether this thread has started processes that nobody
// has waited for.
func hasChildren() bool {
	return unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL|unix.WNOTHREAD, nil) != unix.ECHILD
}

// Available reports whether this process may trace a program, as an error that
// wraps ErrUnavailable where it may not.
func Available() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Run(ctx, exec.Command("/proc/self/exe"), Options{})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func run(ctx context.Context, cmd *exec.Cmd, o Options) (Exit, error) {
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		return Exit{}, fmt.Errorf("%w: /proc is not of this pid namespace", ErrUnavailable)
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Ptrace = true
	if err := cmd.Start(); errors.Is(err, unix.EPERM) {
		return Exit{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	} else if err != nil {
		return Exit{}, fmt.Errorf("cannot start %s: %w", cmd.Path, err)
	}
	t := &tracer{opts: o, calls: shapes(), first: cmd.Process.Pid, tasks: map[int]*task{}, procs: map[int]int{}}
	err := t.begin()
	stop := context.AfterFunc(ctx, t.kill)
	if err != nil {
		t.fail(err)
	}
	t.loop()
	stop()
	_ = cmd.Wait() // its process is gone: this waits for its outputs
	if t.err == nil && ctx.Err() != nil && !t.ended {
		t.err = context.Cause(ctx)
	}
	return t.exit, t.err
}

// tracer follows one tree of processes.
type tracer struct {
	opts  Options
	calls map[uintptr]shape
	first int // pid of the first process
	tasks map[int]*task
	busy  *task   // the one whose changing call is happening
	queue []*task // those that stand before a changing call
	exit  Exit
	ended bool // nothing was left, and nobody asked to kill
	err   error

	mu    sync.Mutex
	procs map[int]int // pid to pidfd
	dying bool
}

// task is one thread.
type task struct {
	tid, pid int
	stop     info // at which it stands or stood last
	call     *Call
	action   Action
}

const options = unix.PTRACE_O_EXITKILL | unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACESECCOMP | unix.PTRACE_O_TRACEEXEC |
	unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK

// begin takes the first process, which stands at its first instruction.
func (t *tracer) begin() error {
	t.task(t.first)
	var ws unix.WaitStatus
	if _, err := wait(t.first, &ws); err != nil {
		return fmt.Errorf("cannot wait for the program: %w", err)
	}
	if !ws.Stopped() {
		t.gone(t.first, ws)
		return fmt.Errorf("the program ended before its first instruction: %#x", uint32(ws))
	}
	if err := unix.PtraceSetOptions(t.first, options); err != nil {
		return fmt.Errorf("%w: cannot set options: %w", ErrUnavailable, err)
	}
	if err := install(t.first, filter(t.calls)); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err := t.canRead(); err != nil {
		return fmt.Errorf("%w: cannot read memory: %w", ErrUnavailable, err)
	}
	t.resume(t.first, 0)
	return nil
}

// canRead tries to read the stack of the first process: later a failure to read
// a name means that the program has given a wrong address.
func (t *tracer) canRead() error {
	var r unix.PtraceRegs
	err := unix.PtraceGetRegs(t.first, &r)
	if err == nil {
		_, err = t.tasks[t.first].read(uint64(stackPointer(&r)), 8)
	}
	return err
}

// loop handles stops until no task is left.
func (t *tracer) loop() {
	for {
		var ws unix.WaitStatus
		tid, err := wait(-1, &ws)
		if err != nil { // ECHILD: there is nobody to wait for
			break
		}
		t.exit.Stops++
		if ws.Exited() || ws.Signaled() {
			t.gone(tid, ws)
		} else {
			t.stopped(tid, ws)
		}
		t.next()
	}
	t.ended = !t.isDying()
}

// stopped handles one stop.
func (t *tracer) stopped(tid int, ws unix.WaitStatus) {
	k, known := t.tasks[tid]
	if !known {
		k = t.task(tid)
	}
	if t.isDying() {
		return // it has been killed, and need not go on for that
	}
	switch sig := ws.StopSignal(); {
	case sig == sysStop:
		t.happened(k)
	case sig == unix.SIGTRAP && ws.TrapCause() == unix.PTRACE_EVENT_SECCOMP:
		t.queue = append(t.queue, k)
	case sig == unix.SIGTRAP && ws.TrapCause() == unix.PTRACE_EVENT_EXEC:
		t.replaced(k)
	case sig == unix.SIGTRAP && ws.TrapCause() > 0:
		t.resume(tid, 0) // somebody was born, who will stop too
	case sig == unix.SIGSTOP && !known:
		t.resume(tid, 0) // its birth
	case isGroupStop(tid, sig):
		t.resume(tid, 0)
	default:
		t.resume(tid, int(sig))
	}
}

// isGroupStop tells a process that a signal has stopped from one to which the
// signal is about to be delivered.
func isGroupStop(tid int, sig unix.Signal) bool {
	if sig != unix.SIGSTOP && sig != unix.SIGTSTP && sig != unix.SIGTTIN && sig != unix.SIGTTOU {
		return false
	}
	var si unix.Siginfo
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GETSIGINFO, uintptr(tid), 0, uintptr(unsafe.Pointer(&si)), 0, 0)
	return errno == unix.EINVAL
}

// next takes up the next changing calls that wait for their turn.
func (t *tracer) next() {
	for t.busy == nil && len(t.queue) > 0 && !t.isDying() {
		k := t.queue[0]
		t.queue = t.queue[1:]
		t.turn(k)
	}
}

// turn asks what is to become of the call before which k stands.
func (t *tracer) turn(k *task) {
	var err error
	if k.stop, err = look(k.tid); err != nil {
		return // it was killed by somebody else
	}
	if k.stop.data == foreign {
		t.fail(fmt.Errorf("process %d makes calls of another processor", k.pid))
		return
	}
	s, ok := t.calls[uintptr(k.stop.nr)]
	if !ok {
		t.resume(k.tid, 0)
		return
	}
	k.call = t.describe(k, s)
	if k.call == nil {
		t.resume(k.tid, 0)
		return
	}
	t.exit.Calls++
	k.call.N = t.exit.Calls
	k.action = Continue
	if t.opts.Before != nil {
		k.action = t.opts.Before(k.call)
	}
	t.let(k)
}

// let carries out what was decided before a call.
func (t *tracer) let(k *task) {
	if k.action == KillBefore {
		t.exit.Killed = true
		t.kill()
		return
	}
	if k.action > 0 {
		if err := skip(k.tid); err != nil && err != unix.ESRCH {
			t.fail(fmt.Errorf("cannot have a call fail: %w", err))
			return
		}
	}
	t.busy = k
	t.check(unix.PtraceSyscall(k.tid, 0))
}

// happened takes the result of the call that k returns from.
func (t *tracer) happened(k *task) {
	if t.busy != k {
		t.resume(k.tid, 0)
		return
	}
	t.busy = nil
	if k.action > 0 {
		t.check(setResult(k.tid, -int64(k.action)))
		k.call.Result = -int64(k.action)
	} else if info, err := look(k.tid); err == nil {
		k.call.Result = info.result()
	}
	if err := t.complete(k); err != nil {
		t.fail(err)
		return
	}
	if t.opts.After != nil {
		t.opts.After(k.call)
	}
	if k.action == KillAfter {
		t.exit.Killed = true
		t.kill()
		return
	}
	t.resume(k.tid, 0)
}

// task takes up a task that was not known.
func (t *tracer) task(tid int) *task {
	k := &task{tid: tid, pid: tid}
	t.tasks[tid] = k
	if fd, err := unix.PidfdOpen(tid, 0); err == nil {
		t.register(tid, fd)
	} else {
		k.pid = processOf(tid)
	}
	return k
}

// register takes up a process. One that is born when all are to die dies too.
func (t *tracer) register(pid, fd int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.procs[pid] = fd
	if t.dying {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

// replaced handles an exec: the other threads of the process are gone, and the
// one that called it has the pid of the process now.
func (t *tracer) replaced(k *task) {
	if former, err := unix.PtraceGetEventMsg(k.tid); err == nil && int(former) != k.tid {
		t.forget(int(former))
	}
	t.resume(k.tid, 0)
}

// gone forgets a task that ended.
func (t *tracer) gone(tid int, ws unix.WaitStatus) {
	if tid == t.first {
		t.exit.Status = syscall.WaitStatus(ws)
	}
	t.forget(tid)
	t.mu.Lock()
	defer t.mu.Unlock()
	if fd, ok := t.procs[tid]; ok {
		_ = unix.Close(fd)
		delete(t.procs, tid)
	}
}

func (t *tracer) forget(tid int) {
	k := t.tasks[tid]
	delete(t.tasks, tid)
	if k != nil && t.busy == k {
		t.busy = nil
	}
	for i, q := range t.queue {
		if q == k {
			t.queue = append(t.queue[:i:i], t.queue[i+1:]...)
			return
		}
	}
}

// resume lets a task go on, with a signal or 0.
func (t *tracer) resume(tid, sig int) { t.check(unix.PtraceCont(tid, sig)) }

// check ends the run when the kernel refuses what it must not refuse. That a
// task is not there any more is no error: it was killed.
func (t *tracer) check(err error) {
	if err != nil && err != unix.ESRCH {
		t.fail(fmt.Errorf("cannot trace: %w", err))
	}
}

// fail ends the run in err.
func (t *tracer) fail(err error) {
	if t.err == nil {
		t.err = err
	}
	t.kill()
}

// kill kills every process; also from other threads.
func (t *tracer) kill() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dying = true
	for _, fd := range t.procs {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // it may be gone already
	}
}

func (t *tracer) isDying() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dying
}
