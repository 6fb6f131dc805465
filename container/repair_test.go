package container

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// harm is one thing that happens to an engine's store, and a word in what Verify
// says of it.
type harm struct {
	name, says string
	do         func(r *rig, a testApp)
}

func (f *fake) changeBox(name string, do func(*fakeBox)) {
	b, _ := f.named(name)
	do(&b)
	f.boxes[b.ID] = b
}

// prune is `docker system prune -af`.
func (f *fake) prune() {
	for id, b := range f.boxes {
		if !b.up() {
			delete(f.boxes, id)
		}
	}
	for id, i := range f.images {
		used := false
		for _, b := range f.boxes {
			used = used || b.Image == id
		}
		if used {
			continue
		}
		for _, tag := range f.describe(id).Tags {
			delete(f.tags, tag)
		}
		delete(f.images, id)
		f.dropLayers(i.layers)
	}
	for id, n := range f.networks {
		used := false
		for _, b := range f.boxes {
			for _, have := range b.Networks {
				used = used || have == n.ID
			}
		}
		if !used {
			delete(f.networks, id)
		}
	}
}

func (f *fake) wipe() {
	f.images, f.tags, f.layers, f.unpacked = map[string]fakeImage{}, map[string]string{}, map[string][]byte{}, map[string][]byte{}
	f.boxes, f.networks = map[string]fakeBox{}, map[string]network{}
}

func harms() []harm {
	front := func(r *rig, a testApp) string { return r.tags[r.b.tag(a.app.Images[1].Config.Digest)] }
	return []harm{
		{"an image that cannot be read", "image front: cannot read", func(r *rig, a testApp) {
			id := front(r, a)
			i := r.images[id]
			i.broken = true
			r.images[id] = i
		}},
		{"a layer with other bytes", "image front: layer 2 of 2", func(r *rig, a testApp) {
			r.layers["sha256:"+a.app.Images[1].Layers[1].Digest.String()] = []byte("other")
		}},
		{"an image that was removed", "image front: it is not there", func(r *rig, a testApp) {
			id := front(r, a)
			delete(r.images, id)
			delete(r.tags, r.b.tag(a.app.Images[1].Config.Digest))
			r.dropLayers([]string{"sha256:" + a.app.Images[1].Layers[1].Digest.String()})
		}},
		{"a container that was removed", "service web: its container is gone", func(r *rig, _ testApp) {
			b, _ := r.named("shop-web")
			delete(r.boxes, b.ID)
		}},
		{"a container that was stopped", "service web: its container ended", func(r *rig, _ testApp) {
			r.changeBox("shop-web", func(b *fakeBox) { b.State = exited })
		}},
		{"another restart policy", `service db: its restart policy is "no"`, func(r *rig, _ testApp) {
			r.changeBox("shop-db", func(b *fakeBox) { b.Restart.Policy = compose.RestartNo })
		}},
		{"other limits", "service db: its limits", func(r *rig, _ testApp) {
			r.changeBox("shop-db", func(b *fakeBox) { b.Limits.Memory = 1 })
		}},
		{"a network that was left", "service db: its container was taken out", func(r *rig, _ testApp) {
			r.changeBox("shop-db", func(b *fakeBox) { b.Networks = nil })
		}},
		{"a config that was changed", "config conf: it was changed", func(r *rig, _ testApp) {
			all, err := filepath.Glob(filepath.Join(r.b.opts.Dir, filesFolder, "*"))
			require.NoError(r.t, err)
			require.Len(r.t, all, 1)
			require.NoError(r.t, os.Remove(all[0]))
			require.NoError(r.t, os.WriteFile(all[0], []byte("other"), 0o600))
		}},
		{"docker system prune -af", "service init: its container is gone", func(r *rig, _ testApp) { r.prune() }},
		{"a store that was wiped", "service db: its container is gone", func(r *rig, _ testApp) { r.wipe() }},
	}
}

