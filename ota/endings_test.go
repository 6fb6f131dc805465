package ota_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

// releases adds 1 to n, all healthy, of all the parts.
func releases(repo *otatest.Repo, n uint64, parts ...string) []*release.Release {
	var list []*release.Release
	for seq := range n {
		var contents []otatest.Content
		for _, p := range parts {
			contents = append(contents, otatest.Content{Part: p, Label: fmt.Sprint(seq + 1)})
		}
		list = append(list, repo.Add(seq+1, otatest.Healthy(), contents...))
	}
	return list
}

// device returns a device of live parts that took the first n of n+2 releases.
func device(t *testing.T, n int, parts ...string) (*otatest.Device, []*release.Release) {
	repo := otatest.NewRepo()
	list := releases(repo, uint64(n)+2, parts...)
	var live []otatest.Part
	for _, p := range parts {
		live = append(live, otatest.Part{Name: p, Effect: ota.Live})
	}
	d := otatest.NewDevice(repo, live...)
	for _, r := range list[:n] {
		d.Offer(r)
		require.Equal(t, ota.Committed, update(t, d).State)
	}
	return d, list
}

// tampered is a backend of a simulated device that fails as its funcs say.
type tampered struct {
	otatest.Backend
	active func() (ota.Active, error, bool)
	prune  func() error
	staged func() error
}

func (b tampered) Stage(ctx context.Context, tx ota.TxID, c release.Component, content ota.Content) (ota.Effect, error) {
	e, err := b.Backend.Stage(ctx, tx, c, content)
	if err == nil && b.staged != nil {
		err = b.staged()
	}
	return e, err
}

func (b tampered) Active(ctx context.Context, name string) (ota.Active, error) {
	if b.active != nil {
		if a, err, now := b.active(); now {
			return a, err
		}
	}
	return b.Backend.Active(ctx, name)
}

func (b tampered) Prune(ctx context.Context, name string, keep []release.Digest, open []ota.TxID) error {
	if b.prune != nil {
		if err := b.prune(); err != nil {
			return err
		}
	}
	return b.Backend.Prune(ctx, name, keep, open)
}

func tamper(o *ota.Options, name string, b tampered) {
	b.Backend = o.Backends[name].(otatest.Backend)
	o.Backends[name] = b
}

// A backend whose sync fails may have lost what the engine placed on the same file
// system: that is placed anew.
func TestFailedSyncOfBackend(t *testing.T) {
	d, list := device(t, 1, "app")
	d.Offer(list[1])
	d.Log = true
	o := d.Options()
	failing := true
	tamper(&o, "app", tampered{staged: func() error {
		if failing {
			return fmt.Errorf("%w: %w", durable.ErrSync, syscall.EIO)
		}
		return nil
	}})
	u, err := ota.Open(t.Context(), o)
	require.NoError(t, err)
	defer u.Close()
	_, err = u.Resume(t.Context())
	require.NoError(t, err)
	tx, err := u.Begin(t.Context(), list[1])
	require.NoError(t, err)
	require.ErrorIs(t, tx.Stage(t.Context()), durable.ErrSync)
	failing = false
	before := d.Trace()
	require.NoError(t, tx.Stage(t.Context()))
	again := placed(d.Trace()[len(before):])
	require.NotEmpty(t, again)
	require.Equal(t, placed(before), again)
}

// placed returns the files that a trace has placed.
func placed(trace []string) (names []string) {
	for _, line := range trace {
		if _, name, ok := strings.Cut(line, ": place "); ok {
			names = append(names, name)
		}
	}
	return names
}

// A cleanup that fails never keeps the next release out.
func TestOwedCleanupBlocksNothing(t *testing.T) {
	for _, failures := range []int{1, 2, 3, 1000} {
		d, list := device(t, 1, "app")
		left := failures
		prune := func() error {
			if left--; left >= 0 {
				return errors.New("cannot prune")
			}
			return nil
		}
		u := opened(t, d, func(o *ota.Options) { tamper(o, "app", tampered{prune: prune}) })
		for _, r := range list[1:] {
			d.Offer(r)
			res, err := u.Update(d.Context())
			require.NoError(t, err, "%d failures", failures)
			require.Equal(t, ota.Committed, res.State)
		}
	}
}

