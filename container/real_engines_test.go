//go:build linux

package container

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/dockerd"
	"github.com/pawl-ota/pawl/ota/compose"
)

// engineKind is the engine that the tests run with: empty for the dockerd of the
// machine with its usual store, "containerd" for one with the store of containerd,
// or "podman".
var engineKind = os.Getenv("PAWL_ENGINE")

func startEngine(t *testing.T) *dockerd.Engine {
	switch engineKind {
	case "podman":
		return dockerd.Podman(t)
	case "containerd":
		return dockerd.Snapshots(t)
	}
	return dockerd.Start(t)
}

// plain takes from services what Podman refuses.
func plain(services ...*compose.Service) {
	if engineKind != "podman" {
		return
	}
	for _, v := range services {
		v.Restart, v.Healthcheck = compose.Restart{Policy: compose.RestartNo}, nil
		for i, d := range v.DependsOn {
			if d.Condition == compose.Healthy {
				v.DependsOn[i].Condition = compose.Started
			}
		}
	}
}

// refusedByAnEngine has Podman refuse what it would leave out.
func refusedByAnEngine(t *testing.T, e *dockerd.Engine) {
	if engineKind != "podman" {
		return
	}
	r, ctx := newRealRig(t, e), t.Context()
	for says, change := range map[string]func(*compose.Service){
		"service back: restart: always":         func(v *compose.Service) { v.Restart.Policy = compose.RestartAlways },
		"service back: restart: unless-stopped": func(v *compose.Service) { v.Restart.Policy = compose.RestartUnlessStopped },
		"service back: restart: on-failure":     func(v *compose.Service) { v.Restart.Policy = compose.RestartOnFailure },
		"service back: healthcheck":             func(v *compose.Service) { v.Healthcheck = &compose.Healthcheck{Test: []string{"CMD", "/app"}} },
	} {
		a := realApp(t, 1).changed(t, func(a *compose.App) { change(&a.Services[0]) })
		_, err := r.b.Stage(ctx, "refused", a.c, a.blobs)
		require.ErrorIs(t, err, ErrUnsupported)
		require.ErrorContains(t, err, says)
		w, err := r.b.look(ctx)
		require.NoError(t, err)
		require.Empty(t, w)
	}
}
