package container

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/otatest"
)

// TestReset makes the containers anew, and the volumes where that was asked for;
// somebody else's container and volume stay. It does so too where each of its
// calls fails, or is cut short by the power, once.
func TestReset(t *testing.T) {
	a := newApp(t, 0)
	for _, volumes := range []bool{false, true} {
		for _, how := range []fault{"", fails, cutBefore, cutAfter} {
			for at := 1; ; at++ {
				r, ctx := newRig(t, false), t.Context()
				r.install("one", a)
				before := slices.Collect(maps.Keys(r.boxes))
				stranger, err := r.fake.Create(ctx, boxSpec{Name: "other", Image: slices.Collect(maps.Keys(r.images))[0]})
				require.NoError(t, err)
				require.NoError(t, r.fake.CreateVolume(ctx, compose.Volume{Engine: "other"}, nil))
				held := r.volumes["shop_data"]
				held.Labels["was"] = "there"
				r.changes = true
				r.arm(at, how)
				err = r.b.Reset(ctx, volumes)
				reached := r.struck()
				if how == "" {
					require.NoError(t, err)
				} else if reached {
					require.Error(t, err)
				}
				r.arm(0, "")
				if r.off {
					r.boot()
				}
				r.reopen()
				found, err := r.b.Services(ctx)
				require.NoError(t, err)
				require.Len(t, found, 3)
				if at > 1 || how == "" { // what was begun is ended
					require.NoError(t, r.b.Settle(ctx))
					for _, id := range before {
						require.NotContains(t, r.boxes, id)
					}
					require.Equal(t, volumes, r.volumes["shop_data"].Labels["was"] == "")
				}
				require.Contains(t, r.boxes, stranger)
				require.Contains(t, r.volumes, "other")
				delete(r.boxes, stranger)
				delete(r.volumes, "other")
				r.boot()
				r.expect(a)
				if how == "" || !reached {
					break
				}
			}
		}
	}
}

// TestResetKeepsNewData empties the volumes once: what the app has written since is
// there however often the power goes and Settle goes on.
func TestResetKeepsNewData(t *testing.T) {
	for at, reached := 1, true; reached; at++ {
		r, ctx, wrote := newRig(t, false), t.Context(), false
		r.install("one", newApp(t, 0))
		r.changes = true
		r.watch = func() {
			if b, ok := r.named("shop-db.one"); ok && b.up() && !wrote {
				r.volumes["shop_data"].Labels["held"], wrote = "data", true
			}
		}
		r.arm(at, cutAfter)
		_ = r.b.Reset(ctx, true)
		reached = r.struck()
		for range 2 {
			r.arm(0, "")
			r.boot()
			r.reopen()
			require.NoError(t, r.b.Settle(ctx))
			require.Equal(t, wrote, r.volumes["shop_data"].Labels["held"] == "data", "cut at %d", at)
		}
	}
}

// TestResetRefused keeps its hands off a trial.
func TestResetRefused(t *testing.T) {
	r, ctx, old, next := newRig(t, false), t.Context(), newApp(t, 0), newApp(t, 1)
	require.ErrorIs(t, r.b.Reset(ctx, false), ota.ErrState)
	r.install("one", old)
	_, err := r.b.Stage(ctx, "two", next.c, next.blobs)
	require.NoError(t, err)
	require.NoError(t, r.b.Activate(ctx, "two", next.c))
	require.ErrorIs(t, r.b.Reset(ctx, false), ota.ErrState)
	require.NoError(t, r.b.Settle(ctx))
}

// TestServices says how each service is, and changes nothing where the record is
// damaged.
func TestServices(t *testing.T) {
	r, ctx := newRig(t, false), t.Context()
	none, err := r.b.Services(ctx)
	require.NoError(t, err)
	require.Empty(t, none)
	r.install("one", newApp(t, 0))
	r.changeBox("shop-db", func(b *fakeBox) { b.Health, b.Restarts = "unhealthy", 2 })
	b, _ := r.named("shop-web")
	delete(r.boxes, b.ID)
	all, err := r.b.Services(ctx)
	require.NoError(t, err)
	var lines []string
	for _, s := range all {
		lines = append(lines, s.String())
	}
	require.Equal(t, []string{"db running, unhealthy, started again 2 times", "init exited with code 0", "web missing"}, lines)
	require.Equal(t, "front", all[2].Image)
	require.NoError(t, r.b.dir.WriteFile(recordName, []byte("garbage")))
	_, err = r.b.Services(ctx)
	require.ErrorIs(t, err, errDamaged)
}

