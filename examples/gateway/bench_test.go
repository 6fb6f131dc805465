//go:build linux

package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/dockerd"
	"github.com/pawl-ota/pawl/internal/testneeds"
)

// BenchmarkContainers updates a small HTTP service on a base of 105 MB of real
// files, with pawl and with docker pull, stop, rm and run: C1 changes the program
// alone, C2 3 % of the files of the base too. Bytes are held to a limit; times are
// for a quiet machine to tell.
func BenchmarkContainers(b *testing.B) {
	docker := testneeds.Program(b, "docker")
	programs := [2][]byte{buildService(b, ""), buildService(b, `import _ "encoding/xml"; import _ "net/http/cgi"`)}
	for _, c := range []struct {
		name  string
		every int // of the files of the base one in so many changes; 0: none
		most  float64
	}{{"C1", 0, 0.25}, {"C2", 33, 0.03}} {
		b.Run(c.name, func(b *testing.B) {
			base := baseLayer(b, 0)
			images := [2]dockerd.Image{
				dockerd.NewImage(dockerd.Options{}, base, dockerd.Layer("app", programs[0], 0o755)),
				dockerd.NewImage(dockerd.Options{}, baseLayer(b, c.every), dockerd.Layer("app", programs[1], 0o755)),
			}
			var floors, all []measure
			for b.Loop() {
				floors, all = append(floors, byHand(b, docker, images)), append(all, withPawl(b, images))
				b.Logf("docker by hand: %v", floors[len(floors)-1])
				b.Logf("pawl:           %v", all[len(all)-1])
			}
			floor, ours := median(floors), median(all)
			b.Logf("docker by hand, medians: %v", floor)
			b.Logf("pawl, medians:           %v", ours)
			for name, v := range map[string]float64{
				"bytes-ratio": float64(ours.bytes) / float64(floor.bytes), "serving-ratio": ours.serving.Seconds() / floor.serving.Seconds(),
				"downtime-ratio": ours.downtime.Seconds() / floor.downtime.Seconds(), "peak-MiB": float64(ours.peak) / (1 << 20),
				"written-ratio": float64(ours.written) / float64(floor.written),
			} {
				b.ReportMetric(v, name)
			}
			if ratio := float64(ours.bytes) / float64(floor.bytes); ratio > c.most {
				b.Errorf("%d bytes are %.3f of the %d of docker pull, more than %.2f", ours.bytes, ratio, floor.bytes, c.most)
			}
		})
	}
}

// measure is what one update took.
type measure struct {
	bytes             int64 // over the network
	serving, downtime time.Duration
	peak              int64 // resident bytes of the tool
	written           int64 // by the engine and the tool
}

func (m measure) String() string {
	return fmt.Sprintf("%d bytes fetched, serving after %v, down for %v, peak %d KiB, %d bytes written",
		m.bytes, m.serving.Round(time.Millisecond), m.downtime.Round(time.Millisecond), m.peak>>10, m.written)
}

// median is the median of each figure.
func median(all []measure) measure {
	middle := func(of func(measure) int64) int64 {
		var values []int64
		for _, m := range all {
			values = append(values, of(m))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return measure{
		bytes:    middle(func(m measure) int64 { return m.bytes }),
		serving:  time.Duration(middle(func(m measure) int64 { return int64(m.serving) })),
		downtime: time.Duration(middle(func(m measure) int64 { return int64(m.downtime) })),
		peak:     middle(func(m measure) int64 { return m.peak }),
		written:  middle(func(m measure) int64 { return m.written }),
	}
}

// buildService builds the test program, with more imports.
func buildService(b *testing.B, more string) []byte {
	dir := b.TempDir()
	text, err := os.ReadFile("../../internal/dockerd/testdata/app/main.go")
	require.NoError(b, err)
	source := strings.Replace(string(text), "package main\n", "package main\n"+more+"\n", 1)
	require.NoError(b, os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o600))
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-w", "-o", "app", "main.go")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=")
	out, err := cmd.CombinedOutput()
	require.NoError(b, err, "%s", out)
	data, err := os.ReadFile(filepath.Join(dir, "app"))
	require.NoError(b, err)
	return data
}

