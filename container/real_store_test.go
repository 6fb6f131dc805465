//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/dockerd"
	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

func (r *realRig) install(tx ota.TxID, a testApp) {
	r.t.Helper()
	ctx := r.t.Context()
	_, err := r.b.Stage(ctx, tx, a.c, a.blobs)
	require.NoError(r.t, err)
	require.NoError(r.t, r.b.Activate(ctx, tx, a.c))
	require.NoError(r.t, r.b.Commit(ctx, tx, a.c))
}

// files returns what matches in the engine's store.
func (r *realRig) files(pattern string) []string {
	r.t.Helper()
	all, err := filepath.Glob(filepath.Join(r.e.DataRoot(), pattern))
	require.NoError(r.t, err)
	require.NotEmpty(r.t, all, pattern)
	return all
}

// places are where an engine keeps what the tests break: the two files of the app,
// what leads to layers, and the description of an image.
type places struct{ version, app, links, image string }

// places asks the engine which they are.
func (r *realRig) places() places {
	info, err := r.b.engine.Info(r.t.Context())
	require.NoError(r.t, err)
	switch {
	case info.Podman:
		return places{"overlay/*/diff/version", "overlay/*/diff/app", "overlay/*/diff/*", "overlay-images/%s/*"}
	case info.Snapshots:
		const files = "containerd/daemon/io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs/"
		return places{files + "version", files + "app", files + "*", "containerd/daemon/io.containerd.content.v1.content/blobs/sha256/%s"}
	}
	return places{"overlay2/*/diff/version", "overlay2/*/diff/app", "overlay2/l/*", "image/overlay2/imagedb/content/sha256/%s"}
}

// storeOfAnEngine breaks the store of a real engine in every way that a power
// cut or a person does, has Verify find it, and Repair mend it with what is on
// the device.
func storeOfAnEngine(t *testing.T, e *dockerd.Engine) {
	r, a, ctx := newRealRig(t, e), realApp(t, 1), t.Context()
	r.install("one", a)
	r.serves("version 1")
	id, at := a.app.Images[0].Config.Digest.String(), r.places()
	down := func(do func(r *realRig, a testApp)) func(*realRig, testApp) {
		return func(r *realRig, a testApp) {
			r.e.Kill()
			do(r, a)
			r.e.Restart()
		}
	}
	for _, h := range []struct {
		name string
		do   func(r *realRig, a testApp)
	}{
		{"an emptied file of a layer", func(r *realRig, _ testApp) {
			for _, path := range r.files(at.version) {
				require.NoError(t, os.Truncate(path, 0))
			}
		}},
		{"a layer's files deleted", down(func(r *realRig, _ testApp) {
			for _, path := range r.files(at.app) {
				require.NoError(t, os.Remove(path))
			}
		})},
		{"links of layers lost", down(func(r *realRig, _ testApp) {
			for _, path := range r.files(at.links) {
				require.NoError(t, os.RemoveAll(path))
			}
		})},
		{"an image's description zeroed", down(func(r *realRig, a testApp) {
			for _, path := range r.files(fmt.Sprintf(at.image, id)) {
				require.NoError(t, os.Truncate(path, 0))
			}
		})},
		{"the store wiped", down(func(r *realRig, _ testApp) {
			require.NoError(t, os.RemoveAll(r.e.DataRoot()))
		})},
		{"docker system prune -af", func(r *realRig, _ testApp) {
			w, err := r.b.look(t.Context())
			require.NoError(t, err)
			for _, b := range w {
				require.NoError(t, r.b.engine.Stop(t.Context(), b.ID, 0))
			}
			program, to := "docker", "-H"
			if engineKind == "podman" {
				program, to = "podman", "--url"
			}
			out, err := exec.Command(testneeds.Program(t, program), to, r.e.Host(), "system", "prune", "-af").CombinedOutput()
			require.NoError(t, err, "%s", out)
		}},
	} {
		t.Run(h.name, func(t *testing.T) {
			r.t = t
			h.do(r, a)
			found, err := r.b.Verify(ctx, a.c, a.blobs)
			require.NoError(t, err)
			require.NotEmpty(t, found)
			t.Log(found)
			r.b.opts.Restart = func(context.Context) error {
				r.e.Kill()
				return r.e.Launch()
			}
			left, err := r.b.Repair(ctx, a.c, a.blobs)
			require.NoError(t, err)
			require.Empty(t, left)
			r.serves("version 1")
		})
	}
	r.boot()
	r.serves("version 1")
}

// smallApp is version n of an app of one container without a network, which
// starts fast.
func smallApp(t testing.TB, n int) testApp {
	return realApp(t, n).changed(t, func(a *compose.App) {
		v := testService("web", 0)
		v.Networks, v.NetworkMode, v.Command = nil, "none", []string{"-after", "1h"}
		plain(&v)
		a.Services, a.Networks, a.Volumes, a.Files = []compose.Service{v}, nil, nil, nil
	})
}