// TestRestartedEngine has a Repair start the engine anew where that is allowed and a
// container cannot be started, and not where all is well.
func TestRestartedEngine(t *testing.T) {
	for _, allowed := range []bool{false, true} {
		r, a, ctx := newRig(t, false), newApp(t, 0), t.Context()
		r.install("one", a)
		held, restarts := true, 0
		r.behave = func(s boxSpec) (boxState, string, int) {
			if held && s.Service.Name == "web" {
				return exited, "", 255
			}
			return "", "", 0
		}
		if allowed {
			r.b.opts.Restart = func(context.Context) error {
				held = false
				restarts++
				return nil
			}
		}
		left, err := r.b.Repair(ctx, a.c, a.blobs)
		require.NoError(t, err)
		require.Empty(t, left)
		require.Zero(t, restarts)
		r.changeBox("shop-web", func(b *fakeBox) { b.State, b.Exit = exited, 255 })
		left, err = r.b.Repair(ctx, a.c, a.blobs)
		require.NoError(t, err)
		require.Equal(t, allowed, restarts == 1)
		require.Equal(t, allowed, len(left) == 0, "%v", left)
	}
}

// TestHeldPort has the way back start the engine anew where that is allowed and
// holds a port for nobody, and not where somebody has it.
func TestHeldPort(t *testing.T) {
	old, next := newApp(t, 0), newApp(t, 1)
	for _, who := range []string{"nobody", "a stranger"} {
		r, ctx, restarts := newRig(t, false), t.Context(), 0
		r.install("one", old)
		_, err := r.b.Stage(ctx, "two", next.c, next.blobs)
		require.NoError(t, err)
		require.NoError(t, r.b.Activate(ctx, "two", next.c))
		r.b.opts.Restart = func(context.Context) error {
			restarts++
			r.stale = 0
			return nil
		}
		r.boot()
		if who == "nobody" {
			r.stale = 80
		} else {
			r.boxes["stranger"] = fakeBox{box: box{ID: "stranger", State: running}, spec: boxSpec{Service: next.app.Services[2]}}
		}
		err = r.b.Revert(ctx, "two", next.c)
		if who == "nobody" {
			require.NoError(t, err)
			require.Equal(t, 1, restarts)
			r.expect(old)
		} else {
			require.ErrorIs(t, err, errPort)
			require.Zero(t, restarts)
		}
	}
}

// TestWipe takes the last step of a repair where it is allowed and nothing else
// helps: with an engine that does not come up, and with one that keeps a broken
// image. What cannot come back is not wiped.
func TestWipe(t *testing.T) {
	a := newApp(t, 0)
	for _, c := range []struct {
		name  string
		harm  func(r *rig)
		wipes bool
	}{
		{"an engine that does not start", func(r *rig) { r.down = true }, true},
		{"an image that stays broken", func(r *rig) {
			id := r.tags[r.b.tag(a.app.Images[1].Config.Digest)]
			i := r.images[id]
			i.broken = true
			r.images[id] = i
			r.boxes["stranger"] = fakeBox{box: box{ID: "stranger", Image: id, State: running}}
		}, true},
		{"a container that is gone", func(r *rig) { b, _ := r.named("shop-web"); delete(r.boxes, b.ID) }, false},
		{"an app that ends by itself", func(r *rig) {
			r.behave = func(boxSpec) (boxState, string, int) { return exited, "", 1 }
			r.changeBox("shop-web", func(b *fakeBox) { b.State, b.Exit = exited, 1 })
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, ctx := newRig(t, false), t.Context()
			r.install("one", a)
			c.harm(r)
			wipes := 0
			r.b.opts.Wipe = func(context.Context) error {
				wipes++
				r.down = false
				r.wipe()
				return nil
			}
			short := maps.Clone(a.blobs)
			delete(short, a.app.Images[1].Layers[1].Digest)
			_, err := r.b.Repair(ctx, a.c, otatest.Blobs(short))
			if c.wipes && r.down {
				require.ErrorIs(t, err, ErrEngine)
			}
			require.Zero(t, wipes, "what is not on the device cannot come back")
			left, err := r.b.Repair(ctx, a.c, a.blobs)
			require.NoError(t, err)
			require.Equal(t, c.wipes, wipes == 1)
			if c.wipes {
				require.Empty(t, left)
				r.boot()
				r.expect(a)
			}
		})
	}
}
