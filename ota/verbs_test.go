package ota_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

// opened is an Updater that has settled.
func opened(t *testing.T, d *otatest.Device, change ...func(*ota.Options)) *ota.Updater {
	o := d.Options()
	for _, c := range change {
		c(&o)
	}
	u, err := ota.Open(d.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = u.Close() })
	_, err = u.Resume(d.Context())
	require.NoError(t, err)
	return u
}

// Each verb in each state that is not its own is refused with ErrState, and
// changes nothing.
func TestVerbsNeedTheirState(t *testing.T) {
	d := bench(t, ota.Live, otatest.Healthy())
	ctx := d.Context()
	u, err := ota.Open(ctx, d.Options())
	require.NoError(t, err)
	defer func() { require.NoError(t, u.Close()) }()
	rel, err := u.Check(ctx)
	require.NoError(t, err)
	_, err = u.Begin(ctx, rel)
	require.ErrorIs(t, err, ota.ErrState, "Resume comes first")
	_, err = u.Resume(ctx)
	require.NoError(t, err)
	tx, err := u.Begin(ctx, rel)
	require.NoError(t, err)
	require.Equal(t, tx.ID(), u.Tx().ID())

	refused := func(verbs ...func(context.Context) error) {
		t.Helper()
		before := u.Status()
		for _, v := range verbs {
			require.ErrorIs(t, v(ctx), ota.ErrState)
		}
		require.Equal(t, before, u.Status())
	}
	begin := func(context.Context) error { _, err := u.Begin(ctx, rel); return err }
	verify := func(context.Context) error { _, err := u.Verify(ctx); return err }
	repair := func(context.Context) error { _, err := u.Repair(ctx); return err }
	floor := func(context.Context) error { return u.SetDataFloor(1) }
	always := []func(context.Context) error{begin, verify, repair, floor}

	require.Equal(t, ota.Staging, tx.State())
	refused(append(always, tx.Activate, tx.Commit)...)
	require.NoError(t, tx.Stage(ctx))
	require.Equal(t, ota.Staged, tx.State())
	require.NoError(t, tx.Stage(ctx), "again")
	refused(append(always, tx.Commit)...)
	require.NoError(t, tx.Activate(ctx))
	require.Equal(t, ota.InTrial, tx.State())
	refused(append(always, tx.Stage, tx.Activate)...)
	require.NoError(t, tx.Commit(ctx))
	require.Equal(t, ota.Committed, tx.State())
	refused(tx.Stage, tx.Activate, tx.Commit, func(ctx context.Context) error { return tx.Rollback(ctx, "late") })
	require.Nil(t, u.Tx())
	require.Equal(t, uint64(2), u.Status().Running.Seq)
	require.Equal(t, uint64(1), u.Status().Kept[0].Seq)
	require.Len(t, u.History(), 2)
}

// A callback that calls a verb gets an error, not a deadlock.
func TestVerbInCallback(t *testing.T) {
	d := bench(t, ota.Live, otatest.Healthy())
	var u *ota.Updater
	called := 0
	u = opened(t, d, func(o *ota.Options) {
		o.Progress = func(ota.Progress) {
			called++
			_, err := u.Check(context.Background())
			require.ErrorIs(t, err, ota.ErrState)
			require.NotEmpty(t, u.Status().Running.Version)
		}
	})
	_, err := u.Update(d.Context())
	require.NoError(t, err)
	require.NotZero(t, called)
}

