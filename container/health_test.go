package container

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
)

// TestHealthy is what the trial asks: how containers run, for how long, how often
// they were started, and how one-shot services ended.
func TestHealthy(t *testing.T) {
	type how struct {
		state  boxState
		health string
		exit   int
	}
	for _, c := range []struct {
		name    string
		service string
		how     how
		change  func(*compose.Service)
		says    string // of the first answer; empty: it is well
		later   string // of one after it
		// hopeless is the first answer from which on none will be better; 0: none.
		hopeless int
	}{
		{name: "all is well", service: "web", how: how{running, "", 0}},
		{name: "it ended", service: "web", how: how{exited, "", 3}, says: "ended with exit code 3", later: "ended with exit code 3", hopeless: 1},
		{name: "it ended, and may", service: "web", how: how{exited, "", 3}, change: func(s *compose.Service) { s.Trial.Restarts = 1 }, says: "exit code 3", later: "exit code 3", hopeless: 2},
		{name: "its check says no", service: "web", how: how{running, "unhealthy", 0}, says: "unhealthy", later: "unhealthy"},
		{name: "its check says nothing yet", service: "web", how: how{running, "starting", 0}, says: "starting", later: "starting"},
		{name: "it has not run for long", service: "web", how: how{running, "", 0}, change: func(s *compose.Service) { s.Trial.Uptime = time.Hour }, says: "of 1h0m0s", later: "of 1h0m0s"},
		{name: "the engine restarts it", service: "web", how: how{restarting, "", 1}, says: "restarting", later: "restarting"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, ctx := newRig(t, false), t.Context()
			a := newApp(t, 0, func(a *compose.App) {
				for i := range a.Services {
					if a.Services[i].Name == c.service && c.change != nil {
						c.change(&a.Services[i])
					}
				}
			})
			r.behave = func(s boxSpec) (boxState, string, int) {
				if s.Service.Name == c.service {
					return c.how.state, c.how.health, c.how.exit
				}
				return "", "", 0
			}
			_, err := r.b.Stage(ctx, "one", a.c, a.blobs)
			require.NoError(t, err)
			require.NoError(t, r.b.Activate(ctx, "one", a.c))
			for n, says := range []string{c.says, c.later} {
				err = r.b.Healthy(ctx)
				if says == "" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, says)
					require.Equal(t, c.hopeless > 0 && n+1 >= c.hopeless, errors.Is(err, ota.ErrHopeless))
				}
			}
		})
	}
}

// TestRestartsInTrial starts a container again that ended, as often as the app
// allows and no more.
func TestRestartsInTrial(t *testing.T) {
	r, ctx := newRig(t, false), t.Context()
	a := newApp(t, 0, func(a *compose.App) { a.Services[2].Trial.Restarts = 2 })
	_, err := r.b.Stage(ctx, "one", a.c, a.blobs)
	require.NoError(t, err)
	require.NoError(t, r.b.Activate(ctx, "one", a.c))
	for range 2 {
		require.NoError(t, r.b.Healthy(ctx))
		r.changeBox("shop-web", func(b *fakeBox) { b.State, b.Exit = exited, 9 })
		err := r.b.Healthy(ctx)
		require.ErrorContains(t, err, "exit code 9")
		require.NotErrorIs(t, err, ota.ErrHopeless)
	}
	require.NoError(t, r.b.Healthy(ctx))
	r.changeBox("shop-web", func(b *fakeBox) { b.State, b.Exit = exited, 9 })
	for range 3 {
		err := r.b.Healthy(ctx)
		require.ErrorContains(t, err, "exit code 9")
		require.ErrorIs(t, err, ota.ErrHopeless)
	}
	r.changeBox("shop-web", func(b *fakeBox) { b.Restarts = 7; b.State = running })
	err = r.b.Healthy(ctx)
	require.ErrorContains(t, err, "started again 9 times; 2 are allowed")
	require.ErrorIs(t, err, ota.ErrHopeless)
}

// TestBadRelease has Activate itself fail where a service that another waits for
// cannot be what that needs, and say why.
func TestBadRelease(t *testing.T) {
	old, next := newApp(t, 0), newApp(t, 1)
	for says, how := range map[string]func(boxSpec) (boxState, string, int){
		"init ended with exit code 4": func(s boxSpec) (boxState, string, int) {
			if s.Service.Name == "init" {
				return exited, "", 4
			}
			return "", "", 0
		},
		"db is unhealthy": func(s boxSpec) (boxState, string, int) {
			if s.Service.Name == "db" {
				return running, "unhealthy", 0
			}
			return "", "", 0
		},
		"db ended with exit code 1": func(s boxSpec) (boxState, string, int) {
			if s.Service.Name == "db" {
				return exited, "", 1
			}
			return "", "", 0
		},
	} {
		r, ctx := newRig(t, false), t.Context()
		r.install("one", old)
		r.behave = how
		_, err := r.b.Stage(ctx, "two", next.c, next.blobs)
		require.NoError(t, err)
		require.ErrorContains(t, r.b.Activate(ctx, "two", next.c), says)
		r.behave = nil
		began := r.b.began
		require.NotZero(t, began)
		require.NoError(t, r.b.Revert(ctx, "two", next.c))
		require.LessOrEqual(t, r.b.Downtime(), time.Since(began))
		require.Positive(t, r.b.Downtime())
		r.expect(old)
	}
}
