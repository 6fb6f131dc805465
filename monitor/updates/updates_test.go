package updates

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

// sink keeps events as their kind, with what tells them apart.
type sink struct {
	t    *testing.T
	said []string
	last string
	all  []monitor.Event
}

func (s *sink) Append(keep bool, key string, data []byte) {
	var e monitor.Event
	require.NoError(s.t, json.Unmarshal(data, &e))
	s.said, s.all = append(s.said, string(e.Kind)), append(s.all, e)
	if key != "" {
		s.last = key
	}
}

func newReporter(t *testing.T) (*Reporter, *sink) {
	t.Helper()
	to := &sink{t: t}
	stream, err := monitor.NewStream(monitor.StreamOptions{Device: "d", Sink: to})
	require.NoError(t, err)
	return New(Options{Stream: stream, Bytes: func() monitor.Bytes { return monitor.Bytes{Content: 7} }}), to
}

// drive brings a simulated device to the release on offer, over the boots and
// restarts that this takes.
func drive(t *testing.T, d *otatest.Device, to *sink, r *Reporter) {
	t.Helper()
	for range 10 {
		o := d.Options()
		o.Progress = r.Progress
		u, err := ota.Open(d.Context(), o)
		require.NoError(t, err)
		r.CatchUp(u.History(), to.last)
		res, err := u.Update(d.Context())
		r.Outcome(res, err)
		require.NoError(t, u.Close())
		switch {
		case errors.Is(err, ota.ErrRebootPending):
			d.Boot()
		case errors.Is(err, ota.ErrRestartPending):
			d.Restart()
		default:
			return
		}
	}
}

// TestUpdate: the events of an update that is kept, and of one that is not, with
// one transaction in all of them.
func TestUpdate(t *testing.T) {
	for _, effect := range []ota.Effect{ota.Live, ota.NeedsRestart, ota.NeedsReboot} {
		repo := otatest.NewRepo()
		one := repo.Add(1, otatest.Healthy(), otatest.Content{Part: "app", Label: "one"})
		two := repo.Add(2, otatest.Sick(), otatest.Content{Part: "app", Label: "two"})
		d := otatest.NewDevice(repo, otatest.Part{Name: "app", Effect: effect})
		r, to := newReporter(t)
		d.Offer(one)
		drive(t, d, to, r)
		require.Equal(t, []string{"begin", "staged", "activated"}, to.said[:3])
		require.Equal(t, "committed", to.said[len(to.said)-1])
		last := to.all[len(to.all)-1]
		require.EqualValues(t, 1, last.Release.Seq)
		require.EqualValues(t, 7, last.Bytes.Content)
		require.Positive(t, last.Took)
		for _, e := range to.all {
			require.Equal(t, last.Tx, e.Tx)
		}

		*to = sink{t: t, last: to.last}
		d.Offer(two)
		drive(t, d, to, r)
		require.Contains(t, to.said, "reverted")
		require.NotContains(t, to.said, "committed")
		var end monitor.Event
		for _, e := range to.all {
			if e.Kind == monitor.Reverted {
				end = e
			}
		}
		require.True(t, end.Condemned)
		require.NotEmpty(t, end.Reason)
		require.EqualValues(t, 2, end.Release.Seq)
		require.EqualValues(t, 1, end.From.Seq)
		require.NotEqual(t, last.Tx, end.Tx)

		*to = sink{t: t, last: to.last}
		for range 3 {
			drive(t, d, to, r)
		}
		require.Equal(t, []string{"held"}, to.said, "the same is said once")
	}
}

// TestEndIsToldWhereverThePowerGoes: the end of a transaction is told exactly
// once, and last, wherever the power goes, whether the sink had made durable what
// the process told it or lost all of it.
func TestEndIsToldWhereverThePowerGoes(t *testing.T) {
	repo := otatest.NewRepo()
	one := repo.Add(1, otatest.Healthy(), otatest.Content{Part: "app", Label: "one"})
	two := repo.Add(2, otatest.Healthy(), otatest.Content{Part: "app", Label: "two"})
	start := otatest.NewDevice(repo, otatest.Part{Name: "app", Effect: ota.NeedsReboot})
	start.Offer(one)
	first, ignore := newReporter(t)
	drive(t, start, ignore, first)
	start.Offer(two)
	for _, loses := range []bool{false, true} {
		for cut := 1; ; cut++ {
			require.Less(t, cut, 500)
			d := start.Clone()
			d.At(cut, otatest.PowerCut)
			_, to := newReporter(t)
			to.last = ignore.last
			for range 8 {
				process(t, d, to, loses)
			}
			ends := slices.DeleteFunc(slices.Clone(to.said), func(k string) bool { return k != "committed" && k != "reverted" })
			require.Equal(t, "committed", ends[len(ends)-1], "cut at %d: %v", cut, to.said)
			require.Equal(t, "committed", to.said[len(to.said)-1])
			require.Equal(t, ends, slices.Compact(slices.Clone(ends)))
			require.Len(t, ends, len(history(t, d))-1, "cut at %d: %v", cut, to.said)
			if d.Faults() == 0 {
				break
			}
		}
	}
}

