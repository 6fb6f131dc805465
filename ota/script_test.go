package ota_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

// scripted returns a device that runs release 1 and is offered release 2, with
// a script at every point of both; n releases are there.
func scripted(t *testing.T, n int, h otatest.Health, parts ...otatest.Part) (*otatest.Device, []*release.Release) {
	repo := otatest.NewRepo()
	var list []*release.Release
	for seq := 1; seq <= n; seq++ {
		var contents []otatest.Content
		for _, p := range parts {
			contents = append(contents, otatest.Content{Part: p.Name, Label: fmt.Sprint(seq)})
		}
		health := otatest.Healthy()
		if seq == 2 {
			health = h
		}
		list = append(list, repo.AddScripted(uint64(seq), health, contents...))
	}
	d := otatest.NewDevice(repo, parts...)
	d.Offer(list[0])
	require.Equal(t, ota.Committed, update(t, d).State)
	d.Offer(list[1])
	return d, list
}

var (
	app   = otatest.Part{Name: "app", Effect: ota.Live}
	model = otatest.Part{Name: "model", Effect: ota.Live}
	base  = otatest.Part{Name: "base", Effect: ota.NeedsReboot}
)

// told is what happened on a device, in the order in which it did: verbs of
// backends, and scripts.
func told(d *otatest.Device) (all []string) {
	line := regexp.MustCompile(`^(?:\d+: begin ((?:undo )?script) \{2 (\S*) (\S+)\}|(Stage|Activate|Commit|Revert) (\S+)$)`)
	for _, l := range d.Trace() {
		m := line.FindStringSubmatch(strings.TrimSpace(l))
		switch {
		case m == nil:
		case m[4] != "":
			all = append(all, m[4]+" "+m[5])
		default:
			all = append(all, strings.TrimSpace(strings.TrimPrefix(m[1]+" "+m[3]+" "+m[2], "script ")))
		}
	}
	return all
}

// TestScriptsInTheirOrder compares with the order that SCRIPTS.md promises,
// forward and back.
func TestScriptsInTheirOrder(t *testing.T) {
	staged := []string{
		"before-stage", "before-stage app", "Stage app", "after-stage app", "before-stage base", "Stage base", "after-stage base",
		"after-stage", "before-activate", "before-activate base", "Activate base", // and the boot
		"after-activate base", "before-activate app", "Activate app", "after-activate app", "after-activate",
	}
	kept := []string{"before-commit", "before-commit base", "before-commit app", "Commit base", "Commit app",
		"after-commit base", "after-commit app", "after-commit"}
	back := []string{
		"undo script after-activate", "undo script after-activate app", "Revert app", "undo script before-activate app",
		"undo script after-activate base", "Revert base", "undo script before-activate base", "undo script before-activate",
		"undo script after-stage", "undo script after-stage base", "undo script before-stage base", "undo script after-stage app",
		"undo script before-stage app", "undo script before-stage", // and the boot
		"Revert app", "Revert base", "after-revert app", "after-revert base", "after-revert",
	}
	for name, c := range map[string]struct {
		health otatest.Health
		then   []string
	}{"kept": {otatest.Healthy(), kept}, "taken back": {otatest.Sick(), back}} {
		t.Run(name, func(t *testing.T) {
			d, _ := scripted(t, 2, c.health, app, base)
			d.Log = true
			update(t, d)
			require.Equal(t, append(append([]string(nil), staged...), c.then...), told(d))
			require.Empty(t, d.Broken())
		})
	}
}