// baseLayer is a layer of 105 MB of what a Go installation consists of; one file in
// every so many has 32 bytes more.
func baseLayer(b *testing.B, every int) []byte {
	root := strings.TrimSpace(output(b, "go", "env", "GOROOT"))
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	n := 0
	for _, part := range []string{"bin", "pkg/tool", "src"} {
		err := filepath.WalkDir(filepath.Join(root, part), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || out.Len() > 105e6 {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if n++; every > 0 && n%every == 0 {
				sum := sha256.Sum256(data)
				data = append(data, sum[:]...)
			}
			name, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			if err := w.WriteHeader(&tar.Header{Name: "base/" + name, Size: int64(len(data)), Mode: 0o644, Format: tar.FormatPAX}); err != nil {
				return err
			}
			_, err = w.Write(data)
			return err
		})
		require.NoError(b, err)
	}
	require.NoError(b, w.Close())
	return out.Bytes()
}

func output(b *testing.B, name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	require.NoError(b, err, "%s %v", name, args)
	return string(out)
}

// byHand is docker pull, stop, rm, run.
func byHand(b *testing.B, docker string, images [2]dockerd.Image) (m measure) {
	e := dockerd.Start(b)
	addr := e.Registry(b)
	run := func(args ...string) {
		m.peak = max(m.peak, highest(b, exec.Command(docker, append([]string{"-H", e.Host()}, args...)...)))
	}
	tags := [2]string{addr + "/acme/service:1", addr + "/acme/service:2"}
	for n, i := range images {
		path := filepath.Join(b.TempDir(), "image.tar")
		f, err := os.Create(path)
		require.NoError(b, err)
		require.NoError(b, i.Archive(f, tags[n]))
		require.NoError(b, f.Close())
		run("load", "-q", "-i", path)
		run("push", "-q", tags[n])
		require.NoError(b, os.Remove(path))
	}
	run("rmi", tags[1])
	start := func(n int) []string {
		return []string{"run", "-d", "--name", "service", "-p", "127.0.0.1:8080:80", "--restart", "always", tags[n], "-addr", ":80", "-text", fmt.Sprint("version ", n+1)}
	}
	run(start(0)...)
	received := e.Received() // before there is a client, which would be counted too
	run("pull", "-q", tags[1])
	m.bytes = e.Received() - received
	run("rmi", tags[1])
	w := watch(b, e)
	w.until(b, "version 1", time.Now())
	m.peak = 0
	written := e.Written()
	begin := time.Now()
	run("pull", "-q", tags[1])
	run("stop", "service")
	run("rm", "service")
	run(start(1)...)
	m.serving, m.downtime = w.until(b, "version 2", begin)
	m.written = e.Written() - written
	e.Kill()
	return m
}

