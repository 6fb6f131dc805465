package main

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pawl-ota/pawl/monitor/watchdog"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/stretchr/testify/require"
)

// world is a simulated device that this firmware's main loop runs on, in a
// time of its own.
type world struct {
	t    *testing.T
	dev  *otatest.Device
	busy func() bool             // whether the device may not be switched now
	stop func(ota.Progress) bool // whether the firmware is asked to stop now
}

var (
	small = []otatest.Part{{Name: "firmware", Effect: ota.NeedsRestart}, {Name: "app", Effect: ota.Live}}
	mixed = append([]otatest.Part{{Name: "os", Effect: ota.NeedsReboot}}, small...)
)

func contents(parts []otatest.Part, seq int) (all []otatest.Content) {
	for _, p := range parts {
		all = append(all, otatest.Content{Part: p.Name, Label: fmt.Sprint(seq)})
	}
	return all
}

// life runs the firmware's main loop, start after start, until it has nothing
// left to do.
func (w *world) life() {
	w.t.Helper()
	for range 30 {
		switch {
		case !w.dev.Up():
			w.dev.Boot()
		case !w.dev.Alive():
			w.dev.Restart()
		}
		needs, done := w.start()
		switch {
		case needs == ota.NeedsRestart:
			w.dev.Restart()
		case needs == ota.NeedsReboot:
			w.dev.Boot()
		case done:
			return
		}
	}
	w.t.Fatalf("the firmware was started 30 times and is not done: %v", w.dev.Trace())
}

// start is one process: the real main loop, until it has had nothing to do for
// a while or ends. done is false where it did not end by its own will.
func (w *world) start() (needs ota.Effect, done bool) {
	ctx, cancel := context.WithTimeout(w.dev.Context(), 10*time.Minute)
	defer cancel()
	options := w.dev.Options()
	f := &firmware{every: 10 * time.Second, dog: watchdog.NewShared(watchdog.None{}), say: func(string, ...any) {}}
	options.Progress = func(p ota.Progress) {
		f.progress(p)
		if w.stop != nil && w.stop(p) {
			cancel()
		}
	}
	updater, err := ota.Open(ctx, options)
	if err != nil {
		return "", false
	}
	defer updater.Close()
	f.updates = &updates{updater: updater, look: time.Hour, say: f.say, consent: func() bool { return w.busy == nil || !w.busy() }}
	needs, err = f.run(ctx)
	return needs, err == nil && w.dev.Alive()
}

// release is which release every part runs, and 0 where they are not the same.
func (w *world) release(parts []otatest.Part) int {
	for seq := 1; seq <= 3; seq++ {
		if !slices.ContainsFunc(contents(parts, seq), func(c otatest.Content) bool { return w.dev.Runs(c.Part) != c.Files() }) {
			return seq
		}
	}
	return 0
}

// at puts a device that runs release 1, with 2 on offer, into a bubble of time
// and runs f there.
func at(t *testing.T, parts []otatest.Part, second otatest.Health, f func(*world, func(seq uint64))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		repo := otatest.NewRepo()
		offers := map[uint64]func(){}
		w := &world{t: t, dev: otatest.NewDevice(repo, parts...)}
		for i, h := range []otatest.Health{otatest.Healthy(), second, otatest.Healthy()} {
			r := repo.Add(uint64(i+1), h, contents(parts, i+1)...)
			offers[r.Seq] = func() { w.dev.Offer(r) }
		}
		offers[1]()
		w.life()
		require.Equal(t, 1, w.release(parts))
		offers[2]()
		f(w, func(seq uint64) { offers[seq]() })
	})
}

// TestLoopUnderPowerCuts cuts the power, and kills the process, at every
// durable step of an update that the main loop makes, and looks at the device
// after the dust has settled: all parts are of one release, and the next good
// one installs.
func TestLoopUnderPowerCuts(t *testing.T) {
	every := 1
	if testing.Short() {
		every = 7
	}
	for name, parts := range map[string][]otatest.Part{"restart": small, "reboot too": mixed} {
		for health, second := range map[string]struct {
			otatest.Health
			want int
		}{"healthy": {otatest.Healthy(), 2}, "sick": {otatest.Sick(), 1}, "healthy then sick": {otatest.HealthyThenSick(1), 1}} {
			for _, fault := range []otatest.Fault{otatest.PowerCut, otatest.Kill} {
				t.Run(fmt.Sprintf("%s %s %s", name, health, fault), func(t *testing.T) {
					cuts := 0
					for n, reached := 1, true; reached; n += every {
						require.Less(t, n, 2000, "the steps do not end")
						at(t, parts, second.Health, func(w *world, offer func(uint64)) {
							w.dev.At(n, fault)
							w.life()
							reached = w.dev.Faults() > 0
							require.Contains(t, []int{second.want, 1}, w.release(parts), "step %d", n)
							require.Empty(t, w.dev.Broken())
							offer(3)
							w.life()
							require.Equal(t, 3, w.release(parts), "the next release does not install after a fault at step %d", n)
							require.Empty(t, w.dev.Broken())
						})
						cuts++
					}
					t.Logf("%d faults", cuts-1)
					require.Greater(t, cuts*every, 10)
				})
			}
		}
	}
}

// TestOrderlyStopInTheSoak stops the firmware while a release is on trial. It
// ends by its own will, the trial stays open, and the next start finishes it.
func TestOrderlyStopInTheSoak(t *testing.T) {
	at(t, small, otatest.Healthy(), func(w *world, _ func(uint64)) {
		w.stop = func(p ota.Progress) bool { return p.Step == "health" }
		needs, done := w.start()
		require.True(t, done)
		require.Equal(t, ota.NeedsRestart, needs)
		w.dev.Restart()
		needs, done = w.start()
		require.True(t, done, "the loop did not end by its own will")
		require.Equal(t, ota.Live, needs)
		require.Equal(t, 2, w.release(small), "the release that is on trial runs")

		w.stop = nil
		w.dev.Restart()
		w.life()
		require.Equal(t, 2, w.release(small))
		require.Equal(t, ota.Idle, w.status().State)
		require.Equal(t, uint64(2), w.status().Running.Seq)
	})
}

func (w *world) status() ota.Status {
	w.dev.Restart()
	u, err := ota.Open(w.dev.Context(), w.dev.Options())
	require.NoError(w.t, err)
	defer u.Close()
	return u.Status()
}

// TestConsent fetches at once and switches only when the device may.
func TestConsent(t *testing.T) {
	at(t, small, otatest.Healthy(), func(w *world, _ func(uint64)) {
		asked := 0
		w.busy = func() bool { asked++; return asked < 300 }
		var staged, activated int
		w.stop = func(p ota.Progress) bool {
			switch p.Step {
			case "staged":
				staged = asked
			case "activate":
				activated = max(activated, asked)
			}
			return false
		}
		w.life()
		require.Zero(t, staged, "what needs no consent waited for it")
		require.Equal(t, 300, activated, "switched without consent")
		require.Equal(t, 2, w.release(small))
	})
}
