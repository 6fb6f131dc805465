package ota_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
)

// The table in ARCHITECTURE.md that says what happens when the power goes is
// what the engine did when it went: after each step of an update and of a way
// back, in a new process of the same boot and in a new boot.

// powerCase is one way that a device goes.
type powerCase struct {
	verb   string
	states []string // that the table shows of it
	scenario
}

func powerCases() []powerCase {
	const nothing, staging, staged, activating, trial, committing, committed, reverting, reverted, stuck = "nothing open",
		string(ota.Staging), string(ota.Staged), string(ota.Activating), string(ota.InTrial),
		string(ota.Committing), string(ota.Committed), string(ota.Reverting), string(ota.Reverted), string(ota.Stuck)
	mixed, apps := effects(ota.Live, ota.NeedsRestart, ota.NeedsReboot), effects(ota.Live, ota.NeedsRestart)
	healthy, may := otatest.Healthy(), []int{1, 2}
	return []powerCase{
		{"update", []string{nothing, staging, staged, activating, trial, committing, committed},
			scenario{parts: mixed, health: healthy, from: 1, want: 2, may: may}},
		{"update that no component needs a reboot for", []string{activating, trial, committing},
			scenario{parts: apps, health: healthy, from: 1, want: 2, may: may}},
		{"update whose trial fails", []string{reverting, reverted},
			scenario{parts: mixed, health: otatest.Sick(), from: 1, want: 1, may: may}},
		{"update whose trial and way back fail", []string{stuck},
			scenario{parts: mixed, health: otatest.Sick(), from: 1, want: 1, endless: true, torn: true,
				prepare: func(d *otatest.Device) { d.FailVerb("Revert", mixed[0].Name, forEver) }}},
		{"rollback of a committed release", []string{nothing, staging, staged, activating, trial, committing, committed},
			scenario{parts: mixed, health: healthy, drive: byRollback, from: 2, want: 1, may: may}},
	}
}

// powerRow is where a device was left; powerCell what became of it.
type powerRow struct{ verb, state, boot string }

type powerCell struct {
	cuts                      int
	answers, runs, then, left map[string]bool
}

// TestPowerTable cuts the power and kills the process after every step, and
// compares what became of it with the table.
func TestPowerTable(t *testing.T) {
	rows := map[powerRow]*powerCell{}
	for _, c := range powerCases() {
		w := newWorld(t, c.scenario)
		for n, over := 1, false; !over; n++ {
			for _, f := range []otatest.Fault{otatest.PowerCut, otatest.Kill} {
				var d *otatest.Device
				if d, over = leftAt(t, c, w, fault{n, f}); over {
					d.Cut(f)
				}
				observe(t, c, w, d, rows)
			}
		}
	}
	const file, begin, end = "../ARCHITECTURE.md", "<!-- power: written by go test -run TestPowerTable ./ota with PAWL_UPDATE=1 -->\n", "<!-- end of power -->"
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	head, rest, ok := strings.Cut(string(data), begin)
	old, tail, ok2 := strings.Cut(rest, end)
	require.True(t, ok && ok2, "%s has no place for the table", file)
	table := powerTable(rows)
	if os.Getenv("PAWL_UPDATE") == "1" {
		require.NoError(t, os.WriteFile(file, []byte(head+begin+table+end+tail), 0o644))
		return
	}
	require.Equal(t, table, old, "%s is stale: run this with PAWL_UPDATE=1", file)
}

// leftAt returns the device right after the fault, or when it came to rest
// before.
func leftAt(t *testing.T, c powerCase, w *world, f fault) (d *otatest.Device, over bool) {
	t.Helper()
	r := newRun(c.scenario, w, w.device)
	r.device.At(f.n, f.what)
	for range maxLives {
		done, err := r.life()
		if r.device.Faults() > 0 {
			return r.device, false
		}
		require.NoError(t, err)
		if done {
			return r.device, true
		}
	}
	t.Fatal("the device does not come to rest")
	return nil, false
}

