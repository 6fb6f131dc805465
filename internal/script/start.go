//go:build linux

package script

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/seam"
)

const (
	umask       = 0o022
	descriptors = 1024
)

// start starts the program that is in file, with its outputs in out, as leader
// of a new session, and returns its pid.
func start(p seam.Program, file, out *os.File) (int, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, fmt.Errorf("cannot start %s: %w", p.Name, err)
	}
	defer null.Close()
	attr := &syscall.ProcAttr{
		Dir: p.Dir, Env: p.Env,
		Files: []uintptr{null.Fd(), out.Fd(), out.Fd(), file.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	var pid int
	onNewThread(func() {
		separate()
		pid, err = syscall.ForkExec("/proc/self/fd/3", []string{p.Name}, attr)
	})
	if err != nil {
		return 0, fmt.Errorf("cannot start %s: %w", p.Name, explain(p, file, err))
	}
	restrict(pid)
	return pid, nil
}

// onNewThread calls f on a thread that ends afterwards. The main thread never
// ends, so it is not used: it waits, and the next goroutine runs elsewhere.
func onNewThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onNewThread(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

// separate gives the calling thread a umask and a descriptor table of its own,
// in which everything is closed on exec: also what the embedding process got
// from whoever started it, or opened otherwise than Go does. The process itself
// is not changed. Where a kernel before 5.11 runs it in a container that forbids
// unshare, the program inherits what the embedding process lets it inherit.
func separate() {
	if unix.Unshare(unix.CLONE_FS) == nil {
		unix.Umask(umask)
	}
	const all = ^uint(0) >> 1 & 0x7fffffff
	if unix.CloseRange(3, all, unix.CLOSE_RANGE_UNSHARE|unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	if unix.Unshare(unix.CLONE_FILES) == nil {
		closeOnExec()
	}
}

// closeOnExec marks every descriptor of the calling thread, for kernels that
// cannot do it in one call.
func closeOnExec() {
	names, err := readNames("/proc/thread-self/fd")
	if err != nil {
		return
	}
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}

func readNames(folder string) ([]string, error) {
	f, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// restrict sets the resource limits of the program. What the kernel refuses is
// left as it is: they keep an honest program from harm and bind no other.
func restrict(pid int) {
	_ = unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
	var now unix.Rlimit
	if unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &now) == nil {
		now.Cur = min(descriptors, now.Max)
		_ = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &now, nil)
	}
}

// leader is the first process of a program.
type leader struct {
	pid   int
	ended chan struct{} // closed when it ended, or err is set
	err   error         // that it could not be waited for; read it after ended
}

// watch waits for the process without taking its exit status, so that its pid
// stays its own: signals to its group and a look at its session cannot hit
// anybody else until reap was called.
func watch(pid int) *leader {
	l := &leader{pid: pid, ended: make(chan struct{})}
	go func() {
		defer close(l.ended)
		l.err = retry(func() error { return unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) })
	}()
	return l
}

func (l *leader) hasEnded() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

// held reports whether the pid is still its own.
func (l *leader) held() bool { return !l.hasEnded() || l.err == nil }

// reap takes the exit status when the process ends.
func (l *leader) reap() (unix.WaitStatus, error) {
	<-l.ended
	if l.err != nil {
		return 0, l.err
	}
	var ws unix.WaitStatus
	err := retry(func() error { _, err := unix.Wait4(l.pid, &ws, 0, nil); return err })
	return ws, err
}

func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