func history(t *testing.T, d *otatest.Device) []ota.Result {
	t.Helper()
	u, err := ota.Open(d.Context(), d.Options())
	require.NoError(t, err)
	defer func() { require.NoError(t, u.Close()) }()
	return u.History()
}

// process is one process of the agent, with a reporter of its own; the sink
// outlives it, unless it loses what a process told it whose power went.
func process(t *testing.T, d *otatest.Device, to *sink, loses bool) {
	t.Helper()
	r, fresh := newReporter(t)
	o := d.Options()
	o.Progress = r.Progress
	u, err := ota.Open(d.Context(), o)
	if err == nil {
		r.CatchUp(u.History(), to.last)
		_, err = u.Update(d.Context())
		_ = u.Close()
	}
	switch {
	case !d.Alive():
		d.Boot()
		if loses {
			return
		}
	case errors.Is(err, ota.ErrRebootPending):
		d.Boot()
	default:
		require.NotErrorIs(t, err, ota.ErrPoisoned)
	}
	to.said, to.all = append(to.said, fresh.said...), append(to.all, fresh.all...)
	if fresh.last != "" {
		to.last = fresh.last
	}
}

func TestCatchUp(t *testing.T) {
	end := func(n int, s ota.State) ota.Result {
		return ota.Result{Tx: ota.TxID(fmt.Sprint("tx", n)), State: s, To: ota.Installed{ID: release.ID{Seq: uint64(n)}}}
	}
	history := []ota.Result{end(1, ota.Committed), end(2, ota.Reverted), end(3, ota.Committed)}
	for last, want := range map[string][]string{
		"": {"committed", "reverted", "committed"}, "tx1/committed": {"reverted", "committed"},
		"tx3/committed": nil, "tx0/committed": {"committed", "reverted", "committed"},
	} {
		r, to := newReporter(t)
		r.CatchUp(history, last)
		r.CatchUp(history, last)
		require.Equal(t, want, to.said, last)
	}
}

func TestOutcome(t *testing.T) {
	r, to := newReporter(t)
	for _, err := range []error{nil, ota.ErrUpToDate, ota.ErrUnhealthy, ota.ErrRebootPending} {
		r.Outcome(ota.Result{}, err)
	}
	require.Empty(t, to.said)
	for _, err := range []error{ota.ErrStuck, ota.ErrCondemned, ota.ErrNoSpace, ota.ErrNoSpace, nil, ota.ErrNoSpace, context.DeadlineExceeded} {
		r.Outcome(ota.Result{Tx: "t"}, err)
	}
	require.Equal(t, []string{"stuck", "held", "failed", "failed", "failed"}, to.said)
	require.Equal(t, ota.ErrNoSpace.Error(), to.all[2].Reason)
}

func TestRepaired(t *testing.T) {
	r, to := newReporter(t)
	r.Repaired(nil, nil, nil)
	require.Empty(t, to.said)
	damage := []ota.Damage{{Component: "app", Path: "a", Reason: "changed"}, {Component: "app", Path: "b", Reason: "gone"}}
	r.Repaired(damage, damage[1:], nil)
	r.Repaired(nil, nil, errors.New("no copy"))
	require.Equal(t, "app: b: gone", to.all[0].Reason)
	require.Equal(t, map[string]float64{"found": 2, "left": 1}, to.all[0].Values)
	require.Equal(t, "no copy", to.all[1].Reason)
}

func TestSample(t *testing.T) {
	r, to := newReporter(t)
	repo := otatest.NewRepo()
	d := otatest.NewDevice(repo, otatest.Part{Name: "app", Effect: ota.Live})
	d.Offer(repo.Add(1, otatest.Healthy(), otatest.Content{Part: "app", Label: "one"}))
	drive(t, d, to, r)
	d.Offer(repo.Add(2, otatest.Sick(), otatest.Content{Part: "app", Label: "two"}))
	drive(t, d, to, r)
	u, err := ota.Open(d.Context(), d.Options())
	require.NoError(t, err)
	r.Sample(u)
	last := u.History()[1]
	require.NoError(t, u.Close())
	require.Equal(t, map[string]float64{
		"tried": 2, "committed": 1, "reverted": 1, "running": 1, "held": 1, "took": last.Took.Seconds(), "downtime": last.Downtime.Seconds(),
		"starts": float64(last.Starts), "fetched": float64(last.Bytes), "bytes.metadata": 0, "bytes.content": 7, "bytes.report": 0, "bytes.wasted": 0,
	}, to.all[len(to.all)-1].Values)
	require.Positive(t, last.Took)
}