// observe notes what becomes of the device that was left.
func observe(t *testing.T, c powerCase, w *world, d *otatest.Device, rows map[powerRow]*powerCell) {
	t.Helper()
	row := powerRow{c.verb, "", "same"}
	if d.Up() {
		d.Restart()
	} else {
		row.boot = "other"
		d.Boot()
	}
	for _, p := range c.parts { // what kept it from going back is over
		d.FailVerb("Revert", p.Name, 0)
	}
	u, err := ota.Open(d.Context(), d.Options())
	require.NoError(t, err)
	row.state = recorded(c, u)
	cell := rows[row]
	if cell == nil {
		cell = &powerCell{answers: map[string]bool{}, runs: map[string]bool{}, then: map[string]bool{}, left: map[string]bool{}}
		rows[row] = cell
	}
	cell.cuts++
	res, err := u.Resume(d.Context())
	require.NoError(t, err)
	cell.answers[answer(res)] = true
	for boots := 0; res.Needs == ota.NeedsReboot || res.Needs == ota.NeedsRestart; boots++ {
		require.Less(t, boots, 8)
		require.NoError(t, u.Close())
		if res.Needs == ota.NeedsReboot {
			d.Boot()
		} else {
			d.Restart()
		}
		u, err = ota.Open(d.Context(), d.Options())
		require.NoError(t, err)
		res, err = u.Resume(d.Context())
		require.NoError(t, err)
	}
	seqs, seen := w.runs(d.Runs)
	require.Len(t, seqs, 1, "after Resume every part is of one release: %s", seen)
	cell.runs[map[bool]string{true: "old", false: "new"}[seqs[0] == c.from]] = true
	cell.goOn(t, c, w, d, u)
	require.NoError(t, u.Close())
}

// recorded is the state that the journal has, with a word of its own for what
// ended.
func recorded(c powerCase, u *ota.Updater) string {
	s := u.Status()
	history := u.History()
	switch {
	case s.State != ota.Idle:
		return string(s.State)
	case int(s.Running.Seq) != c.from:
		return string(ota.Committed)
	case len(history) > 0 && history[len(history)-1].State == ota.Reverted:
		return string(ota.Reverted)
	}
	return "nothing open"
}

func answer(r ota.Result) string {
	if r.Needs == ota.NeedsReboot || r.Needs == ota.NeedsRestart {
		return fmt.Sprintf("%s, wants a %s", r.State, r.Needs)
	}
	return string(r.State)
}

// goOn notes what is open once the device is settled, and whether it can be
// brought to its end without a network.
func (cell *powerCell) goOn(t *testing.T, c powerCase, w *world, d *otatest.Device, u *ota.Updater) {
	t.Helper()
	tx := u.Tx()
	if tx == nil {
		cell.then["nothing is open"] = true
		cell.left["nothing"] = true
		return
	}
	cell.then[string(tx.State())+" goes on"] = true
	alone := d.Clone()
	alone.Offline(true)
	alone.Restart()
	r := newRun(c.scenario, w, alone)
	r.endless, r.may, r.torn = true, nil, true
	r.drive = func(r *run, u *ota.Updater) (bool, ota.Result, error) {
		tx := u.Tx()
		if tx == nil {
			return true, ota.Result{}, nil
		}
		err := steps(r, tx)
		return false, tx.Result(), err
	}
	if err := r.live(); err != nil {
		require.ErrorContains(t, err, "offline")
		cell.left["what had not arrived"] = true
		return
	}
	cell.left["nothing"] = true
}

func powerTable(rows map[powerRow]*powerCell) string {
	var b strings.Builder
	b.WriteString("| verb | recorded | boot | cuts | `Resume` answers | every component is | then | fetched again |\n|--|--|--|--|--|--|--|--|\n")
	for _, c := range powerCases() {
		for _, state := range c.states {
			for _, boot := range []string{"same", "other"} {
				cell := rows[powerRow{c.verb, state, boot}]
				if cell == nil {
					fmt.Fprintf(&b, "| %s | %s | %s | never seen |\n", c.verb, state, boot)
					continue
				}
				fmt.Fprintf(&b, "| %s | %s | %s | %d | %s | %s | %s | %s |\n", c.verb, state, boot, cell.cuts,
					words(cell.answers), words(cell.runs), words(cell.then), words(cell.left))
			}
		}
	}
	return b.String()
}

func words(set map[string]bool) string {
	var all []string
	for w := range set {
		all = append(all, w)
	}
	slices.Sort(all)
	return strings.Join(all, "; or ")
}