// conformanceOfAnEngine runs the suite for backends at a real engine, which
// is emptied of what one test left before the next. In short it goes from version
// to version, and every verb is called again.
func conformanceOfAnEngine(t *testing.T, e *dockerd.Engine) {
	blobs := otatest.Blobs{}
	var apps []testApp
	for n := range 3 {
		a := smallApp(t, n)
		apps = append(apps, a)
		maps.Copy(blobs, a.blobs)
	}
	r := newRealRig(t, e)
	if os.Getenv("PAWL_CRASH") != "long" {
		r.everyVerbTwice(apps)
		return
	}
	otatest.TestBackend(t, func(t *testing.T) otatest.Subject {
		r.t, r.dir = t, t.TempDir()
		r.reopen()
		require.NoError(t, r.b.collect(t.Context(), &record{}))
		return otatest.Subject{
			Backend: r.b, Blobs: blobs, Look: r.look,
			Component: func(n int) release.Component { return apps[n].c },
			Reopen: func() ota.Backend {
				r.reopen()
				return r.b
			},
		}
	})
}

// everyVerbTwice takes version after version, each with a way back first.
func (r *realRig) everyVerbTwice(apps []testApp) {
	ctx, before := r.t.Context(), r.look()
	for n, a := range apps {
		for _, back := range []bool{true, false} {
			tx := ota.TxID(fmt.Sprintf("tx-%d-%v", n, back))
			for range 2 {
				_, err := r.b.Stage(ctx, tx, a.c, a.blobs)
				require.NoError(r.t, err)
			}
			require.Equal(r.t, before, r.look())
			for range 2 {
				require.NoError(r.t, r.b.Activate(ctx, tx, a.c))
				r.reopen()
			}
			now, err := r.b.Active(ctx, "shop")
			require.NoError(r.t, err)
			require.True(r.t, now.Is(a.c.Digest()))
			for range 2 {
				if back {
					require.NoError(r.t, r.b.Revert(ctx, tx, a.c))
				} else {
					require.NoError(r.t, r.b.Commit(ctx, tx, a.c))
				}
			}
			require.Equal(r.t, back, before == r.look())
			before = r.look()
		}
	}
}

// pushed asks the registry for the digest of the image there.
func (r *realRig) pushed(addr string) string {
	q, err := http.NewRequestWithContext(r.t.Context(), http.MethodHead, "http://"+addr+"/v2/shop/app/manifests/1", nil)
	require.NoError(r.t, err)
	q.Header.Set("Accept", "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json")
	a, err := (&http.Transport{DialContext: r.e.Dial, DisableKeepAlives: true}).RoundTrip(q)
	require.NoError(r.t, err)
	require.NoError(r.t, a.Body.Close())
	return a.Header.Get("Docker-Content-Digest")
}

// registryOfAnEngine pulls an image that was left in a registry, with the credentials
// of the callback, and makes nothing of what the registry has under another
// digest.
func registryOfAnEngine(t *testing.T, e *dockerd.Engine) {
	docker := testneeds.Program(t, "docker")
	r, ctx := newRealRig(t, e), t.Context()
	addr := r.e.Registry(t)
	a := realApp(t, 1)
	run := func(args ...string) string {
		out, err := exec.Command(docker, append([]string{"-H", r.e.Host()}, args...)...).Output()
		require.NoError(t, err, "%v: %s", args, out)
		return string(out[:max(0, len(out)-1)])
	}
	r.install("one", a)
	there, err := r.b.engine.Image(ctx, r.b.tag(a.app.Images[0].Config.Digest))
	require.NoError(t, err)
	tag, image := addr+"/shop/app:1", there.ID
	run("tag", image, tag)
	run("push", tag)
	ref := addr + "/shop/app@" + r.pushed(addr)

	asked := ""
	r.b.opts.Credentials = func(_ context.Context, registry string) (Login, error) {
		asked = registry
		return Login{Username: "user", Password: "secret"}, nil
	}
	b := realApp(t, 1, "-after", "1h").changed(t, func(a *compose.App) { a.Images[0].Ref, a.Images[0].Layers = ref, nil })
	for _, l := range a.app.Images[0].Layers {
		delete(b.blobs, l.Digest)
	}
	require.NoError(t, r.b.Revert(ctx, "none", a.c))
	w, err := r.b.look(ctx)
	require.NoError(t, err)
	for _, box := range w {
		require.NoError(t, r.b.engine.Remove(ctx, box.ID))
	}
	require.NoError(t, r.b.engine.Untag(ctx, image, true))
	_, err = r.b.engine.Image(ctx, image)
	require.True(t, errors.Is(err, errMissing))
	r.install("two", b)
	r.serves("version 1")
	require.Equal(t, addr, asked)
	_, err = r.b.engine.Image(ctx, ref)
	if engineKind != "podman" { // which finds it by its digest alone
		require.True(t, errors.Is(err, errMissing), "the image has a name that nobody removes")
	}
	found, err := r.b.Verify(ctx, b.c, b.blobs)
	require.NoError(t, err)
	require.Empty(t, found)
}
