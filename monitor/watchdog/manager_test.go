package watchdog

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
	"github.com/pawl-ota/pawl/monitor/probe"
)

// TestMain is also the service of the units below.
func TestMain(m *testing.M) {
	if role := os.Getenv("PAWL_ROLE"); role != "" {
		if err := serve(role); err != nil {
			fmt.Println("service:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serve is ready, and then kicks for a while, and no longer.
func serve(role string) error {
	s, err := NewSystemd()
	if err != nil {
		return err
	}
	switch role {
	case "slow":
		err = s.Extend(time.Minute)
		<-time.After(1500 * time.Millisecond)
		return errors.Join(err, s.Ready(), forever())
	case "handed back":
		err = errors.Join(s.Ready(), s.Arm(time.Hour), s.Kick(), s.Disarm())
		if s.Timeout() != time.Second {
			err = fmt.Errorf("WatchdogSec= is %v", s.Timeout())
		}
		return errors.Join(err, s.Status("the unit's own time"), forever())
	case "disarmed":
		return errors.Join(s.Ready(), s.Arm(500*time.Millisecond), s.Kick(), s.Disarm(), s.Status("disarmed"), forever())
	}
	err = errors.Join(s.Ready(), s.Arm(500*time.Millisecond))
	for range 15 {
		<-time.After(100 * time.Millisecond)
		err = errors.Join(err, s.Kick())
	}
	return errors.Join(err, s.Status("kicked for long"), forever())
}

func forever() error {
	<-time.After(time.Minute)
	return nil
}

// enter moves the shell that runs it into control groups of its own, which
// systemd then takes for its own, and starts a user instance in them.
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
exec env -i PATH="$PATH" HOME="$RUN" XDG_RUNTIME_DIR="$RUN" SYSTEMD_UNIT_PATH="$RUN/units:" systemd --user --unit=test.target --log-target=console`

// manager is a systemd of the test's own.
type manager struct {
	t          *testing.T
	run, group string
	log        string
}

func newManager(t *testing.T, units map[string]string) *manager {
	t.Helper()
	testneeds.Root(t)
	for _, program := range []string{"systemd", "systemctl", "unshare", "mount", "sh"} {
		testneeds.Program(t, program)
	}
	run, err := os.MkdirTemp("", "sd") // short enough for the address of a socket
	require.NoError(t, err)
	m := &manager{t: t, run: run, group: fmt.Sprintf("pawl-dog-%d", os.Getpid()), log: filepath.Join(t.TempDir(), "log")}
	t.Cleanup(m.end)
	units["test.target"] = "[Unit]\nDescription=test\n"
	require.NoError(t, os.Mkdir(run+"/units", 0o755))
	for name, text := range units {
		require.NoError(t, os.WriteFile(filepath.Join(run, "units", name), []byte(text), 0o644))
	}
	log, err := os.Create(m.log)
	require.NoError(t, err)
	defer log.Close()
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", enter)
	cmd.Env = append(os.Environ(), "GROUP="+m.group, "RUN="+run)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for range 1000 {
		if c, err := net.Dial("unix", run+"/systemd/private"); err == nil {
			require.NoError(t, c.Close())
			return m
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case err := <-ended:
			testneeds.Missing(t, fmt.Sprintf("a systemd that can be started here (%v: %s)", err, m.said()))
		}
	}
	t.Fatalf("systemd did not come up: %s", m.said())
	return nil
}

func (m *manager) said() string {
	data, _ := os.ReadFile(m.log)
	return string(data)
}

func (m *manager) groups() []string {
	all, _ := filepath.Glob("/sys/fs/cgroup/*/" + m.group)
	whole, _ := filepath.Glob("/sys/fs/cgroup/" + m.group)
	return append(all, whole...)
}

// end kills all that is in the manager's control groups, and removes those.
func (m *manager) end() {
	for range 1000 {
		left := 0
		for _, g := range m.groups() {
			_ = filepath.WalkDir(g, func(path string, _ os.DirEntry, _ error) error {
				data, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
				for _, word := range strings.Fields(string(data)) {
					var pid int
					if _, err := fmt.Sscan(word, &pid); err == nil && pid > 1 {
						left++
						_ = unix.Kill(pid, unix.SIGKILL)
					}
				}
				return nil
			})
		}
		if left == 0 {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	for _, g := range m.groups() {
		var dirs []string
		_ = filepath.WalkDir(g, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append([]string{path}, dirs...)
			}
			return nil
		})
		for _, d := range dirs {
			_ = os.Remove(d)
		}
	}
	_ = os.RemoveAll(m.run)
	if m.t.Failed() {
		m.t.Log(m.said())
	}
}

func (m *manager) systemctl(args ...string) string {
	m.t.Helper()
	cmd := exec.Command("systemctl", append([]string{"--user"}, args...)...)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+m.run)
	out, err := cmd.CombinedOutput()
	require.NoError(m.t, err, "%s", out)
	return string(out)
}

// becomes waits until the properties of a unit are so.
func (m *manager) becomes(unit string, want ...string) {
	m.t.Helper()
	is := ""
	for range 200 {
		is = m.systemctl("show", "-p", "ActiveState,Result,StatusText,NRestarts", unit)
		ok := true
		for _, w := range want {
			ok = ok && strings.Contains(is, w+"\n")
		}
		if ok {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	require.Failf(m.t, "it did not come to that", "%s: want %q, is %q", unit, want, is)
}

// TestRealSystemd: a systemd kills a service that stops kicking, and leaves one
// alone that disarmed, in the time of the unit or of Arm, whichever holds. The
// probe for units sees each of it.
func TestRealSystemd(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	service := func(role, more string) string {
		return fmt.Sprintf("[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=notify\nExecStart=%s\nEnvironment=\"PAWL_ROLE=%s\"\nWatchdogSignal=SIGKILL\n%s\n", self, role, more)
	}
	m := newManager(t, map[string]string{
		"starved.service":   service("starved", ""),
		"disarmed.service":  service("disarmed", ""),
		"handed.service":    service("handed back", "WatchdogSec=1s"),
		"slow.service":      service("slow", "TimeoutStartSec=1s"),
		"restarted.service": service("starved", "Restart=on-watchdog\nRestartSec=0"),
	})
	ask := func(unit string, restarts int) (string, error) {
		return probe.Unit{Name: unit, Restarts: restarts, Args: []string{"--user"}, Env: []string{"XDG_RUNTIME_DIR=" + m.run}}.Ask()(context.Background())
	}
	restarts := probe.Unit{Name: "restarted.service", Restarts: 1, Args: []string{"--user"}, Env: []string{"XDG_RUNTIME_DIR=" + m.run}}.Ask()

	m.systemctl("start", "slow.service", "starved.service", "disarmed.service", "handed.service", "restarted.service")
	_, err = restarts(t.Context())
	require.NoError(t, err)
	_, err = ask("slow.service", 0)
	require.NoError(t, err, "it got the time it asked for")
	m.becomes("starved.service", "ActiveState=failed", "Result=watchdog", "StatusText=kicked for long")
	saw, err := ask("starved.service", 0)
	require.ErrorContains(t, err, "the unit is failed")
	require.Contains(t, saw, "result watchdog")
	m.becomes("handed.service", "Result=watchdog", "StatusText=the unit's own time")
	m.becomes("disarmed.service", "ActiveState=active", "StatusText=disarmed")
	require.Eventually(t, func() bool {
		_, err := restarts(t.Context())
		return err != nil && strings.Contains(err.Error(), "since the first look, more than 1")
	}, 30*time.Second, 100*time.Millisecond)
	_, err = ask("nowhere.service", 0)
	require.ErrorContains(t, err, "does not know the unit")
}
