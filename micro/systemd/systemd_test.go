//go:build linux

package systemd_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/micro/systemd"
)

const target = "[Unit]\nDescription=a target of a test\n"

// device is a manager that runs, and a supervisor of it.
func device(t *testing.T, o systemd.Options, units map[string]string) (*manager, *systemd.Supervisor) {
	t.Helper()
	m := newManager(t, t.TempDir())
	m.Unit("pawl-test.target", target)
	for name, text := range units {
		m.Unit(name, text)
	}
	m.Start("pawl-test.target")
	s := m.supervisor(o)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		state, err := s.State(soon(t), "pawl-test.target")
		require.NoError(t, err)
		if state.Running {
			return m, s
		}
		<-tick.C
	}
}

func jobError(t *testing.T, err error) *systemd.JobError {
	t.Helper()
	var job *systemd.JobError
	require.True(t, errors.As(err, &job), "%v", err)
	return job
}

func TestActions(t *testing.T) {
	t.Parallel()
	m, s := device(t, systemd.Options{}, map[string]string{
		"app.service":    "[Service]\nExecStart=sleep 1000\nExecReload=true\n",
		"once.service":   "[Service]\nType=oneshot\nExecStart=true\n",
		"fails.service":  "[Service]\nType=exec\nExecStart=/nonexistent/app\n",
		"exits.service":  "[Service]\nType=oneshot\nExecStart=sh -c 'exit 7'\n",
		"needs.service":  "[Unit]\nRequires=exits.service\nAfter=exits.service\n[Service]\nExecStart=sleep 1000\n",
		"bad.service":    "[Service]\nExecStart=\n",
		"slow.service":   "[Service]\nType=notify\nExecStart=sleep 1000\nTimeoutStartSec=1\n",
		"socket.socket":  "[Socket]\nListenStream=%t/s\n",
		"socket.service": "[Service]\nExecStart=sleep 1000\n",
	})
	require.NoError(t, os.Symlink("/dev/null", filepath.Join(m.Units, "masked.service")))
	ctx := soon(t)
	for _, a := range []micro.Action{micro.Stop, micro.Stop, micro.Start, micro.Start, micro.Restart, micro.Reload} {
		require.NoError(t, s.Do(ctx, a, "app.service"), a)
	}
	state, err := s.State(ctx, "app.service")
	require.NoError(t, err)
	require.Equal(t, micro.ServiceState{Running: true, Detail: "active (running)"}, state)
	require.NoError(t, s.Do(ctx, micro.Stop, "app.service"))
	require.True(t, down(until(t, s, "app.service", down)))
	require.NoError(t, s.Do(ctx, micro.StartLater, "app.service"))
	until(t, s, "app.service", running)
	require.NoError(t, s.Do(ctx, micro.Start, "socket.socket"))
	until(t, s, "socket.socket", running)

	require.NoError(t, s.Do(ctx, micro.Start, "once.service"))
	state, err = s.State(ctx, "once.service")
	require.NoError(t, err)
	require.True(t, state.Finished && !state.Failed, "%+v", state)

	require.NoError(t, s.Do(ctx, micro.Stop, "nobody.service"))
	state, err = s.State(ctx, "nobody.service")
	require.NoError(t, err)
	require.Equal(t, micro.ServiceState{Detail: "inactive (dead), not-found, org.freedesktop.systemd1.NoSuchUnit Unit nobody.service not found."}, state)
	require.ErrorIs(t, s.Do(ctx, micro.Start, "nobody.service"), systemd.ErrNoUnit)
	require.ErrorIs(t, s.Do(ctx, micro.Start, "masked.service"), systemd.ErrMasked)
	require.ErrorIs(t, s.Do(ctx, micro.Start, "bad.service"), systemd.ErrBadUnit)
	_, err = s.State(ctx, "noname")
	require.ErrorIs(t, err, systemd.ErrBadUnit)
	require.Error(t, s.Do(ctx, "jump", "app.service"))

	for name, want := range map[string]struct{ result, detail string }{
		"fails.service": {"failed", "failed (failed), result exit-code, exit status 203"},
		"exits.service": {"failed", "failed (failed), result exit-code, exit status 7"},
		"needs.service": {"dependency", "inactive (dead)"},
		"slow.service":  {"failed", "failed (failed), result timeout, killed by signal 15"},
	} {
		job := jobError(t, s.Do(ctx, micro.Start, name))
		require.Equal(t, want.result, job.Result, name)
		require.Contains(t, job.Error(), want.detail, name)
	}
}

// TestRestartsAreCounted: a unit that comes up again by itself, gives up, and
// is started on request.
func TestRestartsAreCounted(t *testing.T) {
	t.Parallel()
	m, s := device(t, systemd.Options{}, map[string]string{
		"loops.service": "[Unit]\nStartLimitBurst=3\nStartLimitIntervalSec=1h\n[Service]\nExecStart=sh -c 'while [ -e %t/again -a ! -e %t/go ]; do sleep 0.1; done; sleep 0.2; touch %t/again; exit 1'\nRestart=always\nRestartSec=0.1\n",
	})
	ctx, goOn := soon(t), filepath.Join(m.Run, "go")
	require.NoError(t, s.Do(ctx, micro.Start, "loops.service"))
	until(t, s, "loops.service", func(s micro.ServiceState) bool { return s.Restarts > 0 && s.Running })
	require.NoError(t, os.WriteFile(goOn, nil, 0o644))
	state := until(t, s, "loops.service", func(s micro.ServiceState) bool { return s.Failed })
	require.Contains(t, state.Detail, "result exit-code, exit status 1, restarted ")
	require.NoError(t, os.Remove(goOn))
	require.NoError(t, s.Do(ctx, micro.Start, "loops.service"), "though it failed too often")
	until(t, s, "loops.service", running)
}

