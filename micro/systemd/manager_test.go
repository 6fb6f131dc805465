//go:build linux

package systemd_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/micro/systemctl"
	"github.com/pawl-ota/pawl/micro/systemd"
)

// manager is a systemd of the test's own: a user instance in control groups of
// its own, which knows the units of one folder and those of the machine.
type manager struct {
	t     testing.TB
	units string // the folder of its units
	run   string // its XDG_RUNTIME_DIR
	group string // the name of its control groups
	cmd   *exec.Cmd
	log   *os.File
}

// newManager makes a place for one, and starts nothing.
func newManager(t testing.TB, units string) *manager {
	t.Helper()
	testneeds.Root(t)
	for _, program := range []string{"systemd", "systemctl", "unshare", "mount", "sh"} {
		testneeds.Program(t, program)
	}
	m := &manager{t: t, units: units, run: shortDir(t), group: fmt.Sprintf("pawl-test-%d-%d", os.Getpid(), time.Now().UnixNano())}
	var err error
	m.log, err = os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	t.Cleanup(m.end)
	return m
}

// shortDir is a t.TempDir whose name fits into the address of a socket.
func shortDir(t testing.TB) string {
	dir, err := os.MkdirTemp("", "sd")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// enter moves the shell that runs it into control groups of its own, in every
// hierarchy that can be written to: systemd takes the groups that it finds
// itself in for its own, with every process that is in them. It starts only
// where that worked. A user instance wants a system that was booted with
// systemd: where it was not, the folder that says so is there for it alone.
const enter = `
set -e
for h in /sys/fs/cgroup /sys/fs/cgroup/*; do
	[ -e "$h/cgroup.procs" ] || continue
	mkdir -p "$h/$GROUP" 2>/dev/null || continue
	echo $$ 2>/dev/null >"$h/$GROUP/cgroup.procs" || rmdir "$h/$GROUP"
done
grep -Eq "^[0-9]+:name=systemd:/.*$GROUP$|^0::/.*$GROUP$" /proc/self/cgroup || { echo "no control group of its own"; exit 9; }
! grep -Eq "^[0-9]+:name=systemd:" /proc/self/cgroup || grep -Eq "^[0-9]+:name=systemd:/.*$GROUP$" /proc/self/cgroup || exit 9
[ -d /run/systemd/system ] || { mkdir -p /run/systemd; mount -t tmpfs none /run/systemd; mkdir /run/systemd/system; }
exec env -i PATH="$PATH" HOME="$HOME" XDG_RUNTIME_DIR="$XDG_RUNTIME_DIR" SYSTEMD_UNIT_PATH="$UNITS:" \
	PAWL_GUARD="$PAWL_GUARD" systemd --user --unit="$TARGET" --log-target=console --log-level=info`

// start boots the manager to a target, and returns when it answers.
func (m *manager) start(target string, env ...string) {
	m.t.Helper()
	m.cmd = exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", enter)
	m.cmd.Env = append(os.Environ(), append(env, "GROUP="+m.group, "XDG_RUNTIME_DIR="+m.run, "UNITS="+m.units, "TARGET="+target, "HOME="+m.run)...)
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(m.t, m.cmd.Start())
	ended := make(chan error, 1)
	go func(cmd *exec.Cmd) { ended <- cmd.Wait() }(m.cmd)
	socket := filepath.Join(m.run, "systemd", "private")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 500 {
		if c, err := net.Dial("unix", socket); err == nil {
			require.NoError(m.t, c.Close())
			return
		}
		select {
		case <-tick.C:
		case err := <-ended:
			testneeds.Missing(m.t, fmt.Sprintf("a systemd that can be started here (%v: %s)", err, m.said()))
		}
	}
	m.t.Fatalf("systemd did not come up: %s", m.said())
}

func (m *manager) said() string {
	data, _ := os.ReadFile(m.log.Name())
	return string(data)
}

// cut ends the manager and all it started, as a power cut does.
func (m *manager) cut() {
	if m.cmd == nil {
		return
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		pids := m.processes()
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if len(pids) == 0 {
			break
		}
		<-tick.C
	}
	m.cmd = nil
	require.NoError(m.t, os.RemoveAll(filepath.Join(m.run, "systemd")))
}

func (m *manager) groups() []string {
	all, _ := filepath.Glob("/sys/fs/cgroup/*/" + m.group)
	whole, _ := filepath.Glob("/sys/fs/cgroup/" + m.group)
	return append(all, whole...)
}

// processes are all that are in the manager's control groups.
func (m *manager) processes() []int {
	var pids []int
	for _, g := range m.groups() {
		_ = filepath.WalkDir(g, func(p string, d os.DirEntry, err error) error {
			if err != nil || d.Name() != "cgroup.procs" {
				return nil
			}
			data, _ := os.ReadFile(p)
			for _, line := range strings.Fields(string(data)) {
				var pid int
				if _, err := fmt.Sscan(line, &pid); err == nil && pid > 1 {
					pids = append(pids, pid)
				}
			}
			return nil
		})
	}
	return pids
}

// end removes all that is left.
func (m *manager) end() {
	m.cut()
	for _, g := range m.groups() {
		var dirs []string
		_ = filepath.WalkDir(g, func(p string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append([]string{p}, dirs...)
			}
			return nil
		})
		for _, d := range dirs {
			_ = os.Remove(d)
		}
	}
	if m.t.Failed() {
		m.t.Log(m.said())
	}
	_ = m.log.Close()
}

// address is where the manager itself listens.
func (m *manager) address() string { return "unix:path=" + filepath.Join(m.run, "systemd", "private") }

func (m *manager) supervisor(o systemd.Options) *systemd.Supervisor {
	m.t.Helper()
	o.Address, o.Direct = m.address(), true
	s, err := systemd.New(o)
	require.NoError(m.t, err)
	m.t.Cleanup(func() { require.NoError(m.t, s.Close()) })
	return s
}

// systemctl is the supervisor through the program.
func (m *manager) systemctl() *systemctl.Supervisor {
	return &systemctl.Supervisor{Args: []string{"--user"}, Env: []string{"XDG_RUNTIME_DIR=" + m.run}}
}

// unit writes a unit file.
func (m *manager) unit(name, text string) {
	m.t.Helper()
	require.NoError(m.t, os.WriteFile(filepath.Join(m.units, name), []byte(text), 0o644))
}

// until waits for a state of a service.
func until(t testing.TB, s micro.Supervisor, name string, is func(micro.ServiceState) bool) micro.ServiceState {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var state micro.ServiceState
	for range 1000 {
		var err error
		state, err = s.State(t.Context(), name)
		require.NoError(t, err)
		if is(state) {
			return state
		}
		<-tick.C
	}
	t.Fatalf("%s is %+v", name, state)
	return state
}

func running(s micro.ServiceState) bool { return s.Running }
func down(s micro.ServiceState) bool {
	return !s.Running && !s.Starting && !s.Queued
}

// soon is a context for what has to end in a few seconds.
func soon(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, errors.New("it took too long"))
	t.Cleanup(cancel)
	return ctx
}
