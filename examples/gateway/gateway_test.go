//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/dockerd"
	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/ota"
)

// field is a maker with a web server, and one gateway with an engine.
type field struct {
	t      testing.TB
	dir    string
	engine *dockerd.Engine
	server *httptest.Server
	sent   atomic.Int64 // bytes of bodies
	run    func(name string, args ...string) string
	trial  string // how long a release has to do well
}

func newField(t testing.TB) *field {
	f := &field{t: t, dir: t.TempDir(), engine: dockerd.Start(t), trial: "1m"}
	f.run = func(name string, args ...string) string {
		out, err := exec.Command(name, args...).CombinedOutput()
		require.NoError(t, err, "%s %v: %s", name, args, out)
		return string(out)
	}
	f.run("go", "build", "-o", f.path("publisher"), "../publisher")
	f.run(f.path("publisher"), "init", "-repo", f.path("repo"), "-keys", f.path("keys"), "-product", "gateway")
	files := http.FileServer(http.Dir(f.path("repo")))
	f.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { files.ServeHTTP(counting{w, &f.sent}, r) }))
	t.Cleanup(f.server.Close)
	return f
}

type counting struct {
	http.ResponseWriter
	sum *atomic.Int64
}

func (c counting) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.sum.Add(int64(n))
	return n, err
}

func (f *field) path(name string) string { return filepath.Join(f.dir, name) }

// publish releases the product as it stands in product/, with another version and
// what more is to be replaced in its files, as old, new, ….
func (f *field) publish(version string, changes ...string) {
	f.t.Helper()
	site := f.path("product-" + version)
	require.NoError(f.t, os.CopyFS(site, os.DirFS("product")))
	require.NoError(f.t, os.Chmod(filepath.Join(site, "host", "bin", "selftest"), 0o755))
	program := dockerd.Program(f.t)
	var archive bytes.Buffer
	require.NoError(f.t, dockerd.Save(&archive, map[string]dockerd.Image{
		"acme/store:latest": dockerd.NewImage(dockerd.Options{}, program),
		"acme/front:latest": dockerd.NewImage(dockerd.Options{}, program, dockerd.Layer("pages", []byte("of "+version), 0o644)),
	}))
	require.NoError(f.t, os.WriteFile(filepath.Join(site, "images.tar"), archive.Bytes(), 0o644))
	replace := strings.NewReplacer(append(changes, "1.0.0", version, "linux/arm64", "linux/"+runtime.GOARCH)...)
	for _, name := range []string{"gateway.yaml", "compose.yaml", "host/settings"} {
		path := filepath.Join(site, name)
		text, err := os.ReadFile(path)
		require.NoError(f.t, err)
		require.NoError(f.t, os.WriteFile(path, []byte(replace.Replace(string(text))), 0o644))
	}
	f.run(f.path("publisher"), "release", "-repo", f.path("repo"), "-keys", f.path("keys"), filepath.Join(site, "gateway.yaml"))
}

// gateway runs the program with a verb.
func (f *field) gateway(verb string) (string, error) {
	f.t.Helper()
	return f.until(f.t.Context(), verb)
}

// until is gateway until ctx ends.
func (f *field) until(ctx context.Context, verb string) (string, error) {
	f.t.Helper()
	var out bytes.Buffer
	err := start(ctx, []string{
		"-dir", f.path("device"), "-source", f.server.URL, "-root", filepath.Join(f.path("repo"), "metadata", "1.root.json"),
		"-engine", f.engine.Host(), "-soak", "1s", "-deadline", f.trial, verb,
	}, &out)
	f.t.Logf("gateway %s: %v\n%s", verb, err, &out)
	return out.String(), err
}

// runs checks that both components are of the version: the app answers so, and
// the host's files say so.
func (f *field) runs(version, uplink string) {
	f.t.Helper()
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DialContext: f.engine.Dial, DisableKeepAlives: true}}
	answer := ""
	require.Eventually(f.t, func() bool {
		r, err := client.Get("http://127.0.0.1:8080/")
		if err != nil {
			answer = err.Error()
			return false
		}
		defer r.Body.Close()
		data, _ := io.ReadAll(r.Body)
		answer = string(data)
		return answer == "front "+version
	}, time.Minute, 50*time.Millisecond, "%s", answer)
	text, err := os.ReadFile(f.path("device/host/settings"))
	require.NoError(f.t, err)
	require.Equal(f.t, "uplink="+uplink+"\n", string(text))
}