// TestHarm has Verify find all that can happen to the store, and Repair mend it
// without a network.
func TestHarm(t *testing.T) {
	for _, h := range harms() {
		for _, snapshots := range []bool{false, true} {
			t.Run(fmt.Sprint(h.name, " ", snapshots), func(t *testing.T) {
				r, a, ctx := newRig(t, snapshots), newApp(t, 0), t.Context()
				r.install("one", a)
				found, err := r.b.Verify(ctx, a.c, a.blobs)
				require.NoError(t, err)
				require.Empty(t, found)
				h.do(r, a)
				found, err = r.b.Verify(ctx, a.c, a.blobs)
				require.NoError(t, err)
				require.Contains(t, fmt.Sprint(found), h.says)
				left, err := r.b.Repair(ctx, a.c, a.blobs)
				require.NoError(t, err)
				require.Empty(t, left)
				r.reopen()
				r.boot()
				r.expect(a)
				active, err := r.b.Active(ctx, "shop")
				require.NoError(t, err)
				require.True(t, active.Is(a.c.Digest()))
				r.install("two", newApp(t, 1))
			})
		}
	}
}

// TestPruneInTrial has somebody remove everything that is stopped, the way back
// with it: it is made anew, and what it lacks of images a Repair brings.
func TestPruneInTrial(t *testing.T) {
	r, old, next, ctx := newRig(t, false), newApp(t, 0), newApp(t, 2), t.Context()
	r.install("one", old)
	_, err := r.b.Stage(ctx, "two", next.c, next.blobs)
	require.NoError(t, err)
	require.NoError(t, r.b.Activate(ctx, "two", next.c))
	r.prune()
	err = r.b.Revert(ctx, "two", next.c)
	require.ErrorIs(t, err, ota.ErrDigest)
	a, err := r.b.Active(ctx, "shop")
	require.NoError(t, err)
	require.True(t, a.Is(old.c.Digest()), "the Updater repairs what is in effect: %+v", a)
	left, err := r.b.Repair(ctx, old.c, old.blobs)
	require.NoError(t, err)
	require.Empty(t, left)
	require.NoError(t, r.b.Revert(ctx, "two", next.c))
	r.boot()
	r.expect(old)
}

// TestStrangers leaves alone what has no labels of ours, whatever its name.
func TestStrangers(t *testing.T) {
	r, a, ctx := newRig(t, false), newApp(t, 0), t.Context()
	r.images["sha256:other"] = fakeImage{}
	r.tags["other:1"] = "sha256:other"
	id, err := r.fake.Create(ctx, boxSpec{Name: "shop-web", Image: "sha256:other"})
	require.NoError(t, err)
	net, err := r.fake.CreateNetwork(ctx, "shop_default", compose.Network{}, nil)
	require.NoError(t, err)
	require.NoError(t, r.fake.CreateVolume(ctx, compose.Volume{Engine: "shop_data"}, nil))
	before := r.boxes[id]
	r.install("one", a)
	r.install("two", newApp(t, 2))
	require.NoError(t, r.b.Prune(ctx, "shop", nil, nil))
	require.Equal(t, before, r.boxes[id])
	require.Contains(t, r.networks, net)
	require.Contains(t, r.tags, "other:1")
	require.Empty(t, r.volumes["shop_data"].Labels)
	b, ok := r.named("shop-web.two")
	require.True(t, ok, "%v", r.names())
	require.Equal(t, running, b.State)
}

// TestVolumesStay has no way lead to a volume that held data being removed, and
// leaves none that nothing ran with.
func TestVolumesStay(t *testing.T) {
	r, ctx := newRig(t, false), t.Context()
	old := newApp(t, 0)
	more := newApp(t, 1, func(a *compose.App) {
		a.Volumes = append(a.Volumes, compose.Volume{Name: "more", Engine: "shop_more"})
		a.Services[0].Mounts = append(a.Services[0].Mounts, compose.Mount{Type: compose.MountVolume, Source: "more", Target: "/more"})
	})
	r.install("one", old)
	_, err := r.b.Stage(ctx, "two", more.c, more.blobs)
	require.NoError(t, err)
	require.Contains(t, r.volumes, "shop_more")
	require.NoError(t, r.b.Revert(ctx, "two", more.c))
	require.NotContains(t, r.volumes, "shop_more")
	_, err = r.b.Stage(ctx, "three", more.c, more.blobs)
	require.NoError(t, err)
	require.NoError(t, r.b.Activate(ctx, "three", more.c))
	require.NoError(t, r.b.Revert(ctx, "three", more.c))
	require.Contains(t, r.volumes, "shop_more")
	require.Contains(t, r.volumes, "shop_data")
}

