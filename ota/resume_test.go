package ota_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

// row is one row of the table in the comment on Resume: where a device was
// left, what is done to it then, and what Resume has to make of it.
type row struct {
	name   string
	effect ota.Effect
	// fault ends the process at some step; without one it ends when Update
	// returned.
	fault otatest.Fault
	// What the journal, the device and its backend say to the next process.
	state ota.State
	is    string // "old", "new", "armed" or "" for any
	back  string // whether the backend can revert: "can", "can not" or "" for any
	// then is done before the next process starts.
	then func(d *otatest.Device)
	// stay keeps the boot; without it the device boots.
	stay bool
	// What Resume answers, and what the device is after it.
	want  ota.State
	needs ota.Effect
	ends  string
	held  bool // one more note against the release
}

func damageNewest(d *otatest.Device) {
	d.Corrupt(d.Written("journal.")[0], func(b []byte) []byte { return make([]byte, len(b)) })
}

func refuseBoot(d *otatest.Device) { d.Refuse("app", 1) }

var rows = []row{
	{name: "staging stays open", effect: ota.Live, fault: otatest.PowerCut, state: ota.Staging, want: ota.Staging, ends: "old"},
	{name: "staged stays open", effect: ota.Live, fault: otatest.PowerCut, state: ota.Staged, want: ota.Staged, ends: "old"},
	{name: "staged, record lost, goes back", effect: ota.Live, fault: otatest.PowerCut, state: ota.Activating, is: "old", then: damageNewest, want: ota.Reverted, ends: "old", held: true},
	{name: "activating, old", effect: ota.Live, fault: otatest.PowerCut, state: ota.Activating, is: "old", want: ota.Reverted, ends: "old", held: true},
	{name: "activating, new", effect: ota.Live, fault: otatest.Kill, state: ota.Activating, is: "new", stay: true, want: ota.Reverted, ends: "old", held: true},
	{name: "activating, restart", effect: ota.NeedsRestart, fault: otatest.Kill, state: ota.Activating, is: "new", stay: true, want: ota.Reverted, needs: ota.NeedsRestart, ends: "old", held: true},
	{name: "activating, armed", effect: ota.NeedsReboot, fault: otatest.Kill, state: ota.Activating, is: "armed", stay: true, want: ota.Reverted, ends: "old", held: true},
	{name: "trial, armed for the next boot", effect: ota.NeedsReboot, state: ota.InTrial, is: "armed", stay: true, want: ota.InTrial, needs: ota.NeedsReboot, ends: "armed"},
	{name: "trial, the boot loader refused", effect: ota.NeedsReboot, state: ota.InTrial, is: "armed", then: refuseBoot, want: ota.Reverted, ends: "old", held: true},
	{name: "trial, the armed came up", effect: ota.NeedsReboot, state: ota.InTrial, is: "armed", want: ota.InTrial, ends: "new"},
	{name: "trial, the trial boot ended", effect: ota.NeedsReboot, fault: otatest.PowerCut, state: ota.InTrial, is: "old", want: ota.Reverted, ends: "old", held: true},
	{name: "trial, live, other process", effect: ota.Live, fault: otatest.Kill, state: ota.InTrial, stay: true, want: ota.InTrial, ends: "new"},
	{name: "trial, live, other boot", effect: ota.Live, fault: otatest.PowerCut, state: ota.InTrial, want: ota.InTrial, ends: "new"},
	{name: "trial, restarted", effect: ota.NeedsRestart, fault: otatest.Kill, state: ota.InTrial, stay: true, want: ota.InTrial, ends: "new"},
	{name: "trial, record lost, can go back", effect: ota.Live, fault: otatest.PowerCut, state: ota.Committing, back: "can", then: damageNewest, want: ota.InTrial, ends: "new"},
	{name: "trial, record lost, can not go back", effect: ota.Live, fault: otatest.PowerCut, state: ota.Committing, back: "can not", then: damageNewest, want: ota.Committed, ends: "new"},
	{name: "committing goes forward", effect: ota.Live, fault: otatest.PowerCut, state: ota.Committing, want: ota.Committed, ends: "new"},
	{name: "committing, restart", effect: ota.NeedsRestart, fault: otatest.Kill, state: ota.Committing, stay: true, want: ota.Committed, ends: "new"},
	{name: "committing, the rebooting one is old", effect: ota.NeedsReboot, fault: otatest.PowerCut, state: ota.Committing, is: "old", want: ota.Committing, needs: ota.NeedsReboot, ends: "armed"},
	{name: "committing, same boot", effect: ota.NeedsReboot, fault: otatest.Kill, state: ota.Committing, is: "new", stay: true, want: ota.Committed, ends: "new"},
}

