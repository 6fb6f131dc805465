//go:build linux

package dockerd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/pawl-ota/pawl/internal/testneeds"
)

// registryAddr is where the registry of each engine listens, in the network of
// that engine.
const registryAddr = "127.0.0.1:5000"

// Registry starts a registry in the engine's network, which ends with the test
// or with that network, and returns its address. It skips where the machine has
// none.
func (e *Engine) Registry(t testing.TB) string {
	t.Helper()
	testneeds.Program(t, "docker-registry")
	testneeds.Program(t, "nsenter")
	config := filepath.Join(e.dir, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n", filepath.Join(e.dir, "registry"), registryAddr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, err := e.Command("docker-registry", "serve", config)
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	e.reachable(t, registryAddr)
	return registryAddr
}

// reachable waits until something listens at the address.
func (e *Engine) reachable(t testing.TB, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := e.Dial(ctx, "tcp", address)
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("nothing listens at %s: %v", address, err)
		case <-tick.C:
		}
	}
}
