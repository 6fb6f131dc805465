//go:build linux

package script

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	"wait":        func() int { time.Sleep(100 * time.Second); return 0 },
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
		time.Sleep(100 * time.Second)
		return 0
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