// TestStopHasALimit: a service that does not end is killed.
func TestStopHasALimit(t *testing.T) {
	t.Parallel()
	_, s := device(t, systemd.Options{StopLimit: time.Second}, map[string]string{
		"deaf.service": "[Service]\nType=notify\nNotifyAccess=all\nExecStart=sh -c 'trap \"\" TERM; systemd-notify --ready; while :; do sleep 1; done'\nTimeoutStopSec=infinity\n",
	})
	ctx := soon(t)
	require.NoError(t, s.Do(ctx, micro.Start, "deaf.service"))
	begin := time.Now()
	require.NoError(t, s.Do(ctx, micro.Stop, "deaf.service"))
	require.Less(t, time.Since(begin), tooLong)
	until(t, s, "deaf.service", down)
}

// TestCanceledJob: somebody else stops what is being started.
func TestCanceledJob(t *testing.T) {
	t.Parallel()
	_, s := device(t, systemd.Options{}, map[string]string{"slow.service": "[Service]\nType=notify\nExecStart=sleep 1000\n"})
	ctx := soon(t)
	started := make(chan error, 1)
	go func() { started <- s.Do(ctx, micro.Start, "slow.service") }()
	until(t, s, "slow.service", func(s micro.ServiceState) bool { return s.Starting })
	require.NoError(t, s.Do(ctx, micro.Stop, "slow.service"))
	require.Equal(t, "canceled", jobError(t, <-started).Result)
}

// TestReexec: systemd executes itself anew, with the connection gone, in the
// middle of a job and between two.
func TestReexec(t *testing.T) {
	t.Parallel()
	m, s := device(t, systemd.Options{}, map[string]string{
		"app.service":  "[Service]\nExecStart=sleep 1000\n",
		"slow.service": "[Service]\nType=notify\nNotifyAccess=all\nExecStart=sh -c 'while [ ! -e $XDG_RUNTIME_DIR/go ]; do sleep 0.1; done; systemd-notify --ready; exec sleep 1000'\n",
	})
	ctx := soon(t)
	started := make(chan error, 1)
	go func() { started <- s.Do(ctx, micro.Start, "slow.service") }()
	// Not before what comes first has started: systemd 252 may wait for ever for a socket
	// that was being started, such as that of the machine's D-Bus.
	until(t, s, "slow.service", func(s micro.ServiceState) bool { return strings.HasPrefix(s.Detail, "activating") })
	reexec := exec.CommandContext(ctx, testneeds.Program(t, "systemctl"), "--user", "daemon-reexec")
	reexec.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+m.Run)
	require.NoError(t, reexec.Run())
	require.NoError(t, s.Do(ctx, micro.Start, "app.service"))
	require.NoError(t, os.WriteFile(filepath.Join(m.Run, "go"), nil, 0o644))
	require.NoError(t, <-started)
	until(t, s, "slow.service", running)
}

// TestNobodyAnswers: a systemd that is not there.
func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	s, err := systemd.New(systemd.Options{Address: "unix:path=" + filepath.Join(t.TempDir(), "none"), Direct: true})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = s.State(ctx, "app.service")
	require.ErrorIs(t, err, micro.ErrSupervisor)
	for _, o := range []systemd.Options{{StartLimit: -1}, {StopLimit: -1}, {Direct: true}} {
		_, err := systemd.New(o)
		require.Error(t, err)
	}
}

// TestBus goes over a bus instead of systemd's own socket.
func TestBus(t *testing.T) {
	t.Parallel()
	daemon := testneeds.Program(t, "dbus-daemon")
	m, direct := device(t, systemd.Options{}, map[string]string{
		"app.service":  "[Service]\nExecStart=sleep 1000\n",
		"dbus.socket":  "[Socket]\nListenStream=%t/bus\n",
		"dbus.service": "[Unit]\nRequires=dbus.socket\n[Service]\nType=notify\nExecStart=" + daemon + " --session --address=systemd: --nofork --nopidfile --systemd-activation\n",
	})
	ctx := soon(t)
	require.NoError(t, direct.Do(ctx, micro.Start, "dbus.service"))
	s, err := systemd.New(systemd.Options{Address: "unix:path=" + filepath.Join(m.Run, "bus")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for err = errors.New("not yet"); err != nil && ctx.Err() == nil; <-tick.C {
		_, err = s.State(ctx, "app.service") // systemd takes its name on the bus a little later
	}
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, s.Do(ctx, micro.Start, "app.service"))
		until(t, s, "app.service", running)
		require.NoError(t, s.Refresh(ctx))
		require.NoError(t, s.Do(ctx, micro.Stop, "app.service"))
		until(t, s, "app.service", down)
	}
}
