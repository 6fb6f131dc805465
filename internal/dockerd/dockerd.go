//go:build linux

// Package dockerd runs container engines and registries for tests: each with a
// folder, a network, mounts and processes of its own, so that it can be killed
// as a power cut would kill it, and nothing of it is left in the end. The
// engine of the machine is never touched.
package dockerd

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/testneeds"
)

// startLimit bounds how long an engine may take until it answers.
const startLimit = 60 * time.Second

// Engine is a dockerd of a test's own. Its methods are for one goroutine, but
// for Dial, Listen and Within.
type Engine struct {
	t    testing.TB
	dir  string
	root string // of the store
	run  string // what a reboot loses
	mark string // names its control groups
	args []string
	kind kind
	cmd  *exec.Cmd
	hold io.Closer     // ends the engine when it, or the test's process, ends
	done chan struct{} // closed when the process has ended
}

// Start starts an engine with an empty store. It skips where the machine
// cannot run one. The engine is killed and removed when the test ends.
func Start(t testing.TB, args ...string) *Engine {
	t.Helper()
	e := At(t, "", args...)
	e.Restart()
	return e
}

// At is Start for an engine whose store is in the folder root, which stays when the
// test ends, and which [Engine.Launch] starts; an empty root is a new one. It mounts
// what is mounted in root when it is launched.
func At(t testing.TB, root string, args ...string) *Engine {
	t.Helper()
	needs(t)
	dir, err := os.MkdirTemp("", "pawl-dockerd-")
	if err != nil {
		t.Fatal(err)
	}
	if root == "" {
		root = filepath.Join(dir, "data")
	}
	e := &Engine{t: t, dir: dir, root: root, run: filepath.Join(dir, "run"), mark: "pawl-" + strings.ToLower(rand.Text()[:10]), args: args, kind: docker}
	t.Cleanup(e.remove)
	return e
}

// needs skips where the machine cannot run an engine.
func needs(t testing.TB) {
	t.Helper()
	testneeds.Root(t)
	testneeds.Program(t, "dockerd")
	testneeds.Program(t, "containerd")
	testneeds.Program(t, "iptables")
	testneeds.Program(t, "ip")
	testneeds.Program(t, "unshare")
}

// Host is where a client finds the engine: unix://….
func (e *Engine) Host() string { return "unix://" + filepath.Join(e.run, "docker.sock") }

// DataRoot is the folder of the engine's store.
func (e *Engine) DataRoot() string { return e.root }

// Log returns the last lines that the engine wrote.
func (e *Engine) Log() string {
	data, _ := os.ReadFile(filepath.Join(e.dir, "log"))
	return string(data[max(0, len(data)-4000):])
}

// Kill ends the engine, its containerd, its containers and all that they
// started, at once and without a chance to write anything, and takes down its
// network and mounts. It returns when nothing of it runs.
func (e *Engine) Kill() {
	if e.cmd == nil {
		return
	}
	pid, gone := e.inside()
	_ = e.hold.Close()
	<-e.done
	e.cmd = nil
	if gone == nil {
		waitFor(pid)
	}
}

// Stop ends the engine as a shutdown of the machine does.
func (e *Engine) Stop() {
	e.t.Helper()
	if e.cmd == nil {
		return
	}
	if pid, err := e.inside(); err == nil {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	select {
	case <-e.done:
		e.cmd = nil
	case <-time.After(startLimit):
		e.t.Fatalf("the engine does not end:\n%s", e.Log())
	}
}

// Restart starts the engine, as after a boot, when it does not run, and returns
// when it answers.
func (e *Engine) Restart() {
	e.t.Helper()
	if err := e.Launch(); err != nil {
		e.t.Fatal(err)
	}
}

// Launch is Restart with an error for an engine that does not come up, which is
// then ended.
func (e *Engine) Launch() error {
	if e.cmd != nil {
		return nil
	}
	if err := errors.Join(os.RemoveAll(e.run), os.MkdirAll(e.run, 0o700)); err != nil {
		return err
	}
	if err := e.spawn(); err != nil {
		return err
	}
	err := e.ready()
	if err != nil {
		e.Kill()
	}
	return err
}

// waitFor returns when a process is no more, or after a time in which any is.
func waitFor(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 30_000)
}