// TestLayersThatAreThere has an archive hold what the engine lacks alone; where
// it can do nothing with that, it gets all.
func TestLayersThatAreThere(t *testing.T) {
	for _, snapshots := range []bool{false, true} {
		r := newRig(t, snapshots)
		r.install("one", newApp(t, 0))
		r.loads = nil
		r.install("two", newApp(t, 1))
		want := map[bool]int{false: 1, true: 2}[snapshots]
		require.Equal(t, []int{want}, r.loads)
	}
}

// TestUnknownRecord keeps everything where the record is of another format, and
// says so.
func TestUnknownRecord(t *testing.T) {
	r, a, ctx := newRig(t, false), newApp(t, 0), t.Context()
	r.install("one", a)
	path := filepath.Join(r.b.opts.Dir, recordName)
	body := []byte("{}")
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, "pawl-container/9 %s\n%s", release.Sum(body), body), 0o600))
	_, err := r.b.Active(ctx, "shop")
	require.ErrorIs(t, err, ota.ErrJournal)
	require.ErrorIs(t, r.b.Prune(ctx, "shop", nil, nil), ota.ErrJournal)
	require.Len(t, r.boxes, 3)
}

// TestDamagedRecord loses the record at each point of an update: what the engine
// has says what is in effect, and the way goes on or back from there.
func TestDamagedRecord(t *testing.T) {
	old, next, later := newApp(t, 0), newApp(t, 2), newApp(t, 3)
	for _, boots := range []bool{false, true} {
		for _, state := range []string{"staged", "trial", "committed"} {
			r, ctx := newRig(t, false), t.Context()
			r.install("one", old)
			d := &drive{device: r, tx: "two", to: next, state: "staging"}
			for d.state != state {
				d.next(ctx)
			}
			require.NoError(t, os.WriteFile(filepath.Join(r.b.opts.Dir, recordName), []byte("garbage"), 0o600))
			if boots {
				r.boot()
			}
			r.reopen()
			now, other := old, next
			if state != "staged" {
				now, other = next, old
			}
			a, err := r.b.Active(ctx, "shop")
			require.NoError(t, err)
			require.True(t, a.Is(now.c.Digest()), "%s: %+v", state, a)
			if state == "trial" {
				require.NoError(t, r.b.Revert(ctx, "two", next.c))
				now, other = old, next
			}
			require.NoError(t, r.b.Prune(ctx, "shop", nil, nil))
			if state != "trial" {
				r.expect(now)
			}
			r.install("three", other)
			r.install("four", later)
			require.NoError(t, r.b.Prune(ctx, "shop", nil, nil))
			r.boot()
			r.expect(later)
		}
	}
}

// TestBrokenImageIsReplaced has an image that an earlier try left, and that a
// power cut may have broken, be read before it is trusted.
func TestBrokenImageIsReplaced(t *testing.T) {
	r, a, ctx := newRig(t, false), newApp(t, 0), t.Context()
	id := r.imageID(a.blobs[a.app.Images[1].Config.Digest])
	stage := func() error {
		_, err := r.b.Stage(ctx, "one", a.c, a.blobs)
		return err
	}
	r.changes = true
	for n := 1; !slices.Contains(slices.Collect(maps.Keys(r.images)), id); n++ {
		r.arm(n, fails)
		require.Error(t, stage())
	}
	r.arm(0, "")
	i := r.images[id]
	i.broken = true
	r.images[id] = i
	require.NoError(t, stage())
	require.False(t, r.images[id].broken)
}