// TestScriptCodes has each exit code at each point, in a script of the release
// and in one of a component.
func TestScriptCodes(t *testing.T) {
	const later, refused, failed = ota.ExitLater, ota.ExitRefuse, 3
	type end struct {
		err       error
		state     ota.State
		condemned bool
	}
	back, never := end{ota.ErrScript, ota.Reverted, false}, end{ota.ErrRefused, ota.Reverted, true}
	noted := end{nil, ota.Committed, false}
	waits := func(s ota.State) end { return end{ota.ErrLater, s, false} }
	for _, c := range []struct {
		at                      release.Point
		fails, refuses, release end // release: asks for later, in one of the release
		component               end // asks for later, in one of a component
	}{
		{release.BeforeStage, back, never, waits(ota.Staging), waits(ota.Staging)},
		{release.AfterStage, back, never, waits(ota.Staging), waits(ota.Staging)},
		{release.BeforeActivate, back, never, waits(ota.Staged), back},
		{release.AfterActivate, back, never, back, back},
		{release.BeforeCommit, end{ota.ErrScript, ota.Reverted, true}, never, noted, noted},
		{release.AfterCommit, noted, noted, noted, noted},
	} {
		for component, asks := range map[string]end{"": c.release, "app": c.component} {
			for code, want := range map[int]end{failed: c.fails, refused: c.refuses, later: asks} {
				t.Run(fmt.Sprintf("%s/%s/%d", c.at, component, code), func(t *testing.T) {
					d, _ := scripted(t, 2, otatest.Healthy(), app, model)
					d.ScriptExits(otatest.Script{Seq: 2, Component: component, At: c.at}, code)
					u := opened(t, d)
					res, err := u.Update(t.Context())
					require.ErrorIs(t, err, want.err)
					require.Equal(t, want.state, res.State, "%v", res)
					require.Equal(t, want.condemned, res.Condemned)
					if want.err != nil {
						require.Contains(t, err.Error(), fmt.Sprintf("%s script script: ", c.at))
						require.Contains(t, err.Error(), fmt.Sprintf("exit code %d", code))
					}
					if want.state == ota.Reverted {
						require.Equal(t, fmt.Sprintf("exit code %d", code), first(res.Scripts, c.at, component).Why)
						require.NotEmpty(t, u.History()[1].Scripts, "the history does not say which script it was")
					}
					require.Empty(t, d.Broken())
					if want.err == ota.ErrLater {
						require.NoError(t, u.Close())
						d.Restart()
						u = opened(t, d)
						s := first(u.Status().Tx.Scripts, c.at, component)
						require.Equal(t, ota.ScriptLater, s.Outcome, "the next process does not know why it waits")
						res, err = u.Update(t.Context())
						require.NoError(t, err)
						require.Equal(t, ota.Committed, res.State)
						require.Equal(t, 2, first(res.Scripts, c.at, component).Tries)
					}
				})
			}
		}
	}
}

func first(runs []ota.ScriptRun, at release.Point, component string) ota.ScriptRun {
	for _, r := range runs {
		if r.At == at && r.Component == component {
			return r
		}
	}
	return ota.ScriptRun{}
}

// TestLaterForEver asks for another time before the commit until the deadline
// of the trial ends that.
func TestLaterForEver(t *testing.T) {
	d, _ := scripted(t, 2, otatest.Healthy(), app)
	codes := make([]int, 1000)
	for i := range codes {
		codes[i] = ota.ExitLater
	}
	d.ScriptExits(otatest.Script{Seq: 2, At: release.BeforeCommit}, codes...)
	u := opened(t, d)
	res, err := u.Update(t.Context())
	require.ErrorIs(t, err, ota.ErrUnhealthy)
	require.Contains(t, err.Error(), "not committed within 10m0s")
	require.Equal(t, ota.Reverted, res.State)
	require.False(t, res.Condemned, "nothing failed")
	require.Less(t, first(res.Scripts, release.BeforeCommit, "").Tries, 40, "it was asked in every interval")
	require.Zero(t, d.Resets(), "the watchdog starved")
}

// TestScriptThatCutsThePower runs a script that ends every boot.
func TestScriptThatCutsThePower(t *testing.T) {
	for _, c := range []struct {
		at   release.Point
		cuts int // what the script is allowed
		want string
	}{
		{release.BeforeStage, 3, "reverted"}, {release.AfterCommit, 3, "committed"}, {release.BeforeCommit, 3, "reverted"},
		{release.BeforeActivate, 3, "reverted"}, // although it is undone after each of them
	} {
		t.Run(string(c.at), func(t *testing.T) {
			d, _ := scripted(t, 2, otatest.Healthy(), app)
			cuts := 0
			for range 20 {
				if !d.Up() {
					d.Boot()
				}
				o := d.Options()
				o.Progress = func(p ota.Progress) {
					if p.Step == "script" && p.Script.At == c.at && p.Script.Component == "" && p.Script.Outcome == ota.ScriptBegun {
						cuts++
						d.At(2, otatest.PowerCut) // when it has begun, before it ends
					}
				}
				u, err := ota.Open(d.Context(), o)
				require.NoError(t, err)
				_, err = u.Resume(d.Context())
				if err == nil {
					_, _ = u.Update(d.Context())
				}
				if d.Up() {
					h := u.History()
					require.Equal(t, c.want, string(h[len(h)-1].State))
					require.Equal(t, c.cuts, cuts)
					require.Contains(t, fmt.Sprint(h[len(h)-1].Scripts), "it was cut short 3 times")
					return
				}
			}
			t.Fatal("the script cuts the power for ever")
		})
	}
}