// A cancel at every step of Update before the commit leaves the old release,
// and after it the new one.
func TestCancelAnywhere(t *testing.T) {
	start := bench(t, ota.Live, otatest.Healthy())
	for n := 1; ; n++ {
		d := start.Clone()
		ctx, cancel := context.WithCancel(d.Context())
		seen := 0
		u := opened(t, d, func(o *ota.Options) {
			o.Progress = func(ota.Progress) {
				if seen++; seen == n {
					cancel()
				}
			}
		})
		res, err := u.Update(ctx)
		cancel()
		if err == nil {
			require.Greater(t, n, 5)
			require.Equal(t, ota.Committed, res.State)
			return
		}
		require.ErrorIs(t, err, context.Canceled, "step %d", n)
		switch res.State {
		case ota.Staging, ota.Staged, ota.Reverted, ota.Idle:
			require.Equal(t, "old", is(t, d), "step %d", n)
		case ota.InTrial:
			require.Equal(t, "new", is(t, d), "step %d", n)
		default:
			require.Failf(t, "state", "step %d: %v", n, res)
		}
		require.NoError(t, u.Close())
		require.Equal(t, ota.Committed, update(t, d).State, "step %d: the next one", n)
	}
}

func TestTrialVerdicts(t *testing.T) {
	for _, c := range []struct {
		name      string
		health    otatest.Health
		want      ota.State
		condemned bool
	}{
		{"healthy", otatest.Healthy(), ota.Committed, false},
		{"slow to start", otatest.SickThenHealthy(5), ota.Committed, false},
		{"never healthy", otatest.Sick(), ota.Reverted, true},
		{"healthy, then sick within the soak", otatest.HealthyThenSick(2), ota.Reverted, true},
		{"flapping", otatest.Flaky(2), ota.Reverted, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := bench(t, ota.Live, c.health)
			u := opened(t, d)
			res, err := u.Update(d.Context())
			require.Equal(t, c.want, res.State)
			require.Equal(t, c.condemned, res.Condemned)
			require.Equal(t, c.want == ota.Reverted, errors.Is(err, ota.ErrUnhealthy))
			if c.want == ota.Committed {
				return
			}
			require.NotEmpty(t, res.Reason)
			require.Equal(t, "old", is(t, d))
			_, err = u.Update(d.Context())
			require.ErrorIs(t, err, ota.ErrCondemned)
			require.ErrorIs(t, err, ota.ErrHeld)
			require.NoError(t, u.Close())

			u = opened(t, d, func(o *ota.Options) { o.Retry = true })
			_, err = u.Update(d.Context())
			require.ErrorIs(t, err, ota.ErrUnhealthy, "an operator's retry is tried")
		})
	}
}

// Processes that find the trial open and do not end it use up its starts. That
// is no failed check: the release is not condemned.
func TestStartBudget(t *testing.T) {
	d := bench(t, ota.Live, otatest.Healthy())
	o := func(o *ota.Options) { o.Trial.Starts = 3 }
	u := opened(t, d, o)
	ctx, cancel := context.WithCancel(d.Context())
	rel, err := u.Check(ctx)
	require.NoError(t, err)
	tx, err := u.Begin(ctx, rel)
	require.NoError(t, err)
	require.NoError(t, tx.Stage(ctx))
	require.NoError(t, tx.Activate(ctx))
	cancel()
	for i := range 4 {
		d.Boot()
		options := d.Options()
		o(&options)
		u, err := ota.Open(d.Context(), options)
		require.NoError(t, err)
		res, err := u.Resume(d.Context())
		require.NoError(t, err)
		if i < 3 {
			require.Equal(t, ota.InTrial, res.State)
			require.Equal(t, i+1, res.Starts)
			continue
		}
		require.Equal(t, ota.Reverted, res.State)
		require.False(t, res.Condemned)
		require.Equal(t, "old", is(t, d))
	}
}

// A boot loader that never brings up what was committed ends in stuck, not in
// an endless row of boots, and a newer release gets the device out.
func TestCommittedThatDoesNotBoot(t *testing.T) {
	start := bench(t, ota.NeedsReboot, otatest.Healthy())
	for n := 1; ; n++ {
		d := start.Clone()
		d.At(n, otatest.PowerCut)
		update(t, d)
		require.False(t, d.Alive(), "no step leaves committing with the old system")
		d.Boot()
		d.Refuse("app", 100)
		u, err := ota.Open(d.Context(), d.Options())
		require.NoError(t, err)
		if u.Status().State != ota.Committing || is(t, d) != "old" {
			require.NoError(t, u.Close())
			continue
		}
		boots := 0
		for {
			res, err := u.Resume(d.Context())
			require.NoError(t, u.Close())
			if errors.Is(err, ota.ErrStuck) {
				require.Equal(t, ota.Stuck, res.State)
				return
			}
			require.NoError(t, err)
			require.Equal(t, ota.NeedsReboot, res.Needs)
			boots++
			require.Less(t, boots, 10)
			d.Boot()
			u, err = ota.Open(d.Context(), d.Options())
			require.NoError(t, err)
		}
	}
}

