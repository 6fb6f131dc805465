//go:build monitor

package main

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/ota"
)

// running is an agent that runs until the test stops it.
type running struct {
	*fleet
	stop func() (code int)

	mu  sync.Mutex
	out strings.Builder
}

func (r *running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(p)
}

func (r *running) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.String()
}

// start begins agent run.
func (f *fleet) start() *running {
	f.t.Helper()
	data, err := json.Marshal(f.config)
	require.NoError(f.t, err)
	path := filepath.Join(f.dir, "agent.json")
	require.NoError(f.t, os.WriteFile(path, data, 0o600))
	r := &running{fleet: f}
	ctx, cancel := context.WithCancel(f.t.Context())
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{"-config", path, "run"}, r, r) }()
	r.stop = func() int { cancel(); return <-code }
	f.t.Cleanup(cancel)
	return r
}

// until waits for something that the receiver is told.
func (f *fleet) until(what string, kinds ...monitor.Kind) {
	f.t.Helper()
	require.Eventually(f.t, func() bool {
		return slices.ContainsFunc(f.to.told(kinds...), func(s string) bool { return strings.Contains(s, what) })
	}, 30*time.Second, 10*time.Millisecond, "%s among %v", what, kinds)
}

// TestRun has a device look for updates by itself: a good one, a bad one, and
// one that gets sick only after its commit. It is measured meanwhile, and alerts
// come by the rules of the release.
func TestRun(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	prometheus := filepath.Join(t.TempDir(), "pawl.prom")
	f.config["run"] = map[string]any{"look": "100ms", "health": "20ms", "late": map[string]any{"interval": "50ms", "failures": 3}}
	f.config["report"].(map[string]any)["metrics"] = map[string]any{"interval": "20ms", "emit": "50ms"}
	f.config["report"].(map[string]any)["alerts"] = map[string]any{"release": "app/alerts.json"}
	f.set("report", "prometheus", prometheus)
	f.release("1", "clear")
	r := f.start()
	f.until("committed 1", monitor.Committed)
	f.until("up in 1", monitor.Alert)
	f.until("sample", monitor.Sample)

	f.release("2", "clear")
	f.until("committed 2", monitor.Committed)
	require.NoError(t, os.WriteFile(filepath.Join(f.dir, "app", "lens"), []byte("broken\n"), 0o644))
	f.until("lens in 2", monitor.Alert)
	f.until("going back from 2 (seq 2), 3 times in a row after the commit: lens: /bin/sh: exit status 1 (broken)", monitor.Alert)
	require.Eventually(t, func() bool {
		return slices.Equal([]string{"committed 1", "committed 2", "committed 1"}, f.to.told(monitor.Committed))
	}, 20*time.Second, 10*time.Millisecond)
	require.NoError(t, os.WriteFile(filepath.Join(f.dir, "app", "lens"), []byte("clear\n"), 0o644))

	f.release("3", "dirty")
	f.until("reverted 3", monitor.Reverted)
	code, ans, _ := f.agent("status")
	require.Equal(t, exitOK, code)
	require.Equal(t, uint64(1), ans.Status.Running.Seq)
	require.FileExists(t, prometheus)
	require.Equal(t, exitOK, r.stop(), r.said())
	require.Contains(t, r.said(), "1 (seq 1) is installed over")
	text, err := os.ReadFile(prometheus)
	require.NoError(t, err)
	require.Contains(t, string(text), `pawl_probe_well{probe="lens"}`)
}

// TestOthersMayWork has an agent that runs let others go back and look, while
// it waits for its next round, which a SIGHUP has begin at once.
func TestOthersMayWork(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.config["run"] = map[string]any{"look": "1h", "late": map[string]any{"off": true}}
	f.release("1", "clear")
	_, _, _ = f.agent("update")
	f.release("2", "clear")
	r := f.start()
	f.until("committed 2", monitor.Committed)
	code, ans, text := f.agent("rollback")
	require.Equal(t, exitOK, code, text)
	require.Equal(t, ota.Committed, ans.Result.State)
	f.release("3", "clear")
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	f.until("committed 3", monitor.Committed)
	require.Equal(t, exitOK, r.stop())
	require.Equal(t, []string{"committed 1", "committed 2", "committed 1", "committed 3"}, f.to.told(monitor.Committed))
}

// TestSystemdIsTold has systemd, or what listens in its place, be told that the
// agent is ready, alive, and what it does.
func TestSystemdIsTold(t *testing.T) {
	f := newFleet(t)
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "60000000")
	f.release("1", "clear")
	r := f.start()
	all := ""
	heard := func(want string) {
		t.Helper()
		require.NoError(t, l.SetReadDeadline(time.Now().Add(20*time.Second)))
		for buf := make([]byte, 4096); !strings.Contains(all, want); {
			n, err := l.Read(buf)
			require.NoError(t, err, want)
			all += string(buf[:n]) + "\n"
		}
	}
	heard("READY=1")
	heard("WATCHDOG=1")
	heard("STATUS=1 (seq 1) is installed over")
	r.stop()
	heard("STOPPING=1")
}

// TestWatchdogThatIsNotThere has the agent say so, rather than run unguarded.
func TestWatchdogThatIsNotThere(t *testing.T) {
	f := newFleet(t)
	f.config["run"] = map[string]any{"watchdog": "/nowhere/watchdog"}
	code, ans, _ := f.agent("run")
	require.Equal(t, exitOther, code)
	require.Contains(t, ans.Error, "run.watchdog: ")
}

// TestNobodyAsksWhileAppsAreSwitched: what is down on purpose is not sick.
func TestNobodyAsksWhileAppsAreSwitched(t *testing.T) {
	var asked atomic.Int32
	health, err := monitor.NewHealth(monitor.HealthOptions{}, monitor.Probe{Name: "p", Ask: monitor.Func(func(context.Context) error { asked.Add(1); return nil })})
	require.NoError(t, err)
	r := &runner{agent: &agent{config: &config{monitor: monitoring{run: runs{Health: duration(time.Millisecond)}}}}, health: health, dog: &dog{}}
	r.progress(ota.Progress{Step: "activate"})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go r.watch(ctx)
	require.Never(t, func() bool { return asked.Load() > 0 }, 50*time.Millisecond, 5*time.Millisecond)
	for _, p := range []ota.Progress{{Step: "health"}, {Step: "commit"}, {Step: "commit", Result: &ota.Result{}}, {Step: "revert"}, {Step: "fetch"}} {
		r.progress(p)
		require.Equal(t, p.Result == nil && (p.Step == "commit" || p.Step == "revert"), r.switching.Load(), p.Step)
	}
	require.Eventually(t, func() bool { return asked.Load() > 0 }, 10*time.Second, time.Millisecond)
}
