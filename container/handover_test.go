package container

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/compose"
)

// TestHandover has a service with that strategy run at every moment of an update
// and of the way back, under its name in the network, and one with the other never twice.
func TestHandover(t *testing.T) {
	handover := func(a *compose.App) {
		v := &a.Services[2]
		v.Strategy, v.Ports = compose.Handover, nil
		v.Healthcheck = &compose.Healthcheck{Test: []string{"CMD", "/app"}}
	}
	old, next := newApp(t, 0, handover), newApp(t, 1, handover)
	r, ctx := newRig(t, false), t.Context()
	r.install("one", old)
	least, most, backs := 9, 0, 0
	r.watch = func() {
		web, back := 0, 0
		for _, b := range r.boxes {
			switch {
			case b.up() && b.Labels[labelService] == "web":
				require.Equal(t, []string{"web"}, b.spec.Networks[0].Aliases)
				web++
			case b.up() && b.Labels[labelService] == "db":
				back++
			}
		}
		least, most, backs = min(least, web), max(most, web), max(backs, back)
	}
	_, err := r.b.Stage(ctx, "two", next.c, next.blobs)
	require.NoError(t, err)
	require.NoError(t, r.b.Activate(ctx, "two", next.c))
	require.NoError(t, r.b.Revert(ctx, "two", next.c))
	_, err = r.b.Stage(ctx, "three", next.c, next.blobs)
	require.NoError(t, err)
	require.NoError(t, r.b.Activate(ctx, "three", next.c))
	require.NoError(t, r.b.Commit(ctx, "three", next.c))
	r.watch = nil
	r.expect(next, old)
	require.Equal(t, 1, least, "at some moment no container served")
	require.Equal(t, 2, most)
	require.Equal(t, 1, backs)
}

// TestHandoverThatFails keeps the old container serving all the time where the
// new one does not become healthy.
func TestHandoverThatFails(t *testing.T) {
	handover := func(a *compose.App) {
		a.Services = a.Services[2:]
		v := &a.Services[0]
		v.Strategy, v.Ports, v.DependsOn, v.Image = compose.Handover, nil, nil, 0
		a.Images = a.Images[1:]
		a.Volumes = nil
	}
	old, next := newApp(t, 0, handover), newApp(t, 1, handover)
	r, ctx := newRig(t, false), t.Context()
	r.install("one", old)
	serving, ok := r.named("shop-web")
	require.True(t, ok)
	r.watch = func() { require.True(t, r.boxes[serving.ID].up()) }
	r.behave = func(boxSpec) (boxState, string, int) { return running, "unhealthy", 0 }
	_, err := r.b.Stage(ctx, "two", next.c, next.blobs)
	require.NoError(t, err)
	require.ErrorContains(t, r.b.Activate(ctx, "two", next.c), "unhealthy")
	require.NoError(t, r.b.Revert(ctx, "two", next.c))
	r.watch = nil
	r.expect(old)
}
