package updates

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

// owner is the program of a device that is updated, and watched afterwards.
type owner struct {
	t      *testing.T
	d      *otatest.Device
	late   Late
	to     *sink
	sick   map[string]bool // the label of what is sick, from now on
	healed time.Time       // when nothing is any more
	ended  []ota.Result
}

// newOwner returns one whose device has committed a first and a second release,
// both as change leaves them.
func newOwner(t *testing.T, effect ota.Effect, change ...func(*release.Release)) *owner {
	repo := otatest.NewRepo()
	for _, c := range change {
		repo.Change(c)
	}
	d := otatest.NewDevice(repo, otatest.Part{Name: "app", Effect: effect})
	w := &owner{t: t, d: d, sick: map[string]bool{}, to: &sink{t: t}}
	w.late = Late{File: filepath.Join(t.TempDir(), "late"), Failures: 3}
	for seq, label := range []string{"one", "two"} {
		d.Offer(repo.Add(uint64(seq+1), otatest.Healthy(), otatest.Content{Part: "app", Label: label}))
		w.live(5)
	}
	require.Equal(t, otatest.Content{Part: "app", Label: "two"}.Files(), d.Runs("app"))
	return w
}

func (w *owner) runs() string {
	for _, label := range []string{"one", "two"} {
		if (otatest.Content{Part: "app", Label: label}).Files() == w.d.Runs("app") {
			return label
		}
	}
	return ""
}

// live has the program run for so many starts: an update, and a day of watching.
func (w *owner) live(starts int) (last error) {
	for range starts {
		last = w.process()
		switch {
		case !w.d.Alive(), errors.Is(last, ota.ErrRebootPending):
			w.d.Boot()
		case errors.Is(last, ota.ErrRestartPending):
			w.d.Restart()
		}
	}
	return last
}

func (w *owner) process() error {
	r, to := newReporter(w.t)
	o := w.d.Options()
	o.Progress = r.Progress
	o.Health = func(context.Context) error {
		if label := w.runs(); label == "" || w.sick[label] && (w.healed.IsZero() || time.Now().Before(w.healed)) {
			return errors.New("it is cold in " + label)
		}
		return nil
	}
	u, err := ota.Open(w.d.Context(), o)
	if err != nil {
		return err
	}
	defer func() { _ = u.Close(); w.to.all = append(w.to.all, to.all...) }()
	res, err := u.Update(w.d.Context())
	r.Outcome(res, err)
	if errors.Is(err, ota.ErrRebootPending) || errors.Is(err, ota.ErrRestartPending) || !w.d.Alive() {
		return err
	}
	l := w.late
	l.Health, l.Stream = o.Health, r.o.Stream
	ctx, cancel := context.WithTimeout(w.d.Context(), 24*time.Hour)
	defer cancel()
	_, err = l.Watch(ctx, u)
	w.ended = u.History()
	return err
}

func (w *owner) said(kind, name string) (n int) {
	for _, e := range w.to.all {
		if string(e.Kind) == kind && (name == "" || e.Name == name) {
			n++
		}
	}
	return n
}

// TestLate: a release that becomes sick in the time after its commit is gone back
// from, once, and stays away.
func TestLate(t *testing.T) {
	for _, effect := range []ota.Effect{ota.Live, ota.NeedsRestart, ota.NeedsReboot} {
		synctest.Test(t, func(t *testing.T) {
			w := newOwner(t, effect)
			require.NoError(t, os.Remove(w.late.File)) // the hour after the commit begins again
			w.sick["two"] = true
			_ = w.live(6)
			require.Equal(t, "one", w.runs(), "%s", effect)
			require.Equal(t, 1, w.said("alert", "late-rollback"))
			require.Len(t, w.ended, 3)
			end := w.ended[2]
			require.True(t, end.Back)
			require.Equal(t, ota.Committed, end.State)
			w.sick["one"] = true
			_ = w.live(6)
			require.Len(t, w.ended, 3, "and nowhere from there")
		})
	}
}

// TestLateIsLimited: where nobody goes back, and what is left then.
func TestLateIsLimited(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(w *owner)
		history int
		says    string
	}{
		"well":            {func(w *owner) {}, 2, ""},
		"sick after that": {func(w *owner) { w.live(1); w.sick["two"] = true }, 2, ""},
		"not allowed": {func(w *owner) {
			w.sick["two"], w.late.Allow = true, func(ota.Result) error { return errors.New("the tank is open") }
		}, 2, "the tank is open"},
		"below the floor": {func(w *owner) { w.sick["two"] = true; w.floor(2) }, 2, "below a floor"},
		"both sick":       {func(w *owner) { w.sick["one"], w.sick["two"] = true, true }, 3, ""},
		"too seldom":      {func(w *owner) { w.late.Failures = 200; w.sick["two"], w.healed = true, time.Now().Add(90*time.Minute) }, 2, ""},
		"hanging":         {func(w *owner) { w.hang() }, 3, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newOwner(t, ota.Live)
				require.NoError(t, os.Remove(w.late.File))
				c.change(w)
				err := w.process()
				if c.says != "" {
					require.ErrorContains(t, err, c.says)
				}
				_ = w.live(3)
				require.Len(t, w.ended, c.history)
				want := "two"
				if name == "hanging" {
					want = "one"
				}
				require.Equal(t, want, w.runs())
				_, err = os.Stat(w.late.File)
				require.Equal(t, name == "both sick" || name == "hanging", err != nil, "it is noted that it is over")
			})
		})
	}
}

