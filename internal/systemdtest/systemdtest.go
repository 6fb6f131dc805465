//go:build linux

// Package systemdtest gives a test a systemd of its own: a user instance in control
// groups of its own, which knows the units of one folder and those of the machine.
package systemdtest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/pawl-ota/pawl/internal/testneeds"
)

// patience is how long a start may take, and an end: a disk that others write to
// can keep both waiting for half a minute.
const patience = 3 * time.Minute

// Manager is one. Its methods fail the test.
type Manager struct {
	Units string // the folder of its units
	Run   string // its XDG_RUNTIME_DIR

	t     testing.TB
	group string // the name of its control groups
	cmd   *exec.Cmd
	log   *os.File
}

// New makes a place for one, and starts nothing. It skips, or fails with CI=true,
// where there cannot be one.
func New(t testing.TB, units string) *Manager {
	t.Helper()
	testneeds.Root(t)
	for _, program := range []string{"systemd", "systemctl", "unshare", "mount", "sh"} {
		testneeds.Program(t, program)
	}
	m := &Manager{t: t, Units: units, group: fmt.Sprintf("pawl-test-%d-%d", os.Getpid(), time.Now().UnixNano())}
	var err error
	m.Run, err = os.MkdirTemp("", "sd") // a name that fits into the address of a socket
	m.must(err)
	m.log, err = os.Create(filepath.Join(t.TempDir(), "log"))
	m.must(err)
	t.Cleanup(m.end)
	return m
}

func (m *Manager) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// Unit writes a unit file.
func (m *Manager) Unit(name, text string) {
	m.t.Helper()
	m.must(os.WriteFile(filepath.Join(m.Units, name), []byte(text), 0o644))
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

// Start boots the manager to a target, and returns when it answers.
func (m *Manager) Start(target string, env ...string) {
	m.t.Helper()
	m.cmd = exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", enter)
	m.cmd.Env = append(os.Environ(), append(env, "GROUP="+m.group, "XDG_RUNTIME_DIR="+m.Run, "UNITS="+m.Units, "TARGET="+target, "HOME="+m.Run)...)
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	m.must(m.cmd.Start())
	ended := make(chan error, 1)
	go func(cmd *exec.Cmd) { ended <- cmd.Wait() }(m.cmd)
	tick, limit := time.NewTicker(20*time.Millisecond), time.After(patience)
	defer tick.Stop()
	for {
		if c, err := net.Dial("unix", m.socket()); err == nil {
			m.must(c.Close())
			return
		}
		select {
		case <-tick.C:
		case err := <-ended:
			testneeds.Missing(m.t, fmt.Sprintf("a systemd that can be started here (%v: %s)", err, m.said()))
		case <-limit:
			m.t.Fatalf("systemd did not come up within %v: %s\n%s", patience, m.said(), m.where())
		}
	}
}

func (m *Manager) socket() string { return filepath.Join(m.Run, "systemd", "private") }

// Address is where the manager itself listens.
func (m *Manager) Address() string { return "unix:path=" + m.socket() }

// Env is what systemctl --user needs to find it.
func (m *Manager) Env() []string { return []string{"XDG_RUNTIME_DIR=" + m.Run} }

// Systemctl runs systemctl --user, which has to succeed.
func (m *Manager) Systemctl(args ...string) string {
	m.t.Helper()
	cmd := exec.Command("systemctl", append([]string{"--user"}, args...)...)
	cmd.Env = append(os.Environ(), m.Env()...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.t.Fatalf("systemctl %v: %v: %s", args, err, out)
	}
	return string(out)
}

// where says what each of its processes does.
func (m *Manager) where() (all string) {
	for _, pid := range m.processes() {
		for _, what := range []string{"stat", "wchan", "stack"} {
			data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, what))
			all += fmt.Sprintf("%d %s: %s\n", pid, what, data)
		}
	}
	return all
}

func (m *Manager) said() string {
	data, _ := os.ReadFile(m.log.Name())
	return string(data)
}