func TestBeginRefuses(t *testing.T) {
	repo := otatest.NewRepo()
	one := repo.Add(1, otatest.Healthy(), otatest.Content{Part: "app", Label: "one"})
	five := repo.Add(5, otatest.Healthy(), otatest.Content{Part: "app", Label: "five"})
	d := otatest.NewDevice(repo, otatest.Part{Name: "app", Effect: ota.Live})
	d.Offer(five)
	require.Equal(t, ota.Committed, update(t, d).State)
	u := opened(t, d)
	ctx := d.Context()
	next := repo.Add(6, otatest.Healthy(), otatest.Content{Part: "app", Label: "six"})
	for _, c := range []struct {
		name   string
		change func(r *release.Release)
		want   error
	}{
		{"older", func(r *release.Release) { *r = *one }, ota.ErrDowngrade},
		{"the same", func(r *release.Release) { *r = *five }, ota.ErrDowngrade},
		{"same seq, other bytes", func(r *release.Release) { r.Seq = 5 }, ota.ErrDowngrade},
		{"product", func(r *release.Release) { r.Product = "other" }, ota.ErrHardware},
		{"variant", func(r *release.Release) { r.Variant = "other" }, ota.ErrHardware},
		{"hardware", func(r *release.Release) { r.Hardware = []string{"other"} }, ota.ErrHardware},
		{"component", func(r *release.Release) {
			c := r.Components[0]
			c.Name = "os"
			r.Components = []release.Component{c}
		}, ota.ErrComponent},
		{"invalid", func(r *release.Release) { r.Components = nil }, release.ErrInvalid},
		{"no locator", func(r *release.Release) { r.Version = "elsewhere" }, ota.ErrNoRelease},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := *next
			c.change(&r)
			_, err := u.Begin(ctx, &r)
			require.ErrorIs(t, err, c.want)
			require.Equal(t, ota.Idle, u.Status().State)
		})
	}
}

func TestFloors(t *testing.T) {
	repo := otatest.NewRepo()
	d := otatest.NewDevice(repo, otatest.Part{Name: "app", Effect: ota.Live})
	for seq := range uint64(3) {
		d.Offer(repo.Add(seq+1, otatest.Healthy(), otatest.Content{Part: "app", Label: fmt.Sprint(seq + 1)}))
		require.Equal(t, ota.Committed, update(t, d).State)
	}
	u := opened(t, d)
	require.ErrorIs(t, u.SetDataFloor(4), ota.ErrState)
	require.NoError(t, u.SetDataFloor(3))
	require.NoError(t, u.SetDataFloor(1), "it never falls")
	require.Equal(t, uint64(3), u.Status().DataFloor)
	_, err := u.Rollback(d.Context(), 0)
	require.ErrorIs(t, err, ota.ErrFloor)
	_, err = u.Rollback(d.Context(), 9)
	require.ErrorIs(t, err, ota.ErrNothingKept)
	require.Equal(t, uint64(3), u.Status().Running.Seq)
	d.Cut(otatest.PowerCut)
	d.Boot()
	u = opened(t, d)
	require.Equal(t, uint64(3), u.Status().DataFloor, "the floor did not last")
	_, err = u.Rollback(d.Context(), 0)
	require.ErrorIs(t, err, ota.ErrFloor)
}