// TestGateway takes a gateway through its life: from nothing to a release of files
// and containers, to the next, past bad ones of which one component or the other
// fails, through a crash of the engine, and, with no network any more, through the
// loss of everything that the engine holds, and back a release.
func TestGateway(t *testing.T) {
	docker := testneeds.Program(t, "docker")
	f := newField(t)
	f.publish("1.0.0")
	_, err := f.gateway("update")
	require.NoError(t, err)
	f.runs("1.0.0", "lan")

	f.publish("2.0.0", "uplink=lan", "uplink=lte")
	before := f.sent.Load()
	_, err = f.gateway("update")
	require.NoError(t, err)
	f.runs("2.0.0", "lte")
	require.Less(t, f.sent.Load()-before, int64(100_000), "of an image with a small change the change is fetched, without a registry")

	for _, bad := range []struct {
		version, says string
		changes       []string
	}{
		{"3.0.0", "host's selftest", []string{"uplink=lan", "nothing=here"}},
		{"4.0.0", "exit code 3", []string{"uplink=lan", "uplink=wifi", `"-text", "front`, `"-after", "700ms", "-exit", "3", "-text", "front`}},
		{"5.0.0", "no such file", []string{"uplink=lan", "uplink=wifi", "image: acme/front", "image: acme/front\n    entrypoint: [/nothing]"}},
	} {
		f.publish(bad.version, bad.changes...)
		f.trial = "7s"
		_, err = f.gateway("update")
		f.trial = "1m"
		require.ErrorContains(t, err, bad.says)
		f.runs("2.0.0", "lte")
		if errors.Is(err, ota.ErrUnhealthy) {
			_, err = f.gateway("update")
			require.ErrorIs(t, err, ota.ErrHeld, "what failed its trial is not tried again")
		}
	}
	f.engine.Kill()
	f.engine.Restart()
	f.runs("2.0.0", "lte")

	f.server.Close() // there is no network from here on
	status, err := f.gateway("status")
	require.NoError(t, err)
	require.Regexp(t, "runs 2.0.0 \\(seq 2\\)\nstore running, (starting|healthy)\nfront running", status)
	f.run("sh", "-c", docker+" -H "+f.engine.Host()+" kill $("+docker+" -H "+f.engine.Host()+" ps -q)")
	f.run(docker, "-H", f.engine.Host(), "system", "prune", "-af")
	require.NoError(t, os.WriteFile(f.path("device/host/settings"), []byte("garbage"), 0o644))
	_, err = f.gateway("verify")
	require.Error(t, err)
	ctx, stop := context.WithCancel(t.Context())
	mended := make(chan error, 1)
	go func() {
		_, err := f.until(ctx, "run")
		mended <- err
	}()
	f.runs("2.0.0", "lte")
	stop()
	require.NoError(t, <-mended)
	_, err = f.gateway("repair")
	require.NoError(t, err)
	f.runs("2.0.0", "lte")

	_, err = f.gateway("rollback")
	require.NoError(t, err)
	f.runs("1.0.0", "lan")

	volume := filepath.Join(f.engine.DataRoot(), "volumes", "app_readings", "_data", "log")
	kept, err := os.ReadFile(volume)
	require.NoError(t, err)
	require.Greater(t, bytes.Count(kept, []byte("\n")), 1, "the volume was kept from release to release")
	_, err = f.gateway("reset")
	require.NoError(t, err)
	f.runs("1.0.0", "lan")
	after, err := os.ReadFile(volume)
	require.NoError(t, err)
	require.Equal(t, "store 1.0.0\n", string(after))
	f.agentToo(volume)
}

// agentToo has the agent that knows containers take the same device over: its
// folders have the same names.
func (f *field) agentToo(volume string) {
	f.run("go", "build", "-tags", "containers", "-o", f.path("agent"), "../agent")
	config := fmt.Sprintf(`{"state": %q, "device": {"product": "gateway", "variant": "default"}, "components": {
		"host": {"kind": "files", "root": %q, "layout": "tree"}, "app": {"kind": "compose", "engine": %q}}}`,
		f.path("device"), f.path("device/host"), f.engine.Host())
	require.NoError(f.t, os.WriteFile(f.path("agent.json"), []byte(config), 0o600))
	agent := func(args ...string) string {
		return f.run(f.path("agent"), append(args, "-config", f.path("agent.json"))...)
	}
	status := agent("status")
	require.Contains(f.t, status, "runs 1.0.0 (seq 1), idle\n")
	require.Contains(f.t, status, "\nservice of app: store running")
	require.NoError(f.t, os.WriteFile(volume, []byte("readings\n"), 0o644))
	require.Equal(f.t, "app begins anew with 1.0.0 (seq 1)\n", agent("reset", "app"))
	after, err := os.ReadFile(volume)
	require.NoError(f.t, err)
	require.Equal(f.t, "readings\nstore 1.0.0\n", string(after))
	agent("reset", "app", "-data")
	f.runs("1.0.0", "lan")
	after, err = os.ReadFile(volume)
	require.NoError(f.t, err)
	require.Equal(f.t, "store 1.0.0\n", string(after))
	require.Equal(f.t, "1.0.0 (seq 1) is as published\n", agent("verify"))
}
