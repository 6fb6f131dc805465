//go:build linux

package container

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	docker "github.com/docker/docker/api/types/container"
	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/dockerd"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

// realImage turns an image of the fixture into one of a document.
func realImage(name string, i dockerd.Image, blobs otatest.Blobs) compose.Image {
	blobs.Add(i.Config)
	blobs.Add(i.Layers...)
	out := compose.Image{Name: name, Config: blobOf(i.Config), OS: "linux", Architecture: runtime.GOARCH}
	for _, l := range i.Layers {
		out.Layers = append(out.Layers, blobOf(l))
		out.Size += int64(len(l))
	}
	return out
}

// realApp is version n of an app of two services: a front with a published port
// and a back with a volume and a health check. front are the front's arguments
// beside what it needs.
func realApp(t testing.TB, n int, front ...string) testApp {
	a := testApp{blobs: otatest.Blobs{}}
	text := fmt.Sprint("version ", n)
	program := dockerd.Program(t)
	conf := []byte("config of " + text)
	a.blobs.Add(conf)
	i := realImage("app", dockerd.NewImage(dockerd.Options{}, program, dockerd.Layer("version", []byte(text), 0o644)), a.blobs)
	back, web := testService("back", 0), testService("web", 0)
	back.Command = []string{"-addr", ":80", "-write", "/data/log", "-text", text}
	back.Mounts = []compose.Mount{{Type: compose.MountVolume, Source: "data", Target: "/data"}}
	back.Healthcheck = &compose.Healthcheck{Test: []string{"CMD", "/app", "-probe", "127.0.0.1:80"}, Interval: 200 * time.Millisecond, Timeout: 2 * time.Second, Retries: 3}
	web.Command = append([]string{"-addr", ":80", "-text", text}, front...)
	web.DependsOn = []compose.Dependency{{Service: "back", Condition: compose.Healthy}}
	web.Ports = []compose.Port{{HostIP: "127.0.0.1", HostPort: 8080, Container: 80, Protocol: compose.TCP}}
	web.Files = []compose.FileMount{{Kind: compose.Secret, Name: "conf", Target: "/run/secrets/conf", Mode: 0o400}}
	web.Trial.Uptime = 500 * time.Millisecond
	plain(&back, &web)
	a.app = compose.App{
		Format: compose.Format, Name: "shop", Images: []compose.Image{i},
		Networks: []compose.Network{{Name: "default", Engine: "shop_default"}},
		Volumes:  []compose.Volume{{Name: "data", Engine: "shop_data"}},
		Files:    []compose.File{{Name: "conf", Kind: compose.Secret, Blob: blobOf(conf)}},
		Services: []compose.Service{back, web},
	}
	data, err := a.app.Encode()
	require.NoError(t, err)
	a.blobs.Add(data)
	a.c = release.Component{Name: "shop", Kind: Kind, Index: blobOf(data), Keep: release.Keep{Previous: 1, Repair: release.RepairFull}}
	return a
}

// realRig is a backend at a real engine.
type realRig struct {
	t   testing.TB
	e   *dockerd.Engine
	b   *Compose
	dir string
	// host is where the engine listens, if it is another process's.
	host string
	// met are the addresses that the kernel was told of.
	met []address
}

// newRealRig is a backend at an engine that may have been used before, emptied.
func newRealRig(t testing.TB, e *dockerd.Engine) *realRig {
	r := &realRig{t: t, e: e, dir: t.TempDir()}
	t.Cleanup(func() { _ = r.b.Close() })
	r.reopen()
	r.empty()
	return r
}

// empty removes what an earlier test left.
func (r *realRig) empty() {
	ctx := context.Background()
	all, err := r.b.engine.(*limited).e.(*dockerEngine).cli.ContainerList(ctx, docker.ListOptions{All: true})
	require.NoError(r.t, err)
	for _, b := range all {
		require.NoError(r.t, r.b.engine.Remove(ctx, b.ID))
	}
	require.NoError(r.t, r.b.collect(ctx, &record{}))
	there, err := r.b.engine.Volumes(ctx)
	require.NoError(r.t, err)
	for _, v := range there {
		require.NoError(r.t, r.b.engine.RemoveVolume(ctx, v.Name))
	}
}

// TestAppsOfAnEngine has tests share an engine that end with it as it should be.
func TestAppsOfAnEngine(t *testing.T) {
	e := startEngine(t)
	t.Run("refused", func(t *testing.T) { refusedByAnEngine(t, e) })
	t.Run("update", func(t *testing.T) { updateOfAnEngine(t, e) })
	t.Run("fields", func(t *testing.T) { fieldsOfAnEngine(t, e) })
	t.Run("bad releases", func(t *testing.T) { badReleasesOfAnEngine(t, e) })
	t.Run("conformance", func(t *testing.T) { conformanceOfAnEngine(t, e) })
	t.Run("restarts", func(t *testing.T) { restartsOfAnEngine(t, e) })
	t.Run("handover", func(t *testing.T) { handoverOfAnEngine(t, e) })
	t.Run("store", func(t *testing.T) { storeOfAnEngine(t, e) })
	t.Run("registry", func(t *testing.T) { registryOfAnEngine(t, e) })
}