// A locator that was lost is asked for again.
func TestLostLocatorIsFetchedAgain(t *testing.T) {
	d, list := device(t, 1, "app")
	d.Offer(list[1])
	u := opened(t, d)
	rel, err := u.Check(d.Context())
	require.NoError(t, err)
	_, err = u.Begin(d.Context(), rel)
	require.NoError(t, err)
	for _, name := range d.Written("blobs/") {
		if name != "blobs/"+rel.Digest().String() {
			d.Corrupt(name, func(b []byte) []byte { return make([]byte, len(b)) })
		}
	}
	res, err := u.Update(d.Context())
	require.NoError(t, err)
	require.Equal(t, ota.Committed, res.State)
}

// A trial ends although nobody can say what runs: by starts where the process
// is started again and again, and by time where it stays.
func TestTrialEndsWithoutAnswers(t *testing.T) {
	silent := func() (ota.Active, error, bool) { return ota.Active{}, errors.New("the engine does not answer"), true }
	for _, restarts := range []bool{true, false} {
		d := bench(t, ota.NeedsReboot, otatest.Sick())
		_, err := updateOnce(t, d)
		require.ErrorIs(t, err, ota.ErrRebootPending)
		d.Boot()
		options := func() ota.Options {
			o := d.Options()
			tamper(&o, "app", tampered{active: silent})
			return o
		}
		u, err := ota.Open(d.Context(), options())
		require.NoError(t, err)
		var res ota.Result
		for i := 0; err == nil && res.State != ota.Stuck; i++ {
			require.Less(t, i, 20, "it goes on for ever")
			if restarts {
				_ = u.Close()
				d.Restart()
				u, err = ota.Open(d.Context(), options())
				require.NoError(t, err)
			}
			res, _ = u.Resume(d.Context())
			d.Wait(2 * time.Minute)
		}
		require.Equal(t, ota.Stuck, res.State, "it cannot be taken back before the engine answers either")
		_ = u.Close()
		d.Boot()
		res, err = opened(t, d).Resume(d.Context())
		require.NoError(t, err)
		require.Equal(t, ota.Idle, res.State)
		require.Equal(t, "old", is(t, d))
	}
}

type noDog struct{}

func (noDog) Arm(time.Duration) error { return errors.New("no /dev/watchdog") }
func (noDog) Kick() error             { return nil }
func (noDog) Disarm() error           { return nil }

// A new system without a watchdog driver proves itself all the same; a switch
// never begins without one.
func TestWatchdogThatCannotBeArmed(t *testing.T) {
	d := bench(t, ota.NeedsReboot, otatest.Healthy())
	u := opened(t, d, func(o *ota.Options) { o.Watchdog = noDog{} })
	_, err := u.Update(d.Context())
	require.ErrorIs(t, err, ota.ErrWatchdog)
	require.Equal(t, ota.Staged, u.Status().State)
	require.NoError(t, u.Close())
	_, err = updateOnce(t, d)
	require.ErrorIs(t, err, ota.ErrRebootPending)
	d.Boot()
	res, err := opened(t, d, func(o *ota.Options) { o.Watchdog = noDog{} }).Update(d.Context())
	require.NoError(t, err)
	require.Equal(t, ota.Committed, res.State)
}

// onlyBackend hides all optional interfaces.
type onlyBackend struct{ ota.Backend }

// A damaged record sends a trial forward only where it may have been
// committing: never one that waits for its boot.
func TestUnprovenIsNotCommitted(t *testing.T) {
	d := bench(t, ota.NeedsReboot, otatest.Sick())
	_, err := updateOnce(t, d)
	require.ErrorIs(t, err, ota.ErrRebootPending)
	d.Corrupt(d.Written("journal.")[1], func(b []byte) []byte { return make([]byte, len(b)) })
	d.Boot()
	o := d.Options()
	o.Backends["app"] = onlyBackend{o.Backends["app"]}
	u, err := ota.Open(d.Context(), o)
	require.NoError(t, err)
	_, err = u.Update(d.Context())
	require.ErrorIs(t, err, ota.ErrUnhealthy)
	require.Empty(t, d.Broken())
	require.NoError(t, u.Close())
}

// A rollback that was cut short is an operator's word: the next Update goes on
// with it.
func TestRollbackSurvivesCuts(t *testing.T) {
	start, _ := device(t, 2, "app")
	for n := 1; ; n++ {
		d := start.Clone()
		u := opened(t, d)
		d.At(n, otatest.PowerCut)
		_, err := u.Rollback(d.Context(), 0)
		if d.Alive() {
			require.NoError(t, err)
			return
		}
		d.Boot()
		u = opened(t, d)
		begun := u.Tx() != nil || u.Status().Running.Seq == 1 || len(u.History()) > 2
		_, _ = u.Update(d.Context())
		switch running := u.Status().Running.Seq; {
		case !begun:
			require.Equal(t, uint64(2), running, "step %d", n)
		case running != 1: // it was taken back where it was cut short while activating
			h := u.History()
			require.Equal(t, ota.Reverted, h[len(h)-1].State, "step %d", n)
			require.Contains(t, h[len(h)-1].Reason, "cut short", "step %d", n)
		}
	}
}

