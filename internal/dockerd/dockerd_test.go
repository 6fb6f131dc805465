//go:build linux

package dockerd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/testneeds"
)

// client talks to the engine as any program would.
func client(e *Engine) *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(e.Host(), "unix://"))
		},
	}}
}

func call(t *testing.T, e *Engine, path string, body io.Reader, kind string) string {
	t.Helper()
	r, err := client(e).Post("http://engine"+path, kind, body)
	require.NoError(t, err)
	data, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	require.NoError(t, r.Body.Close())
	require.Less(t, r.StatusCode, 400, "%s: %s", path, data)
	return string(data)
}

func ask(e *Engine, url string) string {
	c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: e.Dial, DisableKeepAlives: true}}
	r, err := c.Get(url)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = r.Body.Close() }()
	data, _ := io.ReadAll(r.Body)
	return string(data)
}

// TestEngine starts an engine and a container with a published port, kills
// both, and finds the container's port again after a restart.
func TestEngine(t *testing.T) {
	e := Start(t)
	image := NewImage(Options{}, Program(t))
	var archive bytes.Buffer
	require.NoError(t, image.Archive(&archive, "app:1"))
	call(t, e, "/images/load", &archive, "application/x-tar")
	spec := `{"Image":"app:1","Cmd":["-addr",":80","-text","hello"],"ExposedPorts":{"80/tcp":{}},
		"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080"}]},"RestartPolicy":{"Name":"always"}}}`
	call(t, e, "/containers/create?name=app", strings.NewReader(spec), "application/json")
	call(t, e, "/containers/app/start", nil, "")
	hello := func() bool { return ask(e, "http://127.0.0.1:8080/") == "hello" }
	require.Eventually(t, hello, time.Minute, 50*time.Millisecond) // its port is open before the program is up
	pid, err := e.inside()
	require.NoError(t, err)
	e.Kill()
	_, err = os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	require.Error(t, err, "the engine still runs")
	e.Restart()
	e.reachable(t, "127.0.0.1:8080")
	require.Eventually(t, hello, time.Minute, 50*time.Millisecond)
	e.Stop()
	e.remove()
	require.NoDirExists(t, e.dir)
	left, err := filepath.Glob("/sys/fs/cgroup/*/" + e.mark)
	require.NoError(t, err)
	require.Empty(t, left)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	require.NotContains(t, string(mounts), e.dir)
}

// TestRegistry pushes an image and pulls it.
func TestRegistry(t *testing.T) {
	testneeds.Program(t, "docker")
	e := Start(t)
	addr := e.Registry(t)
	var archive bytes.Buffer
	require.NoError(t, NewImage(Options{}, Layer("a", []byte("b"), 0o644)).Archive(&archive, addr+"/some/app:1"))
	call(t, e, "/images/load", &archive, "application/x-tar")
	for _, verb := range []string{"push", "rmi", "pull"} {
		out, err := exec.Command("docker", "-H", e.Host(), verb, addr+"/some/app:1").CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}
