package container

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
)

// TestActive asks the engine: what the record says counts only as far as it is
// there, and alone.
func TestActive(t *testing.T) {
	old, next := newApp(t, 0), newApp(t, 1)
	for _, c := range []struct {
		name string
		do   func(r *rig)
		want ota.Presence
	}{
		{"nothing happened", func(*rig) {}, ota.Whole},
		{"one ended by itself", func(r *rig) { r.changeBox("shop-web", func(b *fakeBox) { b.State, b.Exit = exited, 1 }) }, ota.Whole},
		{"an old one runs too", func(r *rig) { r.changeBox("shop-db.one", func(b *fakeBox) { b.State = running }) }, ota.Mixed},
		{"one is gone", func(r *rig) { b, _ := r.named("shop-db"); delete(r.boxes, b.ID) }, ota.Mixed},
		{"one is of another image", func(r *rig) { r.changeBox("shop-web", func(b *fakeBox) { b.Image = "sha256:other" }) }, ota.Mixed},
		{"one was never started", func(r *rig) { r.changeBox("shop-web", func(b *fakeBox) { b.State = created }) }, ota.Mixed},
		{"all are gone", func(r *rig) { clear(r.boxes) }, ota.Mixed},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, ctx := newRig(t, false), t.Context()
			r.install("one", old)
			_, err := r.b.Stage(ctx, "two", next.c, next.blobs)
			require.NoError(t, err)
			require.NoError(t, r.b.Activate(ctx, "two", next.c))
			c.do(r)
			a, err := r.b.Active(ctx, "shop")
			require.NoError(t, err)
			require.Equal(t, c.want, a.State)
			require.Equal(t, c.want == ota.Whole, a.Is(next.c.Digest()))
		})
	}
}

// TestActiveWhileUnderway wants the containers to run as long as a verb that was
// cut short has work left.
func TestActiveWhileUnderway(t *testing.T) {
	r, old, next, ctx := newRig(t, false), newApp(t, 0), newApp(t, 1), t.Context()
	r.install("one", old)
	_, err := r.b.Stage(ctx, "two", next.c, next.blobs)
	require.NoError(t, err)
	require.NoError(t, r.b.Activate(ctx, "two", next.c))
	r.changes = true
	r.arm(4, fails) // the new ones are stopped, and of the old ones one does not start
	require.Error(t, r.b.Revert(ctx, "two", next.c))
	a, err := r.b.Active(ctx, "shop")
	require.NoError(t, err)
	require.Equal(t, ota.Mixed, a.State)
}

// TestStagedIsDurable has a power cut after Stage take nothing that Activate
// needs, and one after Activate nothing of what is in effect.
func TestStagedIsDurable(t *testing.T) {
	r, old, next, ctx := newRig(t, false), newApp(t, 0), newApp(t, 1), t.Context()
	r.install("one", old)
	r.lossy = true
	_, err := r.b.Stage(ctx, "two", next.c, next.blobs)
	require.NoError(t, err)
	r.boot()
	r.reopen()
	require.NoError(t, r.b.Activate(ctx, "two", next.c))
	r.boot()
	r.reopen()
	a, err := r.b.Active(ctx, "shop")
	require.NoError(t, err)
	require.True(t, a.Is(next.c.Digest()))
	require.NoError(t, r.b.Commit(ctx, "two", next.c))
	r.boot()
	r.expect(next, old)
}
