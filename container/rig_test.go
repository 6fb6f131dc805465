package container

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

// app is an app with its content.
type testApp struct {
	app   compose.App
	c     release.Component
	blobs otatest.Blobs
}

func blobOf(data []byte) release.Blob {
	return release.Blob{Digest: release.Sum(data), Size: int64(len(data))}
}

// image makes an image of layers.
func testImage(name string, blobs otatest.Blobs, layers ...string) compose.Image {
	i := compose.Image{Name: name, OS: "linux", Architecture: "amd64"}
	config := imageConfig{OS: "linux", Architecture: "amd64"}
	for _, l := range layers {
		l = layerWith(l)
		blobs.Add([]byte(l))
		i.Layers = append(i.Layers, blobOf([]byte(l)))
		i.Size += int64(len(l))
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, "sha256:"+release.Sum([]byte(l)).String())
	}
	data, err := json.Marshal(map[string]any{"name": name, "os": "linux", "architecture": "amd64", "rootfs": map[string]any{"diff_ids": config.RootFS.DiffIDs}})
	if err != nil {
		panic(err)
	}
	blobs.Add(data)
	i.Config = blobOf(data)
	return i
}

// layerWith is a layer with one file, which holds the text.
func layerWith(text string) string {
	var b strings.Builder
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "files/" + text, Size: int64(len(text)), Mode: 0o644}); err != nil {
		panic(err)
	}
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	return b.String()
}

// service is a service with what every one needs.
func testService(name string, image int) compose.Service {
	return compose.Service{
		Name: name, Container: "shop-" + name, Image: image, Strategy: compose.Recreate, StopGrace: time.Second,
		Restart: compose.Restart{Policy: compose.RestartAlways}, Networks: []compose.Attachment{{Network: "default", Aliases: []string{name}}},
	}
}

// newApp is version n of an app: two services of which one depends on the other
// and has a port, a one-shot service, a network, a volume and a config. Version
// by version the image of the front changes, and from version 2 on the network
// too.
func newApp(t testing.TB, n int, change ...func(*compose.App)) testApp {
	a := testApp{blobs: otatest.Blobs{}}
	text := []byte(fmt.Sprint("config ", n))
	a.blobs.Add(text)
	base := testImage("base", a.blobs, "layer base")
	front := testImage("front", a.blobs, "layer base", fmt.Sprint("layer ", n))
	db, init, web := testService("db", 0), testService("init", 0), testService("web", 1)
	db.Mounts = []compose.Mount{{Type: compose.MountVolume, Source: "data", Target: "/data"}}
	init.OneShot, init.Restart.Policy = true, compose.RestartNo
	init.DependsOn = []compose.Dependency{{Service: "db", Condition: compose.Started}}
	web.DependsOn = []compose.Dependency{{Service: "db", Condition: compose.Healthy}, {Service: "init", Condition: compose.Completed}}
	web.Ports = []compose.Port{{HostPort: 80, Container: 80, Protocol: compose.TCP}}
	web.Files = []compose.FileMount{{Kind: compose.Config, Name: "conf", Target: "/conf", Mode: 0o444}}
	a.app = compose.App{
		Format: compose.Format, Name: "shop", Images: []compose.Image{base, front},
		Networks: []compose.Network{{Name: "default", Engine: "shop_default", Internal: n > 1}},
		Volumes:  []compose.Volume{{Name: "data", Engine: "shop_data"}},
		Files:    []compose.File{{Name: "conf", Kind: compose.Config, Blob: blobOf(text)}},
		Services: []compose.Service{db, init, web},
	}
	for _, f := range change {
		f(&a.app)
	}
	data, err := a.app.Encode()
	require.NoError(t, err)
	a.blobs.Add(data)
	a.c = release.Component{Name: "shop", Kind: Kind, Index: blobOf(data)}
	return a
}

// changed returns a with another document.
func (a testApp) changed(t testing.TB, change func(*compose.App)) testApp {
	change(&a.app)
	data, err := a.app.Encode()
	require.NoError(t, err)
	a.blobs.Add(data)
	a.c.Index = blobOf(data)
	return a
}

// rig is a backend at a fake engine.
type rig struct {
	t testing.TB
	*fake
	b     *Compose
	dir   string
	limit time.Duration // of each call
}

func newRig(t testing.TB, snapshots bool) *rig {
	r := &rig{t: t, fake: newFake(snapshots), dir: t.TempDir(), limit: time.Minute}
	r.reopen()
	return r
}

// reopen is the next process.
func (r *rig) reopen() {
	o := Options{Name: "shop", Dir: r.dir + "/shop", CallLimit: r.limit, EngineWait: 20 * time.Millisecond, TransferLimit: r.limit, DependLimit: time.Minute}
	require.NoError(r.t, o.validate())
	if r.b != nil {
		require.NoError(r.t, r.b.Close())
	}
	b, err := open(o, r.fake)
	require.NoError(r.t, err)
	b.pause = time.Millisecond
	b.before = func() error { return r.step(context.Background(), "record", func() error { return nil }) }
	b.syncRoot = func(string) error { return r.fake.sync(context.Background()) }
	r.b = b
}

// look is what runs, as somebody sees it who knows nothing of the backend.
func (r *rig) look() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, b := range r.boxes {
		if b.up() {
			all = append(all, fmt.Sprintf("%s of %s is %s in %d networks; ", b.Name, string(r.images[b.Image].config), b.State, len(b.Networks)))
		}
	}
	slices.Sort(all)
	return fmt.Sprint(all)
}

func (r *rig) install(tx ota.TxID, a testApp) {
	r.t.Helper()
	ctx := r.t.Context()
	_, err := r.b.Stage(ctx, tx, a.c, a.blobs)
	require.NoError(r.t, err)
	require.NoError(r.t, r.b.Activate(ctx, tx, a.c))
	require.NoError(r.t, r.b.Commit(ctx, tx, a.c))
}

func TestConformance(t *testing.T) {
	for _, snapshots := range []bool{false, true} {
		t.Run(fmt.Sprintf("snapshots=%v", snapshots), func(t *testing.T) {
			var apps []testApp
			blobs := otatest.Blobs{}
			for n := range 3 {
				a := newApp(t, n)
				apps = append(apps, a)
				maps.Copy(blobs, a.blobs)
			}
			otatest.TestBackend(t, func(t *testing.T) otatest.Subject {
				r := newRig(t, snapshots)
				look := func() string {
					if s := r.look(); s != "[]" {
						return s
					}
					return ""
				}
				return otatest.Subject{
					Backend: r.b, Blobs: blobs, Look: look,
					Component: func(n int) release.Component { return apps[n].c },
					Reopen: func() ota.Backend {
						if r.off {
							r.boot()
						}
						r.reopen()
						return r.b
					},
					Crash:   func(n int) { r.changes = true; r.arm(n, cutBefore) },
					Crashed: r.struck,
				}
			})
		})
	}
}