// bench is a device that runs 1.0.0 and is offered the release that h
// describes as 2.0.0.
func bench(t *testing.T, effect ota.Effect, h otatest.Health) *otatest.Device {
	repo := otatest.NewRepo()
	one := repo.Add(1, otatest.Healthy(), otatest.Content{Part: "app", Label: "one"})
	two := repo.Add(2, h, otatest.Content{Part: "app", Label: "two"})
	d := otatest.NewDevice(repo, otatest.Part{Name: "app", Effect: effect})
	d.Offer(one)
	require.Equal(t, ota.Committed, update(t, d).State)
	d.Offer(two)
	return d
}

// update calls Update, and restarts and boots as it asks, until it is done or
// the process is gone.
func update(t *testing.T, d *otatest.Device) ota.Result {
	for range 10 {
		res, err := updateOnce(t, d)
		switch {
		case !d.Alive():
			return res
		case errors.Is(err, ota.ErrRebootPending):
			d.Boot()
		case errors.Is(err, ota.ErrRestartPending):
			d.Restart()
		default:
			return res
		}
	}
	require.Fail(t, "it asks for ever")
	return ota.Result{}
}

func updateOnce(t *testing.T, d *otatest.Device) (ota.Result, error) {
	u, err := ota.Open(d.Context(), d.Options())
	if err != nil {
		require.False(t, d.Alive(), err)
		return ota.Result{}, err
	}
	res, err := u.Update(d.Context())
	_ = u.Close() // fails where the process is gone
	return res, err
}

// is says what the device's backend answers, against the two releases.
func is(t *testing.T, d *otatest.Device) string {
	a, err := d.Options().Backends["app"].Active(d.Context(), "app")
	require.NoError(t, err)
	one, two := digestOf("one"), digestOf("two")
	switch {
	case a.Is(two) && a.Next.IsZero(), a.Is(two) && a.Next == one:
		return "new"
	case a.Is(one) && a.Next == two:
		return "armed"
	case a.Is(one):
		return "old"
	}
	return string(a.State)
}

func digestOf(label string) release.Digest {
	r := otatest.NewRepo().Add(1, otatest.Healthy(), otatest.Content{Part: "app", Label: label})
	return r.Components[0].Digest()
}

// TestResumeTable leaves a device at every step of an update at which a row of
// the table applies, and checks what Resume makes of it.
func TestResumeTable(t *testing.T) {
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			start := bench(t, r.effect, otatest.Healthy())
			met := 0
			for n := 1; r.fault != ""; n++ {
				d := start.Clone()
				d.At(n, r.fault)
				update(t, d)
				if d.Alive() {
					break
				}
				if r.meets(t, d.Clone()) {
					met++
					r.check(t, d, n)
				}
			}
			if r.fault == "" {
				d := start.Clone()
				updateOnce(t, d)
				require.True(t, r.meets(t, d.Clone()))
				met++
				r.check(t, d, 0)
			}
			require.NotZero(t, met, "no step leaves a device like this")
		})
	}
}

// meets reports whether the device was left as r says.
func (r row) meets(t *testing.T, d *otatest.Device) bool {
	d.Restart() // boots where the power is off: "is" is what the next process finds
	u, err := ota.Open(d.Context(), d.Options())
	require.NoError(t, err)
	defer func() { require.NoError(t, u.Close()) }()
	s := u.Status()
	return s.State == r.state && (r.is == "" || r.is == is(t, d)) && (r.back == "" || r.back == back(t, d, s.Tx.Tx))
}

// back says whether the backend can still revert.
func back(t *testing.T, d *otatest.Device, tx ota.TxID) string {
	two := otatest.NewRepo().Add(1, otatest.Healthy(), otatest.Content{Part: "app", Label: "two"})
	can, err := d.Options().Backends["app"].(ota.Reverter).CanRevert(d.Context(), tx, two.Components[0])
	require.NoError(t, err)
	if can {
		return "can"
	}
	return "can not"
}

func (r row) check(t *testing.T, d *otatest.Device, n int) {
	if r.then != nil {
		r.then(d)
	}
	if r.stay {
		d.Restart()
	} else {
		d.Boot()
	}
	u, err := ota.Open(d.Context(), d.Options())
	require.NoError(t, err)
	res, err := u.Resume(d.Context())
	require.NoError(t, err, "step %d", n)
	require.Equal(t, r.want, res.State, "step %d: %v", n, res)
	require.Equal(t, r.needs, res.Needs, "step %d: %v", n, res)
	require.Equal(t, r.ends, is(t, d), "step %d: %v", n, res)
	require.Equal(t, r.held, len(u.Status().Held) == 1, "step %d: %v", n, u.Status())
	again, err := u.Resume(d.Context())
	require.NoError(t, err)
	if res.State != ota.Reverted && res.State != ota.Committed {
		require.Equal(t, res, again, "a second Resume changes nothing")
	} else {
		require.Equal(t, ota.Idle, again.State)
	}
	require.NoError(t, u.Close())
}
