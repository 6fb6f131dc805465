//go:build linux

package container

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/dockerd"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/otatest"
)

// badRelease is a release that does not do, and what the result says of it.
type badRelease struct {
	name, says string
	change     func(a *compose.App, back, web *compose.Service)
	long       bool // it takes seconds, and runs with PAWL_CRASH=long
}

func badReleases() []badRelease {
	return []badRelease{
		{"a dependency that crashes at once", "back ended with exit code 5", func(_ *compose.App, back, _ *compose.Service) {
			back.Command = []string{"-exit", "5", "-after", "1ms"}
		}, false},
		{"a crash loop at once", "service web: its container ended with exit code 5", func(_ *compose.App, _, web *compose.Service) {
			web.Command, web.Trial.Restarts = []string{"-exit", "5", "-after", "1ms"}, 2
		}, true},
		{"a crash after 5 s", "service web: its container ended with exit code 7", func(_ *compose.App, _, web *compose.Service) {
			web.Command, web.Trial.Uptime = append(web.Command, "-exit", "7", "-after", "5s"), 6*time.Second
		}, true},
		{"unhealthy", "back is unhealthy", func(_ *compose.App, back, _ *compose.Service) {
			back.Healthcheck.Test = []string{"CMD", "/app", "-probe", "127.0.0.1:81"}
		}, false},
		{"no health check, and it does not answer", "it does not answer", func(_ *compose.App, _, web *compose.Service) {
			web.Command[1] = ":81"
		}, true},
		{"the port is taken", "port is already allocated", func(_ *compose.App, _, web *compose.Service) {
			web.Ports[0].HostIP, web.Ports[0].HostPort = "", 9000
		}, false},
		{"the wrong architecture", ErrPlatform.Error(), func(a *compose.App, _, _ *compose.Service) { a.Images[0].Architecture = "s390x" }, false},
		{"no entrypoint", "no such file or directory", func(_ *compose.App, back, _ *compose.Service) { back.Entrypoint = []string{"/nothing"} }, false},
		{"out of memory", "out of memory", func(_ *compose.App, back, _ *compose.Service) {
			back.Trial.Uptime = 3 * time.Second
			back.Command, back.Limits.Memory, back.Limits.MemorySwap = append(back.Command, "-eat", "200", "-later", "1s"), 64<<20, 64<<20
		}, false},
		{"a one-shot service that fails", "back ended with exit code 6", func(_ *compose.App, back, web *compose.Service) {
			back.OneShot, back.Restart.Policy, back.Healthcheck, back.Command = true, compose.RestartNo, nil, []string{"-exit", "6"}
			web.DependsOn[0].Condition = compose.Completed
		}, false},
	}
}

// badReleasesOfAnEngine has releases that a real engine cannot run, or that do not do
// well: the reason is in the result, and the old app is back within the window of
// the trial and three seconds.
func badReleasesOfAnEngine(t *testing.T, e *dockerd.Engine) {
	r, ctx, source := newRealRig(t, e), t.Context(), otatest.NewMemory()
	options := r.options(source)
	if os.Getenv("PAWL_CRASH") != "long" {
		options.Trial.Deadline = 3 * time.Second
	}
	options.Health = func(ctx context.Context) error {
		if err := r.b.Healthy(ctx); err != nil {
			return err
		}
		if !r.answers() {
			return errors.New("it does not answer")
		}
		return nil
	}
	first := r.updater(source) // which gives a good one its time, on a busy machine too
	offer(source, 1, realApp(t, 1))
	_, err := first.Update(ctx)
	require.NoError(t, err)
	require.NoError(t, first.Close())
	u, err := ota.Open(ctx, options)
	require.NoError(t, err)
	defer func() { _ = u.Close() }()
	_, err = u.Resume(ctx)
	require.NoError(t, err)
	stranger := r.stranger(9000)
	for n, bad := range badReleases() {
		if bad.long && os.Getenv("PAWL_CRASH") != "long" || bad.name == "unhealthy" && engineKind == "podman" { // which refuses health checks
			continue
		}
		if bad.name == "the port is taken" && engineKind == "podman" {
			bad.says = "address already in use"
		}
		t.Run(bad.name, func(t *testing.T) {
			offer(source, uint64(n+2), realApp(t, 2).changed(t, func(a *compose.App) { bad.change(a, &a.Services[0], &a.Services[1]) }))
			stop := r.longest("version 1")
			result, err := u.Update(ctx)
			require.ErrorContains(t, err, bad.says)
			if result.State == ota.Reverted { // else nothing was begun
				require.Contains(t, result.Reason, bad.says)
			}
			r.serves("version 1")
			// What the engine takes for the stops and starts is no part of the window.
			gap, most := stop(), options.Trial.Deadline+3*time.Second+result.Downtime
			t.Logf("not served for %v of at most %v; %v of it for the switches", gap.Round(time.Millisecond), most.Round(time.Millisecond), result.Downtime.Round(time.Millisecond))
			require.Less(t, gap, most)
		})
	}
	found, err := u.Verify(ctx)
	require.NoError(t, err)
	require.Empty(t, found)
	b, err := r.b.engine.Box(ctx, stranger)
	require.NoError(t, err)
	require.Equal(t, running, b.State)
}

// stranger has somebody else's container take a port.
func (r *realRig) stranger(port uint16) (id string) {
	w, err := r.b.look(r.t.Context())
	require.NoError(r.t, err)
	id, err = r.b.engine.Create(r.t.Context(), boxSpec{Name: "stranger", Image: w[0].Image, Service: compose.Service{
		Command: []string{"-after", "1h"}, Ports: []compose.Port{{HostPort: port, Container: 80, Protocol: compose.TCP}},
	}})
	require.NoError(r.t, err)
	require.NoError(r.t, r.b.engine.Start(r.t.Context(), id))
	return id
}

// answers reports whether the app says anything that it should.
func (r *realRig) answers() bool { return len(r.get()) == len("version 1") }

// longest watches the app, until it is told to stop, and returns the longest time
// without this answer.
func (r *realRig) longest(want string) (stop func() time.Duration) {
	ctx, cancel := context.WithCancel(r.t.Context())
	var done sync.WaitGroup
	last, worst := time.Now(), time.Duration(0)
	done.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			if r.ask(500*time.Millisecond) == want {
				worst, last = max(worst, time.Since(last)), time.Now()
			}
			<-tick.C
		}
	})
	return func() time.Duration {
		cancel()
		done.Wait()
		return max(worst, time.Since(last))
	}
}