// withPawl is an update with the agent, which is in the engine's network, as on a
// device.
func withPawl(b *testing.B, images [2]dockerd.Image) (m measure) {
	f := newField(b)
	l, err := f.engine.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	server := httptest.NewUnstartedServer(f.server.Config.Handler)
	require.NoError(b, server.Listener.Close())
	server.Listener = l
	server.Start()
	b.Cleanup(server.Close)
	f.run("go", "build", "-tags", "containers", "-o", f.path("agent"), "../agent")
	config := map[string]any{
		"state":      f.path("device"),
		"device":     map[string]any{"id": "d", "product": "gateway", "variant": "default"},
		"source":     map[string]any{"url": server.URL, "root": f.path("repo/metadata/1.root.json")},
		"components": map[string]any{"app": map[string]any{"kind": "compose", "engine": f.engine.Host()}},
		"trial":      map[string]any{"soak": "100ms", "interval": "50ms"},
	}
	data, err := json.Marshal(config)
	require.NoError(b, err)
	require.NoError(b, os.WriteFile(f.path("agent.json"), data, 0o600))
	var w *watcher
	for n, i := range images {
		text := fmt.Sprint("version ", n+1)
		dir := f.path(text)
		require.NoError(b, os.Mkdir(dir, 0o755))
		archive, err := os.Create(filepath.Join(dir, "images.tar"))
		require.NoError(b, err)
		require.NoError(b, i.Archive(archive, "acme/service:latest"))
		require.NoError(b, archive.Close())
		compose := "services:\n  service:\n    image: acme/service\n    command: [-addr, ':80', -text, " + text + "]\n    ports: ['127.0.0.1:8080:80']\n    restart: always\n    x-pawl: {trial: {uptime: 100ms}}\n"
		require.NoError(b, os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(compose), 0o600))
		spec := fmt.Sprintf("product: gateway\nversion: %d.0.0\ncomponents:\n  - {name: app, kind: compose, from: compose.yaml, platform: linux/%s, images: {'*': 'docker-archive:images.tar'}, keep: {previous: 1, repair: full}}\n", n+1, runtime.GOARCH)
		require.NoError(b, os.WriteFile(filepath.Join(dir, "spec.yaml"), []byte(spec), 0o600))
		f.run(f.path("publisher"), "release", "-repo", f.path("repo"), "-keys", f.path("keys"), filepath.Join(dir, "spec.yaml"))
		sent, written := f.sent.Load(), f.engine.Written()
		update, err := f.engine.Command(f.path("agent"), "-config", f.path("agent.json"), "update")
		require.NoError(b, err)
		begin := time.Now()
		m.peak = highest(b, update)
		m.bytes = f.sent.Load() - sent
		if n == 0 {
			w = watch(b, f.engine)
			w.until(b, text, begin)
			continue
		}
		m.serving, m.downtime = w.until(b, text, begin)
		m.written = f.engine.Written() - written + int64(update.ProcessState.SysUsage().(*syscall.Rusage).Oublock)*512
	}
	local := output(b, "du", "-sk", f.path("device"))
	b.Logf("the local copy and all that pawl keeps: %s KiB", strings.Fields(local)[0])
	f.engine.Kill()
	return m
}

// highest runs a program, which has to succeed, and returns the most memory that it
// had resident, in bytes.
func highest(b *testing.B, cmd *exec.Cmd) (most int64) {
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	require.NoError(b, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	path := fmt.Sprintf("/proc/%d/status", cmd.Process.Pid)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			require.NoError(b, err, "%v: %s", cmd.Args, &said)
			return most
		case <-tick.C:
			data, _ := os.ReadFile(path)
			_, after, _ := strings.Cut(string(data), "VmHWM:")
			kib, _ := strconv.ParseInt(strings.TrimSpace(strings.SplitN(after, "kB", 2)[0]), 10, 64)
			most = max(most, kib<<10)
		}
	}
}

// watcher is a client that connects every 5 ms.
type watcher struct {
	mu    sync.Mutex
	last  time.Time            // of an answer
	gap   time.Duration        // the longest between two
	first map[string]time.Time // answer, by its text
}

func watch(b *testing.B, e *dockerd.Engine) *watcher {
	w := &watcher{first: map[string]time.Time{}}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- e.Within(func() error {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				if text, err := answer(); err == nil {
					w.saw(text)
				}
				<-tick.C
			}
			return nil
		})
	}()
	b.Cleanup(func() {
		cancel()
		require.NoError(b, <-ended)
	})
	return w
}

// answer is one request, all of it on the thread that calls.
func answer() (string, error) {
	c, err := net.DialTimeout("tcp", "127.0.0.1:8080", time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: service\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(r.Body)
	return string(data), errors.Join(err, r.Body.Close())
}

func (w *watcher) saw(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if !w.last.IsZero() {
		w.gap = max(w.gap, now.Sub(w.last))
	}
	w.last = now
	if _, ok := w.first[text]; !ok {
		w.first[text] = now
	}
}

// until waits for an answer, and returns when it came and how long there was none.
func (w *watcher) until(b *testing.B, text string, begin time.Time) (serving, downtime time.Duration) {
	require.Eventually(b, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		at, ok := w.first[text]
		serving, downtime = at.Sub(begin), w.gap
		return ok
	}, time.Minute, 5*time.Millisecond)
	return serving, downtime
}
