package container

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// podmanApp is version n of an app that Podman does not refuse.
func podmanApp(t testing.TB, n int, change ...func(*compose.App)) testApp {
	return newApp(t, n, append([]func(*compose.App){func(a *compose.App) {
		for i := range a.Services {
			v := &a.Services[i]
			v.Restart, v.DependsOn = compose.Restart{Policy: compose.RestartNo}, nil
		}
	}}, change...)...)
}

// podmanAsks are what Podman is asked for in vain.
func podmanAsks() map[string]func(a *compose.App, db *compose.Service) {
	return map[string]func(a *compose.App, db *compose.Service){
		"restart": func(_ *compose.App, db *compose.Service) { db.Restart.Policy = compose.RestartAlways },
		"healthcheck": func(_ *compose.App, db *compose.Service) {
			db.Healthcheck = &compose.Healthcheck{Test: []string{"CMD", "/a"}}
		},
		"logging: options": func(_ *compose.App, db *compose.Service) {
			db.Logging = &compose.Logging{Options: map[string]string{"a": "b"}}
		},
		"ipc":                              func(_ *compose.App, db *compose.Service) { db.IPC = "host" },
		"network_mode or pid of a service": func(a *compose.App, _ *compose.Service) { a.Services[2].PID = "service:db" },
		"sysctls":                          func(_ *compose.App, db *compose.Service) { db.Sysctls = map[string]string{"net.core.somaxconn": "9"} },
		"device_cgroup_rules":              func(_ *compose.App, db *compose.Service) { db.DeviceRules = []string{"c 1:3 mr"} },
		"devices: permissions": func(_ *compose.App, db *compose.Service) {
			db.Devices = []compose.Device{{Host: "/dev/null", Container: "/dev/x", Permissions: "r"}}
		},
		"networks: a fixed address": func(_ *compose.App, db *compose.Service) { db.Networks[0].IPv4 = "10.0.0.9" },
		"volumes: nocopy":           func(_ *compose.App, db *compose.Service) { db.Mounts[0].NoCopy = true },
		"attachable":                func(a *compose.App, _ *compose.Service) { a.Networks[0].Attachable = true },
		"driver_opts":               func(a *compose.App, _ *compose.Service) { a.Networks[0].DriverOpts = map[string]string{"a": "b"} },
		"ip_range": func(a *compose.App, _ *compose.Service) {
			a.Networks[0].Pools = []compose.Pool{{Subnet: "10.0.0.0/16", Range: "10.0.1.0/24"}}
		},
	}
}

// TestPodmanRefuses has Stage refuse all that Podman would leave out, and make nothing.
func TestPodmanRefuses(t *testing.T) {
	for _, l := range lacks {
		require.Contains(t, podmanAsks(), l.key)
	}
	for key, ask := range podmanAsks() {
		r, ctx := newRig(t, false), t.Context()
		a := podmanApp(t, 0, func(a *compose.App) { ask(a, &a.Services[0]) })
		r.podman = true
		_, err := r.b.Stage(ctx, "one", a.c, a.blobs)
		require.ErrorIs(t, err, ErrUnsupported, key)
		require.ErrorContains(t, err, key)
		require.Empty(t, r.boxes)
		require.Empty(t, r.images)
		r.podman = false
		r.reopen()
		_, err = r.b.Stage(ctx, "one", a.c, a.blobs)
		require.NoError(t, err, key)
	}
}

// TestPodmanRefusesImage is about a health check that the image has.
func TestPodmanRefusesImage(t *testing.T) {
	r, ctx := newRig(t, false), t.Context()
	r.podman = true
	a := podmanApp(t, 0)
	with := []byte(`{"os":"linux","architecture":"amd64","config":{"Healthcheck":{"Test":["CMD","a"]}},"rootfs":{"diff_ids":["sha256:` + a.app.Images[0].Layers[0].Digest.String() + `"]}}`)
	a.blobs.Add(with)
	checked := func(disabled bool) testApp {
		return a.changed(t, func(app *compose.App) {
			app.Images[0].Config = release.Blob{Digest: release.Sum(with), Size: int64(len(with))}
			for i := range app.Services {
				if disabled {
					app.Services[i].Healthcheck = &compose.Healthcheck{Disabled: true}
				}
			}
		})
	}
	b := checked(false)
	_, err := r.b.Stage(ctx, "one", b.c, b.blobs)
	require.ErrorIs(t, err, ErrUnsupported)
	b = checked(true)
	_, err = r.b.Stage(ctx, "one", b.c, b.blobs)
	require.NoError(t, err)
}

// TestPodmanBoot has Settle start after a boot what Podman does not, once and no
// one-shot service again; elsewhere what nobody is to start stays as it is.
func TestPodmanBoot(t *testing.T) {
	for _, podman := range []bool{true, false} {
		r, ctx := newRig(t, false), t.Context()
		r.podman = podman
		r.install("one", podmanApp(t, 0))
		before := r.look()
		r.boot()
		require.Equal(t, "[]", r.look())
		r.changeBox("shop-init", func(b *fakeBox) { b.Exit = lostExit })
		r.reopen()
		require.NoError(t, r.b.Settle(ctx))
		require.NoError(t, r.b.Settle(ctx))
		b, _ := r.named("shop-init")
		require.Equal(t, lostExit, b.Exit, "a one-shot service was run again")
		if podman {
			require.Equal(t, before, r.look())
		} else {
			require.Equal(t, "[]", r.look())
		}
	}
}