// TestUndoThatCutsThePower ends every boot in the undo of one script. The
// device comes up all the same, and says why it is stuck.
func TestUndoThatCutsThePower(t *testing.T) {
	d, _ := scripted(t, 2, otatest.Sick(), app)
	cuts := 0
	for range 20 {
		if !d.Up() {
			d.Boot()
		}
		o := d.Options()
		o.Progress = func(p ota.Progress) {
			if p.Step == "undo" && p.Script.At == release.BeforeStage && p.Script.Component == "" && p.Script.Undo == ota.ScriptOK {
				cuts++
				d.At(1, otatest.PowerCut) // before that it ended is recorded
			}
		}
		u, err := ota.Open(d.Context(), o)
		require.NoError(t, err)
		if _, err = u.Resume(d.Context()); err == nil {
			_, err = u.Update(d.Context())
		}
		if d.Up() {
			require.ErrorIs(t, err, ota.ErrStuck)
			require.Contains(t, err.Error(), "its undo failed was cut short 3 times")
			require.Equal(t, 3, cuts)
			return
		}
	}
	t.Fatal("the undo cuts the power for ever")
}

// TestCutsBesideScripts has the power go again and again in what a component does
// between scripts, which may take hours: no script is to blame for that.
func TestCutsBesideScripts(t *testing.T) {
	for _, c := range []struct {
		step   string
		health otatest.Health
		want   ota.State
	}{
		{"stage", otatest.Healthy(), ota.Committed}, {"commit", otatest.Healthy(), ota.Committed}, {"revert", otatest.Sick(), ota.Reverted},
	} {
		t.Run(c.step, func(t *testing.T) {
			d, _ := scripted(t, 2, c.health, app)
			cuts := 0
			for range 20 {
				if !d.Up() {
					d.Boot()
				}
				o := d.Options()
				o.Progress = func(p ota.Progress) {
					if p.Step == c.step && p.Component == "app" && cuts < 6 {
						cuts++
						d.At(1, otatest.PowerCut)
					}
				}
				u, err := ota.Open(d.Context(), o)
				require.NoError(t, err)
				if _, err = u.Resume(d.Context()); err == nil {
					_, _ = u.Update(d.Context())
				}
				if d.Up() {
					h := u.History()
					last := h[len(h)-1]
					require.Equal(t, c.want, last.State, "%v", last)
					require.NotContains(t, fmt.Sprint(last.Scripts), "cut short")
					require.Equal(t, 6, cuts)
					return
				}
			}
			t.Fatal("there is no end")
		})
	}
}

// TestUndoFails leaves everything else as it was, says so, and ends when the
// undo succeeds.
func TestUndoFails(t *testing.T) {
	d, list := scripted(t, 3, otatest.Sick(), app, model)
	broken := otatest.Script{Seq: 2, Component: "app", At: release.AfterActivate}
	d.UndoExits(broken, 1, 1, 1)
	u := opened(t, d)
	res, err := u.Update(t.Context())
	require.ErrorIs(t, err, ota.ErrStuck)
	require.Equal(t, ota.Stuck, res.State)
	require.Contains(t, res.Reason, "not healthy")
	require.Contains(t, res.Reason, "app: after-activate script script: ok, its undo failed exit code 1")
	require.Equal(t, map[otatest.Script]otatest.ScriptState{broken: otatest.ScriptHalf}, d.Scripts(2), "another undo was left out")
	for _, p := range []string{"app", "model"} {
		require.Equal(t, otatest.Content{Part: p, Label: "1"}.Files(), d.Runs(p), "a file was not taken back")
	}

	d.Wait(time.Hour)
	res, err = u.Resume(t.Context())
	require.NoError(t, err)
	require.Equal(t, ota.Reverted, res.State)
	require.Equal(t, otatest.ScriptDone, d.Scripts(2)[otatest.Script{Seq: 2, At: release.AfterRevert}])
	require.Empty(t, d.Scripts(2)[broken])

	d.Offer(list[2])
	res, err = u.Update(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(3), res.To.Seq)
}

