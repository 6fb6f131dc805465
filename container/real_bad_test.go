//go:build linux

package container

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/dockerd"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
)

// badReleasesOfAnEngine has releases that a real engine cannot start, with the
// reason in the error, and the old app back.
func badReleasesOfAnEngine(t *testing.T, e *dockerd.Engine) {
	r, ctx := newRealRig(t, e), t.Context()
	old := realApp(t, 1)
	r.install("one", old)
	r.serves("version 1")
	w, err := r.b.look(ctx)
	require.NoError(t, err)
	stranger := boxSpec{Name: "stranger", Image: w[0].Image, Service: compose.Service{
		Command: []string{"-after", "1h"}, Ports: []compose.Port{{HostPort: 9000, Container: 80, Protocol: compose.TCP}},
	}}
	id, err := r.b.engine.Create(ctx, stranger)
	require.NoError(t, err)
	require.NoError(t, r.b.engine.Start(ctx, id))
	for _, c := range []struct {
		tx, says string
		change   func(*compose.App)
	}{
		{"port", "port is already allocated", func(a *compose.App) { a.Services[1].Ports[0].HostIP, a.Services[1].Ports[0].HostPort = "", 9000 }},
		{"entrypoint", "no such file or directory", func(a *compose.App) { a.Services[0].Entrypoint = []string{"/nothing"} }},
		{"exits", "back ended with exit code 5", func(a *compose.App) { a.Services[0].Command = []string{"-exit", "5", "-after", "1ms"} }},
		{"oneshot", "back ended with exit code 6", func(a *compose.App) {
			back := &a.Services[0]
			back.OneShot, back.Restart.Policy, back.Healthcheck, back.Command = true, compose.RestartNo, nil, []string{"-exit", "6"}
			a.Services[1].DependsOn[0].Condition = compose.Completed
		}},
		{"memory", "exit code 137", func(a *compose.App) {
			back := &a.Services[0]
			back.Command, back.Limits.Memory, back.Limits.MemorySwap = append(back.Command, "-eat", "100"), 24<<20, 24<<20
		}},
		{"sick", "back is unhealthy", func(a *compose.App) {
			a.Services[0].Healthcheck.Test = []string{"CMD", "/app", "-probe", "127.0.0.1:81"}
		}},
	} {
		a := realApp(t, 2).changed(t, c.change)
		_, err := r.b.Stage(ctx, ota.TxID(c.tx), a.c, a.blobs)
		require.NoError(t, err)
		require.ErrorContains(t, r.b.Activate(ctx, ota.TxID(c.tx), a.c), c.says)
		require.NoError(t, r.b.Revert(ctx, ota.TxID(c.tx), a.c))
		r.serves("version 1")
	}
	found, err := r.b.Verify(ctx, old.c, old.blobs)
	require.NoError(t, err)
	require.Empty(t, found)
	other := realApp(t, 3).changed(t, func(a *compose.App) { a.Images[0].Architecture = "s390x" })
	_, err = r.b.Stage(ctx, "platform", other.c, other.blobs)
	require.ErrorIs(t, err, ErrPlatform)
	b, err := r.b.engine.Box(ctx, id)
	require.NoError(t, err)
	require.Equal(t, running, b.State)
}
