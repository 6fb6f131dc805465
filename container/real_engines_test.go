//go:build linux

package container

import (
	"os"
	"strings"
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
		v.Restart = compose.Restart{Policy: compose.RestartNo}
		if v.Healthcheck != nil && !v.Healthcheck.Disabled {
			v.Healthcheck = nil
		}
		v.Logging, v.IPC, v.Sysctls, v.DeviceRules, v.Ulimits = nil, "", nil, nil, nil
		if strings.HasPrefix(v.NetworkMode, "service:") {
			v.NetworkMode, v.PID = "none", ""
		}
		for i := range v.Devices {
			v.Devices[i].Permissions = "rwm"
		}
		for i := range v.Networks {
			v.Networks[i].IPv4 = ""
		}
		for i := range v.Mounts {
			v.Mounts[i].NoCopy = false
		}
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
	for key, change := range map[string]func(*compose.Service){
		"restart":             func(v *compose.Service) { v.Restart.Policy = compose.RestartAlways },
		"healthcheck":         func(v *compose.Service) { v.Healthcheck = &compose.Healthcheck{Test: []string{"CMD", "/app"}} },
		"logging: options":    func(v *compose.Service) { v.Logging = &compose.Logging{Options: map[string]string{"max-size": "1m"}} },
		"ipc":                 func(v *compose.Service) { v.IPC = "host" },
		"sysctls":             func(v *compose.Service) { v.Sysctls = map[string]string{"net.core.somaxconn": "9"} },
		"device_cgroup_rules": func(v *compose.Service) { v.DeviceRules = []string{"c 1:3 mr"} },
		"devices: permissions": func(v *compose.Service) {
			v.Devices = []compose.Device{{Host: "/dev/null", Container: "/dev/x", Permissions: "r"}}
		},
		"networks: a fixed address": func(v *compose.Service) { v.Networks[0].IPv4 = "10.214.0.9" },
		"volumes: nocopy":           func(v *compose.Service) { v.Mounts[0].NoCopy = true },
	} {
		a := realApp(t, 1).changed(t, func(a *compose.App) { change(&a.Services[0]) })
		says := "service back: " + key
		_, err := r.b.Stage(ctx, "refused", a.c, a.blobs)
		require.ErrorIs(t, err, ErrUnsupported)
		require.ErrorContains(t, err, says)
		w, err := r.b.look(ctx)
		require.NoError(t, err)
		require.Empty(t, w)
	}
}