// Going back twice goes back twice, or not at all.
func TestRollbackTwice(t *testing.T) {
	d, _ := device(t, 2, "app")
	u := opened(t, d)
	_, err := u.Rollback(d.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, uint64(1), u.Status().Running.Seq)
	_, err = u.Rollback(d.Context(), 0)
	require.ErrorIs(t, err, ota.ErrNothingKept)
	require.Equal(t, uint64(1), u.Status().Running.Seq)
	_, err = u.Rollback(d.Context(), 2)
	require.NoError(t, err, "an operator may say so by seq")
	require.Equal(t, uint64(2), u.Status().Running.Seq)
}

// A rollback may use the reserve, and one that has no room leaves nothing
// open.
func TestRollbackWithLittleSpace(t *testing.T) {
	d, _ := device(t, 2, "app")
	u := opened(t, d)
	d.SetFree(0, 0)
	_, err := u.Rollback(d.Context(), 0)
	require.ErrorIs(t, err, ota.ErrNoSpace)
	require.Equal(t, ota.Idle, u.Status().State)
	d.SetFree(100<<10, 1000)
	_, err = u.Rollback(d.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, uint64(1), u.Status().Running.Seq)
}

// With the whole journal lost in the middle of a switch, what backends set
// aside and what is stored stays; a later release gets the device out.
func TestBothRecordsLost(t *testing.T) {
	start, list := device(t, 1, "a", "b")
	start.Offer(list[1])
	met := 0
	for n := 1; ; n++ {
		d := start.Clone()
		d.At(n, otatest.PowerCut)
		update(t, d)
		if d.Alive() {
			break
		}
		d.Boot()
		u, err := ota.Open(d.Context(), d.Options())
		require.NoError(t, err)
		state := u.Status().State
		_ = u.Close()
		stored := len(d.Written("blobs/"))
		for _, name := range d.Written("journal.") {
			d.Corrupt(name, func(b []byte) []byte { return make([]byte, len(b)) })
		}
		u = opened(t, d)
		require.NotEmpty(t, u.Status().Notes)
		if state == ota.Activating {
			met++
			require.GreaterOrEqual(t, len(d.Written("blobs/")), stored, "step %d: nothing is dropped", n)
		}
		d.Offer(list[2])
		res, err := u.Update(d.Context())
		require.NoError(t, err, "step %d", n)
		require.Equal(t, ota.Committed, res.State)
		for _, p := range []string{"a", "b"} {
			require.Equal(t, otatest.Content{Part: p, Label: "3"}.Files(), d.Runs(p), "step %d", n)
		}
	}
	require.NotZero(t, met)
}

// A part that the release left alone, and that something else broke, does not
// keep the others' way back from ending.
func TestPartLeftAloneIsNoReasonToStick(t *testing.T) {
	repo := otatest.NewRepo()
	same := otatest.Content{Part: "b", Label: "one"}
	one := repo.Add(1, otatest.Healthy(), otatest.Content{Part: "a", Label: "one"}, same)
	two := repo.Add(2, otatest.Sick(), otatest.Content{Part: "a", Label: "two"}, same)
	d := otatest.NewDevice(repo, otatest.Part{Name: "a", Effect: ota.Live}, otatest.Part{Name: "b", Effect: ota.Live})
	d.Offer(one)
	require.Equal(t, ota.Committed, update(t, d).State)
	broken := false
	u := opened(t, d, func(o *ota.Options) {
		tamper(o, "b", tampered{active: func() (ota.Active, error, bool) {
			return ota.Active{State: ota.Mixed}, nil, broken
		}})
	})
	tx, err := u.Begin(d.Context(), two)
	require.NoError(t, err)
	require.NoError(t, tx.Stage(d.Context()))
	require.NoError(t, tx.Activate(d.Context()))
	broken = true
	require.NoError(t, tx.Rollback(d.Context(), "b is broken"))
	require.Equal(t, ota.Reverted, tx.State())
	require.Equal(t, otatest.Content{Part: "a", Label: "one"}.Files(), d.Runs("a"))
}
