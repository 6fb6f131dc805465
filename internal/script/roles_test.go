//go:build linux

package script

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/seam"
)

// roles are what the test binary does as a program.
var roles = map[string]func() int{
	"environment": environmentRole,
	"agent":       agentRole,
	"drop mark":   dropMarkRole,
	"forks on":    func() int { return forksOn(0) },
	"fork":        forkRole,
	"descriptors": descriptorsRole,
	"container":   containerRole,
	"main thread": mainThreadRole,
	"no children": noChildrenRole,
	"wait":        waitRole,
}

// waitRole is still there when the test looks.
func waitRole() int {
	_ = pause(context.Background(), 100*time.Second)
	return 0
}

// environmentRole shows what it was given.
func environmentRole() int {
	dir, _ := unix.Getwd()
	fmt.Printf("%d %v %s\n%s\n", len(os.Args)-1, os.Args, dir, strings.Join(os.Environ(), "\n"))
	return 0
}

// agentRole runs the program in PROGRAM and is killed meanwhile.
func agentRole() int {
	path := os.Getenv("PROGRAM")
	info, err := os.Stat(path)
	if err == nil {
		_, err = Run(context.Background(), seam.Program{
			Name: "hello", Size: info.Size(), Open: func() (io.ReadCloser, error) { return os.Open(path) },
			Env: []string{"PATH=/usr/bin:/bin", os.Getenv("MARK")}, Mark: os.Getenv("MARK"), Dir: os.Getenv("DIR"), Limit: time.Minute,
		})
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// dropMarkRole leaves a process that has its output and none of the signs.
func dropMarkRole() int {
	fmt.Println("last words")
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"wait"}, &syscall.ProcAttr{
		Env: []string{roleName + "=wait"}, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if err := os.WriteFile(filepath.Join(os.Getenv("DIR"), "pids"), []byte(strconv.Itoa(pid)), 0o600); err != nil {
		return 1
	}
	return 0
}

// forkRole is one link of a chain: it starts the next, and ends.
func forkRole() int {
	n, _ := strconv.Atoi(os.Getenv("LINK"))
	return forksOn(n + 1)
}

// forksOn goes on for some 500 processes, each in a session of its own.
func forksOn(n int) int {
	if n == 500 {
		return waitRole()
	}
	env := []string{roleName + "=fork", "LINK=" + strconv.Itoa(n)}
	mark := ""
	for _, e := range os.Environ() {
		if strings.HasPrefix(e, "PAWL_RUN=") {
			mark = e
			env = append(env, e)
		}
	}
	_, err := syscall.ForkExec("/proc/self/exe", []string{"link", mark}, &syscall.ProcAttr{
		Env: env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 1
	}
	return 0
}

// descriptorsRole lists what it has open, but for what Go opened in it.
func descriptorsRole() int {
	var lines []string
	for fd := range 1024 {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue
		}
		name, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		name, _, _ = strings.Cut(name, ":[")
		lines = append(lines, fmt.Sprint(fd, " ", name))
	}
	fmt.Println(strings.Join(lines, "\n"))
	return 0
}

// noChildrenRole has the kernel take in its children by itself.
func noChildrenRole() int {
	signal.Ignore(syscall.SIGCHLD)
	const text, mark = "#!/bin/sh\nsleep 100 & echo $!; exit 3\n", "PAWL_RUN=no-children"
	ran, err := quick.run(context.Background(), seam.Program{
		Name: "hello", Open: source([]byte(text), nil), Size: int64(len(text)),
		Env: []string{"PATH=/usr/bin:/bin", mark}, Mark: mark, Dir: "/", Limit: 10 * time.Second, MaxOutput: 100,
	})
	left, _ := strconv.Atoi(strings.TrimSpace(string(ran.Output)))
	fmt.Println(err, ran.Exit, ran.Left, alive(left))
	return 0
}

// mainThreadRole has nothing but the main thread to run on.
func mainThreadRole() int {
	runtime.GOMAXPROCS(1)
	met := false
	for range 100 {
		met = met || unix.Gettid() == unix.Getpid()
		onNewThread(func() {
			separate()
			if unix.Gettid() == unix.Getpid() {
				fmt.Println("on the main thread")
				os.Exit(1)
			}
		})
		runtime.Gosched()
	}
	fmt.Println(met)
	return 0
}

// containerRole is process 1.
func containerRole() int {
	try := func(text string) (seam.Ran, error) {
		mark := "PAWL_RUN=" + rand.Text()
		return quick.run(context.Background(), seam.Program{
			Name: "hello", Open: source([]byte(text), nil), Size: int64(len(text)),
			Env: []string{"PATH=/usr/bin:/bin", mark}, Mark: mark, Dir: "/", Limit: 10 * time.Second, MaxOutput: 100,
		})
	}
	must := func(what string, ok bool, more ...any) {
		if !ok {
			fmt.Println("not so:", what, more)
			os.Exit(1)
		}
	}
	const noexec = "/proc/sys/vm/memfd_noexec"
	_, err := try("#!/bin/sh\n")
	must("a foreign /proc is refused", err != nil && strings.Contains(err.Error(), "another pid namespace"), err)
	fmt.Println(err)
	must("mount", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") == nil)
	must("mount", unix.Mount("proc", "/proc", "proc", 0, "") == nil)
	soon := false // a busy machine may take longer
	for i := 0; i < 3 || !soon && i < 30; i++ {
		began := time.Now()
		ran, err := try("#!/bin/sh\nsleep 100 & setsid sleep 100 & (sleep 100 & )\nexit 3\n")
		must("it runs", err == nil && ran.Exit == 3 && ran.Left >= 3, err, ran)
		soon = soon || time.Since(began) < maxDoubt
	}
	must("the dead are looked at once", soon)
	if os.WriteFile(noexec, []byte("1"), 0) != nil {
		return 0 // before Linux 6.3
	}
	ran, err := try("#!/bin/sh\nexit 4\n")
	must("programs in memory, when asked for", err == nil && ran.Exit == 4, err, ran)
	must("forbid them", os.WriteFile(noexec, []byte("2"), 0) == nil)
	_, err = try("#!/bin/sh\n")
	must("that is said", err != nil && strings.Contains(err.Error(), "vm.memfd_noexec"), err)
	fmt.Println(err)
	return 0
}