// A rollback to the kept release needs no network, passes a trial, and holds
// back the release that it left.
func TestRollbackOffline(t *testing.T) {
	for _, effect := range []ota.Effect{ota.Live, ota.NeedsRestart, ota.NeedsReboot} {
		t.Run(string(effect), func(t *testing.T) {
			d := bench(t, effect, otatest.Healthy())
			require.Equal(t, ota.Committed, update(t, d).State)
			d.Offline(true)
			u := opened(t, d)
			res, err := u.Rollback(d.Context(), 0)
			require.NoError(t, u.Close())
			switch {
			case errors.Is(err, ota.ErrRebootPending):
				d.Boot()
				res = update(t, d)
			case errors.Is(err, ota.ErrRestartPending):
				d.Restart()
				res = update(t, d)
			}
			u = opened(t, d)
			require.Equal(t, uint64(1), u.Status().Running.Seq, "%v", res)
			require.True(t, u.History()[2].Back)
			require.Equal(t, "old", is(t, d))
			d.Offline(false)
			d.Restart()
			_, err = opened(t, d).Update(d.Context())
			require.ErrorIs(t, err, ota.ErrCondemned)
		})
	}
}

func TestNoSpaceIsSaidBeforeFetching(t *testing.T) {
	d := bench(t, ota.Live, otatest.Healthy())
	d.SetFree(1<<20+10, 1000)
	u := opened(t, d)
	res, err := u.Update(d.Context())
	require.ErrorIs(t, err, ota.ErrNoSpace)
	var space *ota.SpaceError
	require.ErrorAs(t, err, &space)
	require.Equal(t, int64(1<<20+10), space.FreeBytes)
	require.Greater(t, space.NeedBytes, int64(0))
	require.Equal(t, ota.Staging, res.State)
	d.SetFree(1<<30, 1000)
	res, err = u.Update(d.Context())
	require.NoError(t, err)
	require.Equal(t, ota.Committed, res.State)
}

func TestSecondUpdaterIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	o := ota.Options{Dir: dir, Device: ota.Device{ID: "x", Product: "p", Variant: "v"}, LockWait: -1}
	u, err := ota.Open(t.Context(), o)
	require.NoError(t, err)
	_, err = ota.Open(t.Context(), o)
	require.ErrorIs(t, err, ota.ErrLocked)
	s, err := ota.ReadStatus(dir)
	require.NoError(t, err)
	require.Equal(t, ota.Idle, s.State)
	require.NoError(t, u.Close())
	_, err = u.Resume(t.Context())
	require.ErrorIs(t, err, ota.ErrPoisoned)
	u, err = ota.Open(t.Context(), o)
	require.NoError(t, err)
	require.NoError(t, u.Close())
}

func TestOptionsAreChecked(t *testing.T) {
	good := ota.Options{Dir: t.TempDir() + "/s", Device: ota.Device{Product: "p", Variant: "v"}}
	for field, change := range map[string]func(o *ota.Options){
		"Dir":             func(o *ota.Options) { o.Dir = "" },
		"Device":          func(o *ota.Options) { o.Device.Product = "Not a name" },
		"Backends":        func(o *ota.Options) { o.Backends = map[string]ota.Backend{"x": nil} },
		"Trial.Soak":      func(o *ota.Options) { o.Trial.Soak = -1 },
		"Trial.Deadline":  func(o *ota.Options) { o.Trial.Soak, o.Trial.Deadline = time.Hour, time.Minute },
		"Failures":        func(o *ota.Options) { o.Trial.Failures = -1 },
		"StepLimit":       func(o *ota.Options) { o.StepLimit = -1 },
		"WatchdogTimeout": func(o *ota.Options) { o.Watchdog, o.WatchdogTimeout = nothing{}, time.Second },
	} {
		o := good
		change(&o)
		_, err := ota.Open(t.Context(), o)
		require.ErrorContains(t, err, field)
	}
	u, err := ota.Open(t.Context(), good)
	require.NoError(t, err)
	require.NoError(t, u.Close())
}

type nothing struct{}

func (nothing) Arm(time.Duration) error { return nil }
func (nothing) Kick() error             { return nil }
func (nothing) Disarm() error           { return nil }
