package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// waiting is the body of a script that waits for ever with a child, until a
// person lets the next run go on.
const waiting = "[ -e $d/goon ] || { echo $$ >>$d/pids; sleep 1000 & echo $! >>$d/pids; touch $d/waits; wait; }"

// TestPowerGoesInAScript kills the agent while a script runs, at each point.
// The script lives on. Resume ends it, undoes what it may have done, and leaves
// the device exactly old, or new where it was on trial or committed; the next
// update goes all the way.
func TestPowerGoesInAScript(t *testing.T) {
	t.Parallel()
	m := newScriptMaker(t)
	for i, c := range []struct {
		at        release.Point
		component bool
		sick      bool // the release is taken back by its health
		inUndo    bool // it is the undo that waits
		resumed   string
		state     ota.State
		updated   string // what the next update runs; "-": there is none to do
	}{
		{at: release.BeforeStage, resumed: "first x", state: ota.Staging, updated: "x ready done"},
		{at: release.BeforeStage, component: true, resumed: "first x", state: ota.Staging, updated: "x ready done"},
		{at: release.AfterStage, resumed: "first x", state: ota.Staging, updated: "x ready done"},
		{at: release.BeforeActivate, resumed: "first x x-undo", state: ota.Staged, updated: "x ready done"},
		{at: release.BeforeActivate, component: true, resumed: backReady, state: ota.Idle, updated: "first ready x done"},
		{at: release.AfterActivate, component: true, resumed: backReady, state: ota.Idle, updated: "first ready x done"},
		{at: release.AfterActivate, resumed: backReady, state: ota.Idle, updated: "first ready x done"},
		{at: release.BeforeCommit, resumed: "first ready x", state: ota.InTrial, updated: "x done"},
		{at: release.AfterCommit, resumed: "first ready done x x", state: ota.Idle, updated: "-"},
		{at: release.AfterRevert, sick: true, resumed: "first ready ready-undo first-undo told x x", state: ota.Idle, updated: "first ready done"},
		{at: release.AfterActivate, inUndo: true, resumed: "first ready x x-undo x-undo ready-undo first-undo told", state: ota.Idle, updated: "first ready x done"},
	} {
		name := string(c.at)
		if c.component {
			name += " of app"
		}
		if c.inUndo {
			name += ", in the undo"
		}
		for j, layout := range []string{"tree", "inplace"} {
			if i%2 != j && os.Getenv("PAWL_CRASH") != "long" {
				continue
			}
			t.Run(name+"/"+layout, func(t *testing.T) {
				t.Parallel()
				f := newScripted(t, m, layout)
				x := script{name: "x", at: c.at, component: c.component, run: waiting, undo: "true"}
				switch {
				case c.inUndo:
					x.run, x.undo = "[ -e $d/good ]", waiting
				case !c.at.HasUndo():
					x.undo = ""
				}
				if c.sick {
					write(t, f.dir, "sick", "", 0o644)
				}
				f.m.release("1.1.0", f.v2, f.scripts(append(bystanders(), x)...)...)
				pids := f.cut("update")
				f.told("script x", "is running, or was cut short")
				for _, name := range []string{"goon", "good"} {
					write(t, f.dir, name, "", 0o644)
				}

				f.must(0, "resume")
				f.gone(pids...)
				require.Equal(t, c.resumed, f.log())
				f.stateIs(c.state)
				tree := f.v1
				if c.state == ota.InTrial || c.at == release.AfterCommit {
					tree = f.v2
				}
				requireSame(t, pictureOf(t, tree), pictureOf(t, f.app))
				f.must(0, "resume")
				require.Equal(t, c.resumed, f.log(), "a second Resume did something")

				require.NoError(t, os.RemoveAll(f.dir+"/sick"))
				f.must(0, "update", "-retry") // the sick one is held back
				require.Equal(t, strings.TrimSuffix(c.resumed+" "+c.updated, " -"), f.log())
				f.is(f.v2)
			})
		}
	}
}

// TestScriptThatCutsThePower has the power go each time that the script runs:
// after three times it is not tried a fourth time.
func TestScriptThatCutsThePower(t *testing.T) {
	t.Parallel()
	f := newScripted(t, newScriptMaker(t), "inplace")
	x := script{name: "x", at: release.BeforeStage, run: waiting, undo: "true"}
	f.m.release("1.1.0", f.v2, f.scripts(append(bystanders(), x)...)...)
	var pids []int
	for range 3 {
		pids = f.cut("update")
	}
	a := f.must(10, "update")
	require.Contains(t, a.Error, "cut short 3 times")
	f.told("cut short 3 times")
	f.gone(pids...)
	require.Equal(t, "first x x x x-undo first-undo told", f.log())
	f.is(f.v1)
}