func (r *realRig) reopen() {
	if r.b != nil {
		require.NoError(r.t, r.b.Close())
	}
	host, err := r.host, error(nil)
	if host == "" {
		host = r.e.Host()
	}
	r.b, err = New(Options{Name: "shop", Dir: filepath.Join(r.dir, "shop"), Host: host, Warn: func(err error) { r.t.Log("warning:", err) }})
	require.NoError(r.t, err)
	if r.e != nil {
		r.b.introduce = func(all []address) error {
			r.met = append(r.met, all...)
			return r.e.Within(func() error { return introduce(all) })
		}
	}
}

// boot is a power cut of the device, whose agent starts again.
func (r *realRig) boot() {
	r.e.Kill()
	r.e.Restart()
	require.NoError(r.t, r.b.Settle(context.Background())) // r.t may have ended
}

// get asks the published port.
func (r *realRig) get() string { return r.ask(2 * time.Second) }

func (r *realRig) ask(limit time.Duration) string {
	c := &http.Client{Timeout: limit, Transport: &http.Transport{DialContext: r.e.Dial, DisableKeepAlives: true}}
	a, err := c.Get("http://127.0.0.1:8080/")
	if err != nil {
		return err.Error()
	}
	defer func() { _ = a.Body.Close() }()
	data, _ := io.ReadAll(a.Body)
	return string(data)
}

// serves waits until the app answers so.
func (r *realRig) serves(want string) {
	r.t.Helper()
	require.Eventually(r.t, func() bool { return r.get() == want }, time.Minute, 20*time.Millisecond, "%s", r.get())
}

// look is what runs, without times and ids.
func (r *realRig) look() string {
	w, err := r.b.engine.Boxes(r.t.Context(), labelComponent, "shop")
	require.NoError(r.t, err)
	var all []string
	for _, b := range w {
		if b.up() {
			all = append(all, fmt.Sprint(b.Name, " of ", b.Image))
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// updater is an Updater over releases in memory.
func (r *realRig) updater(source *otatest.Memory) *ota.Updater {
	u, err := ota.Open(r.t.Context(), r.options(source))
	require.NoError(r.t, err)
	r.t.Cleanup(func() { _ = u.Close() })
	_, err = u.Resume(r.t.Context())
	require.NoError(r.t, err)
	return u
}

func (r *realRig) options(source *otatest.Memory) ota.Options {
	return ota.Options{
		Dir: filepath.Join(r.dir, "state"), Source: source,
		Device:   ota.Device{ID: "d", Product: "shop", Variant: "v", Hardware: "h"},
		Backends: map[string]ota.Backend{"shop": r.b}, Health: r.b.Healthy,
		Trial: ota.Trial{Soak: 500 * time.Millisecond, Deadline: 8 * time.Second, Interval: 100 * time.Millisecond},
	}
}

func offer(source *otatest.Memory, seq uint64, a testApp) {
	rel := &release.Release{
		Format: release.Format, ID: release.ID{Product: "shop", Variant: "v", Seq: seq}, Version: fmt.Sprint(seq),
		Issued: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Components: []release.Component{a.c},
	}
	source.Put(rel, slices.Collect(maps.Values(a.blobs))...)
	source.Offer(rel)
}

// updateOfAnEngine takes a real engine from nothing to version 1 and 2, keeps it there
// over a power cut, refuses a release that crashes, and goes back to version 1
// without a network. Somebody else's container stays as it is.
func updateOfAnEngine(t *testing.T, e *dockerd.Engine) {
	r, ctx := newRealRig(t, e), t.Context()
	source := otatest.NewMemory()
	u := r.updater(source)
	update := func(seq uint64, a testApp) (ota.Result, error) {
		offer(source, seq, a)
		return u.Update(ctx)
	}
	one := realApp(t, 1)
	result, err := update(1, one)
	require.NoError(t, err)
	require.Equal(t, ota.Committed, result.State)
	r.serves("version 1")
	result, err = update(2, realApp(t, 2))
	require.NoError(t, err)
	r.serves("version 2")
	require.NotEmpty(t, r.met, "nobody was told where the front is")
	t.Logf("took %v, without a container for %v", result.Took, result.Downtime)
	require.Positive(t, result.Downtime)
	require.Less(t, result.Downtime, result.Took)

	r.boot()
	r.serves("version 2")

	_, err = update(3, realApp(t, 3, "-after", "300ms", "-exit", "7"))
	require.ErrorIs(t, err, ota.ErrUnhealthy)
	require.ErrorContains(t, err, "exit code 7")
	r.serves("version 2")
	found, err := u.Verify(ctx)
	require.NoError(t, err)
	require.Empty(t, found)

	result, err = u.Rollback(ctx, 0)
	require.NoError(t, err)
	require.Equal(t, uint64(1), result.To.Seq)
	r.serves("version 1")
	r.boot()
	r.serves("version 1")
	require.Equal(t, 2, strings.Count(r.look(), "sha256:"))
	w, err := r.b.engine.Boxes(ctx, labelComponent, "shop")
	require.NoError(t, err)
	require.Len(t, w, 2)
}
