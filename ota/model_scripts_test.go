package ota_test

import (
	"fmt"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

// withScripts are the scenarios in which every point has a script.
func withScripts() (list []scenario) {
	one := effects(ota.Live)
	mixed := effects(ota.Live, ota.NeedsRestart, ota.NeedsReboot)
	for _, parts := range [][]otatest.Part{one, mixed} {
		name := fmt.Sprintf("scripts/%d parts", len(parts))
		ends := func(p release.Point, codes ...int) map[otatest.Script][]int {
			return map[otatest.Script][]int{{Seq: 2, At: p}: codes, {Seq: 2, Component: parts[0].Name, At: p}: codes}
		}
		list = append(list,
			scenario{name: name, parts: parts, health: otatest.Healthy(), from: 1, want: 2, may: []int{2}},
			scenario{name: name + "/sick", parts: parts, health: otatest.Sick(), from: 1, want: 1, may: []int{1}},
			scenario{name: name + "/revert fails", parts: parts, health: otatest.Sick(), from: 1, want: 1, may: []int{1},
				prepare: func(d *otatest.Device) { d.FailVerb("Revert", parts[0].Name, 7) }},
			scenario{name: name + "/undo fails", parts: parts, health: otatest.Sick(), from: 1, want: 1, may: []int{1},
				prepare: func(d *otatest.Device) {
					d.UndoExits(otatest.Script{Seq: 2, At: release.AfterActivate}, 1, 1, 1, 1)
					d.UndoExits(otatest.Script{Seq: 2, Component: parts[0].Name, At: release.BeforeActivate}, 1, 1, 1, 1)
				}},
			scenario{name: name + "/way back", parts: parts, health: otatest.Healthy(), drive: byRollback, from: 2, want: 1, may: []int{1}},
			scenario{name: name + "/by hand", parts: parts, health: otatest.Healthy(), drive: byHand, from: 1, want: 1, may: []int{1}},
			scenario{name: name + "/later", parts: parts, health: otatest.Healthy(), from: 1, want: 2, may: []int{1, 2},
				exits: map[otatest.Script][]int{
					{Seq: 2, At: release.BeforeStage}:    {ota.ExitLater, ota.ExitLater},
					{Seq: 2, At: release.BeforeActivate}: {ota.ExitLater, ota.ExitLater},
					{Seq: 2, At: release.BeforeCommit}:   {ota.ExitLater, ota.ExitLater},
				}},
			scenario{name: name + "/refused", parts: parts, health: otatest.Healthy(), from: 1, want: 1, may: []int{1, 2},
				exits: ends(release.AfterActivate, ota.ExitRefuse)},
			scenario{name: name + "/last word", parts: parts, health: otatest.Healthy(), from: 1, want: 1, may: []int{1, 2},
				exits: ends(release.BeforeCommit, 1)},
			scenario{name: name + "/fails once", parts: parts, health: otatest.Healthy(), from: 1, want: 2, may: []int{2},
				exits: ends(release.BeforeActivate, 1)},
			scenario{name: name + "/fails for good", parts: parts, health: otatest.Healthy(), from: 1, want: 2, may: []int{2},
				exits: ends(release.AfterCommit, 1, 1, 1, 1, 1)},
		)
	}
	for i := range list {
		list[i].scripts = true
	}
	return list
}

// stoodDown checks that a transaction that Resume left staged has nothing of
// the scripts that come right before it is activated.
func (r *run) stoodDown(u *ota.Updater) error {
	tx := u.Tx()
	if tx == nil || tx.State() != ota.Staged || tx.Result().Back {
		return nil // of a way back they ran when it was installed
	}
	for s, state := range r.device.Scripts(tx.Release().Seq) {
		if s.At == release.BeforeActivate {
			return fmt.Errorf("it is staged, and %v is %s", s, state)
		}
	}
	return nil
}

// scriptsAt checks what scripts did to a device that runs the release seq and
// rests: those of seq ran to their ends, and those of a release that was taken
// back are undone.
func (r *run) scriptsAt(seq int) error {
	if !r.scripts || r.torn {
		return nil
	}
	for other := r.from + 1; other < len(r.world.releases); other++ {
		if other == seq {
			continue
		}
		for s, state := range r.device.Scripts(uint64(other)) {
			if s.At != release.AfterRevert {
				return fmt.Errorf("release %d runs, and %v of another is %s", seq, s, state)
			}
		}
	}
	if seq <= r.from && r.drive == nil {
		return nil
	}
	found := r.device.Scripts(uint64(seq))
	for _, at := range []release.Point{release.BeforeStage, release.AfterStage, release.BeforeActivate,
		release.AfterActivate, release.BeforeCommit, release.AfterCommit} {
		s := otatest.Script{Seq: uint64(seq), At: at}
		if len(r.exits[s]) > 2 && at == release.AfterCommit {
			continue // it never succeeds
		}
		if found[s] != otatest.ScriptDone {
			return fmt.Errorf("release %d runs, and %v is %q", seq, s, found[s])
		}
	}
	return nil
}