// TestLateForbidden: what the release forbids is told, and not done.
func TestLateForbidden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newOwner(t, ota.Live, func(r *release.Release) { r.LateRollback = release.LateForbidden })
		require.NoError(t, os.Remove(w.late.File))
		w.sick["two"] = true
		require.ErrorIs(t, w.process(), ErrForbidden)
		require.NoError(t, w.live(3))
		require.Len(t, w.ended, 2)
		require.Equal(t, "two", w.runs())
		require.Equal(t, 1, w.said("alert", "late-rollback"))
	})
}

// TestLateUnknown: while nobody can tell whether the release allows it, nothing is
// done, and it is asked again.
func TestLateUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newOwner(t, ota.Live)
		require.NoError(t, os.Remove(w.late.File))
		w.sick["two"] = true
		document, whole := "blobs/"+w.ended[1].To.Digest.String(), []byte(nil)
		w.d.Corrupt(document, func(data []byte) []byte { whole = slices.Clone(data); return data[1:] })
		require.ErrorContains(t, w.process(), "cannot tell whether the way back is allowed from")
		require.Len(t, w.ended, 2)
		w.d.Corrupt(document, func([]byte) []byte { return whole })
		_ = w.live(3)
		require.Equal(t, "one", w.runs())
	})
}

func (w *owner) floor(seq uint64) {
	u, err := ota.Open(w.t.Context(), w.d.Options())
	require.NoError(w.t, err)
	_, err = u.Resume(w.t.Context())
	require.NoError(w.t, err)
	require.NoError(w.t, u.SetDataFloor(seq))
	require.NoError(w.t, u.Close())
}

// hang has the first watching meet a question without an answer.
func (w *owner) hang() {
	u, err := ota.Open(w.t.Context(), w.d.Options())
	require.NoError(w.t, err)
	_, err = u.Resume(w.t.Context())
	require.NoError(w.t, err)
	l, never := w.late, make(chan bool)
	var asked atomic.Int32
	l.Health = func(context.Context) error {
		asked.Add(1)
		<-never
		return nil
	}
	res, err := l.Watch(w.t.Context(), u)
	require.NoError(w.t, err)
	require.Equal(w.t, ota.Committed, res.State)
	require.NoError(w.t, u.Close())
	require.EqualValues(w.t, 1, asked.Load(), "not again before it was answered")
	close(never)
}

// TestLateFlaps: only answers in a row lead back.
func TestLateFlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newOwner(t, ota.Live)
		require.NoError(t, os.Remove(w.late.File))
		u, err := ota.Open(t.Context(), w.d.Options())
		require.NoError(t, err)
		defer func() { require.NoError(t, u.Close()) }()
		_, err = u.Resume(t.Context())
		require.NoError(t, err)
		l := w.late
		var asked atomic.Int32
		l.Health = func(context.Context) error {
			if asked.Add(1)%3 != 0 {
				return errors.New("it is cold")
			}
			return nil
		}
		res, err := l.Watch(t.Context(), u)
		require.NoError(t, err)
		require.Empty(t, res.State)
		require.EqualValues(t, 120, asked.Load())
	})
}

// TestLateCounts: the time is running time over starts, and a damaged file begins
// it again.
func TestLateCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newOwner(t, ota.Live)
		require.NoError(t, os.Remove(w.late.File))
		var asked atomic.Int32
		watch := func(within time.Duration) error {
			u, err := ota.Open(t.Context(), w.d.Options())
			require.NoError(t, err)
			defer func() { require.NoError(t, u.Close()) }()
			_, err = u.Resume(t.Context())
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			l := w.late
			l.Health = func(context.Context) error { asked.Add(1); return nil }
			_, err = l.Watch(ctx, u)
			return err
		}
		for range 3 {
			require.ErrorIs(t, watch(19*time.Minute), context.DeadlineExceeded)
			<-time.After(time.Hour) // switched off
		}
		require.NoError(t, watch(time.Hour))
		require.InDelta(t, 120, asked.Load(), 24, "an hour at two a minute, and what was not noted")
		asked.Store(0)
		require.NoError(t, watch(time.Hour))
		require.Zero(t, asked.Load())
		require.NoError(t, os.WriteFile(w.late.File, []byte("{"), 0o600))
		require.NoError(t, watch(2*time.Hour))
		require.EqualValues(t, 120, asked.Load())
	})
	_, err := Late{}.Watch(t.Context(), nil)
	require.ErrorContains(t, err, "File")
}

// TestLateWhereverThePowerGoes: the way back ends at the release before, whole,
// at whatever step of it the power goes, and is told.
func TestLateWhereverThePowerGoes(t *testing.T) {
	for _, effect := range []ota.Effect{ota.Live, ota.NeedsReboot} {
		for cut, cuts := 1, 0; ; cut++ {
			done := false
			synctest.Test(t, func(t *testing.T) {
				w := newOwner(t, effect)
				require.NoError(t, os.Remove(w.late.File))
				w.sick["two"] = true
				w.d.At(cut, otatest.PowerCut)
				_ = w.live(8)
				done = w.d.Faults() == 0
				require.Equal(t, "one", w.runs(), "%s, cut at %d", effect, cut)
				require.GreaterOrEqual(t, w.said("alert", "late-rollback"), 1)
				back := 0
				for _, r := range w.ended {
					if r.Back && r.State == ota.Committed {
						back++
					}
				}
				require.Equal(t, 1, back, "%s, cut at %d: %v", effect, cut, w.ended)
			})
			if cuts++; done {
				t.Logf("%s: %d cuts", effect, cuts-1)
				break
			}
			require.Less(t, cut, 300)
		}
	}
}