// TestUndoFailsForEver is got out of by a newer release.
func TestUndoFailsForEver(t *testing.T) {
	d, list := scripted(t, 3, otatest.Sick(), app)
	codes := make([]int, 100)
	for i := range codes {
		codes[i] = 1
	}
	d.UndoExits(otatest.Script{Seq: 2, At: release.BeforeStage}, codes...)
	u := opened(t, d)
	_, err := u.Update(t.Context())
	require.ErrorIs(t, err, ota.ErrStuck)
	d.Offer(list[2])
	res, err := u.Update(t.Context())
	require.NoError(t, err)
	require.Equal(t, ota.Committed, res.State)
	require.Equal(t, uint64(3), u.Status().Running.Seq)
}

// TestScriptsAreHereForTheWayBack goes back offline, with the scripts of the
// release that was kept.
func TestScriptsAreHereForTheWayBack(t *testing.T) {
	d, _ := scripted(t, 2, otatest.Healthy(), app)
	require.Equal(t, ota.Committed, update(t, d).State)
	d.Offline(true)
	d.Log = true
	u := opened(t, d)
	res, err := u.Rollback(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, uint64(1), res.To.Seq)
	require.Len(t, res.Scripts, 12, "not every script of the kept release ran")
	for _, s := range res.Scripts {
		require.Equal(t, ota.ScriptOK, s.Outcome)
	}
}

// TestWatchdogOnTheWayBack refuses a way back whose scripts the watchdog would
// bite in, before anything began.
func TestWatchdogOnTheWayBack(t *testing.T) {
	d, _ := scripted(t, 2, otatest.Healthy(), app)
	require.Equal(t, ota.Committed, update(t, d).State)
	u := opened(t, d, func(o *ota.Options) {
		o.WatchdogTimeout = 34 * time.Second
		o.Trial.Interval = time.Second
	})
	_, err := u.Rollback(t.Context(), 0)
	require.ErrorIs(t, err, ota.ErrWatchdog)
	require.Equal(t, ota.Idle, u.Status().State)
}

// TestWatchdogIsLongerThanScripts refuses a release whose scripts it would
// bite in, before anything began.
func TestWatchdogIsLongerThanScripts(t *testing.T) {
	d, list := scripted(t, 2, otatest.Healthy(), app)
	u := opened(t, d, func(o *ota.Options) {
		o.WatchdogTimeout = 34 * time.Second // less than 30 s and the grace
		o.Trial.Interval = time.Second
	})
	_, err := u.Begin(t.Context(), list[1])
	require.ErrorIs(t, err, ota.ErrWatchdog)
	require.Contains(t, err.Error(), "may take 30s, and 5s to end; the watchdog bites after 34s")

	unsaid := *list[1]
	unsaid.Scripts = slices.Clone(unsaid.Scripts)
	for i := range unsaid.Scripts {
		unsaid.Scripts[i].Limit = 0
	}
	unsaid.Components = slices.Clone(unsaid.Components)
	unsaid.Components[0].Scripts = nil
	_, err = u.Begin(t.Context(), &unsaid)
	require.ErrorIs(t, err, ota.ErrWatchdog, "30s is also what a script has that does not say")
}

// TestStageCancelledInScript leaves the transaction open and blames nobody.
func TestStageCancelledInScript(t *testing.T) {
	d, _ := scripted(t, 2, otatest.Healthy(), app)
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		u := opened(t, d, func(o *ota.Options) {
			o.Progress = func(p ota.Progress) {
				if p.Step == "script" {
					cancel()
				}
			}
		})
		res, err := u.Update(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, ota.Staging, res.State)
		require.NoError(t, u.Close())
		d.Restart()
	}
	require.Equal(t, ota.Committed, update(t, d).State)
}

// TestWatchdogRestsWhileStaged ends the updater in a script for which the
// watchdog was armed, and has Resume leave the release staged: from then on
// nobody feeds.
func TestWatchdogRestsWhileStaged(t *testing.T) {
	d, _ := scripted(t, 2, otatest.Healthy(), app)
	o := d.Options()
	o.Progress = func(p ota.Progress) {
		if p.Step == "script" && p.Script.At == release.BeforeActivate && p.Script.Outcome == ota.ScriptBegun {
			d.At(2, otatest.Kill)
		}
	}
	u, err := ota.Open(d.Context(), o)
	require.NoError(t, err)
	_, err = u.Resume(d.Context())
	require.NoError(t, err)
	_, err = u.Update(d.Context())
	require.Error(t, err)
	require.True(t, d.Up())
	require.False(t, d.Alive())
	d.Restart()
	u = opened(t, d)
	require.Equal(t, ota.Staged, u.Status().State)
	d.Wait(time.Hour)
	require.Zero(t, d.Resets())
}
