//go:build linux

package systemd_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/micro/systemctl"
	"github.com/pawl-ota/pawl/micro/systemd"
)

// TestSystemctl: the program says of each unit what D-Bus says.
func TestSystemctl(t *testing.T) {
	t.Parallel()
	m, bus := device(t, systemd.Options{}, map[string]string{
		"app.service":   "[Service]\nExecStart=sleep 1000\nExecReload=true\n",
		"once.service":  "[Service]\nType=oneshot\nExecStart=true\n",
		"fails.service": "[Service]\nType=exec\nExecStart=/nonexistent/app\n",
		"deaf.service":  "[Service]\nType=notify\nNotifyAccess=all\nExecStart=sh -c 'trap \"\" TERM; systemd-notify --ready; while :; do sleep 1; done'\nTimeoutStopSec=infinity\n",
		"loops.service": "[Unit]\nStartLimitBurst=3\nStartLimitIntervalSec=100\n[Service]\nExecStart=sh -c 'sleep 0.1; exit 1'\nRestart=always\nRestartSec=0.1\n",
	})
	s := m.systemctl()
	s.StopLimit = time.Second
	ctx := soon(t)
	same := func(name string) micro.ServiceState {
		t.Helper()
		want, err := bus.State(ctx, name)
		require.NoError(t, err)
		got, err := s.State(ctx, name)
		require.NoError(t, err)
		want.Detail, got.Detail = "", ""
		require.Equal(t, want, got, name)
		return got
	}
	for _, a := range []micro.Action{micro.Stop, micro.Start, micro.Start, micro.Restart, micro.Reload} {
		require.NoError(t, s.Do(ctx, a, "app.service"), a)
	}
	require.True(t, same("app.service").Running)
	require.NoError(t, s.Refresh(ctx))
	require.NoError(t, s.Do(ctx, micro.Stop, "app.service"))
	require.True(t, down(same("app.service")))
	require.NoError(t, s.Do(ctx, micro.StartLater, "app.service"))
	until(t, s, "app.service", running)
	require.NoError(t, s.Do(ctx, micro.Start, "once.service"))
	require.True(t, same("once.service").Finished)
	require.NoError(t, s.Do(ctx, micro.Stop, "nobody.service"))
	require.True(t, down(same("nobody.service")))
	require.ErrorContains(t, s.Do(ctx, micro.Start, "nobody.service"), "not found")
	require.ErrorContains(t, s.Do(ctx, micro.Start, "fails.service"), "failed (failed), result exit-code, exit status 203")
	require.True(t, same("fails.service").Failed)
	require.Error(t, s.Do(ctx, "jump", "app.service"))

	require.NoError(t, s.Do(ctx, micro.Start, "deaf.service"))
	begin := time.Now()
	require.NoError(t, s.Do(ctx, micro.Stop, "deaf.service"))
	require.Less(t, time.Since(begin), tooLong)
	until(t, s, "deaf.service", down)

	require.NoError(t, s.Do(ctx, micro.Start, "loops.service"))
	until(t, s, "loops.service", func(s micro.ServiceState) bool { return s.Failed && s.Restarts > 0 })
	same("loops.service")
	require.NoError(t, s.Do(ctx, micro.Start, "loops.service"), "though it failed too often")

	none := &systemctl.Supervisor{Args: []string{"--user"}, Env: []string{"XDG_RUNTIME_DIR=" + t.TempDir()}}
	_, err := none.State(ctx, "app.service")
	require.ErrorIs(t, err, micro.ErrSupervisor)
	require.ErrorIs(t, none.Do(ctx, micro.Start, "app.service"), micro.ErrSupervisor)
}
