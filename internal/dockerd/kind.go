//go:build linux

package dockerd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pawl-ota/pawl/internal/testneeds"
)

// kind is a program that is an engine.
type kind struct {
	// prepare is what a shell does before it.
	prepare string
	command func(e *Engine) []string
	// group is a control group that it makes besides, empty at the end.
	group string
}

var docker = kind{command: func(e *Engine) []string {
	return []string{
		"dockerd", "--data-root", e.DataRoot(), "--exec-root", filepath.Join(e.run, "exec"), "--host", e.Host(),
		"--pidfile", filepath.Join(e.run, "docker.pid"), "--bip", "10.213.0.1/24", "--cgroup-parent", "/" + e.mark,
		"--insecure-registry", registryAddr, "--default-address-pool", "base=10.214.0.0/16,size=24",
	}
}}

// podman keeps locks, and what a boot loses, in folders of the machine: it gets
// empty ones.
var podman = kind{
	prepare: "mount -t tmpfs run /run && mount -t tmpfs shm /dev/shm && ",
	command: func(e *Engine) []string {
		return []string{
			"env", "CONTAINERS_REGISTRIES_CONF=" + filepath.Join(e.dir, "registries.conf"), "podman", "--root", e.DataRoot(), "--runroot", filepath.Join(e.run, "exec"), "--cgroup-manager", "cgroupfs",
			"--network-config-dir", e.DataRoot() + "-networks", "--storage-driver", "overlay", "system", "service", "--time", "0", e.Host(),
		}
	},
	group: "libpod_parent",
}

// Snapshots starts an engine that keeps images in the store of containerd, as
// dockerd of version 23 and later can and of version 29 does by itself.
func Snapshots(t testing.TB) *Engine {
	t.Helper()
	config := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(config, []byte(`{"features":{"containerd-snapshotter":true}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return Start(t, "--config-file", config)
}

// Podman starts Podman's service, which speaks Docker's language too.
func Podman(t testing.TB) *Engine {
	t.Helper()
	e := PodmanAt(t, "")
	e.Restart()
	return e
}

// PodmanAt is At for Podman.
func PodmanAt(t testing.TB, root string) *Engine {
	t.Helper()
	testneeds.Program(t, "podman")
	e := At(t, root)
	e.kind = podman
	conf := "[[registry]]\nlocation = \"" + registryAddr + "\"\ninsecure = true\n"
	if err := os.WriteFile(filepath.Join(e.dir, "registries.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	return e
}