// keeper runs its arguments as a program until its standard input ends, which
// it does with the test's process too.
const keeper = `exec 3<&0; "$@" & program=$!; (read -r _ <&3; kill -9 $program) & exec 3<&-; wait $program`

// groups mounts control groups where the machine has none mounted: those of
// version 1 that the kernel hands out, else those of version 2.
const groups = `at=/sys/fs/cgroup
[ -e $at/cgroup.controllers ] || [ -e $at/devices/tasks ] || {
	mount -t tmpfs cgroup $at
	while read -r name _ _ enabled; do
		[ "$enabled" != 1 ] || { mkdir $at/$name && mount -t cgroup -o $name cgroup $at/$name || rmdir $at/$name; }
	done </proc/cgroups
	[ -e $at/devices/tasks ] || { umount -R $at && mount -t cgroup2 cgroup $at; }
}
`

// spawn starts the engine as the first process of its own names for processes,
// mounts and networks: when it ends the kernel ends all others and drops what
// they set up.
func (e *Engine) spawn() error {
	log, err := os.OpenFile(filepath.Join(e.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	args := []string{
		"-c", keeper, "keeper", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c",
		groups + e.kind.prepare + `mount -t proc proc /proc && ip link set lo up && exec "$0" "$@"`,
	}
	cmd := exec.Command("sh", slices.Concat(args, e.kind.command(e), e.args)...)
	cmd.Stdout, cmd.Stderr = log, log
	hold, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	e.cmd, e.hold, e.done = cmd, hold, done
	return nil
}

// ready waits until the engine answers.
func (e *Engine) ready() error {
	limit := time.After(startLimit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if answers(filepath.Join(e.run, "docker.sock")) {
			return nil
		}
		select {
		case <-e.done:
			return fmt.Errorf("the engine has ended:\n%s", e.Log())
		case <-limit:
			return fmt.Errorf("the engine does not answer:\n%s", e.Log())
		case <-tick.C:
		}
	}
}

func answers(socket string) bool {
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return false
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("GET /_ping HTTP/1.0\r\n\r\n")); err != nil {
		return false
	}
	line := make([]byte, 12)
	n, _ := c.Read(line)
	return bytes.HasSuffix(line[:n], []byte(" 200"))
}

// inside returns the process that is the engine itself.
func (e *Engine) inside() (int, error) {
	if e.cmd == nil {
		return 0, errors.New("the engine does not run")
	}
	program, err := child(e.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	return child(program)
}

// child returns the first child of a process.
func child(pid int) (first int, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	_, err = fmt.Sscan(string(data), &first)
	return first, err
}

// Dial connects to an address in the engine's network, such as a published port
// at 127.0.0.1.
func (e *Engine) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = e.Within(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Listen listens in the engine's network.
func (e *Engine) Listen(network, address string) (l net.Listener, err error) {
	err = e.Within(func() (err error) {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// Within calls f as a device's program would be: in the engine's network. Goroutines
// that f starts are not there.
func (e *Engine) Within(f func() error) error {
	pid, err := e.inside()
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its network
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			ended <- err
			return
		}
		defer func() { _ = ns.Close() }()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			ended <- err
			return
		}
		ended <- f()
	}()
	return <-ended
}

// Command returns a program that runs in the engine's network.
func (e *Engine) Command(name string, args ...string) (*exec.Cmd, error) {
	pid, err := e.inside()
	if err != nil {
		return nil, err
	}
	return exec.Command("nsenter", append([]string{"--net", "--target", fmt.Sprint(pid), name}, args...)...), nil
}

// remove ends the engine and removes all that it left.
func (e *Engine) remove() {
	e.Kill()
	if err := os.RemoveAll(e.dir); err != nil {
		e.t.Error(err)
	}
	for _, name := range []string{e.mark, e.kind.group} {
		groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
		for _, g := range append(groups, "/sys/fs/cgroup/"+name) {
			if name != "" {
				removeGroup(g)
			}
		}
	}
}

// removeGroup removes a control group and those below it.
func removeGroup(path string) {
	var all []string
	_ = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all = append(all, p)
		}
		return nil
	})
	for i := len(all) - 1; i >= 0; i-- {
		_ = syscall.Rmdir(all[i])
	}
}
