//go:build linux && (amd64 || arm64)

package model

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/pawl-ota/pawl/internal/powercut"
	"github.com/pawl-ota/pawl/internal/powercut/check"
	"github.com/pawl-ota/pawl/internal/powercut/firmware"
	"github.com/pawl-ota/pawl/ota"
)

// A fact of the workloads of devices: that version is there to stay.
func stays(v check.Version) string { return fmt.Sprintf("stays %d", int(v)) }

// Devices are the ways of whole devices, as package powercut has them. scene
// is nil in a process that is recorded. After every so many states a good update
// has to go well too.
func Devices(scene *powercut.Scene, every int) []Workload {
	device := func(scene *powercut.Scene, name string, from check.Version, any ...check.Version) Workload {
		return device(scene, every, name, from, any...)
	}
	return []Workload{
		device(scene, "update", check.V1, check.V1, check.V2),
		device(scene, "first install", check.None, check.None, check.V2),
		device(scene, "rollback", check.V2, check.V2, check.V1),
		sick(device(scene, "failed trial", check.V1, check.V1, check.V2)),
	}
}

// device is a workload in which a device goes from one release to another.
func device(scene *powercut.Scene, every int, name string, from check.Version, any ...check.Version) Workload {
	to := any[1]
	verb, on := firmware.VerbUpdate, firmware.VerbUpdate
	if to < from {
		verb, on = firmware.VerbRollback, firmware.VerbFinish
	}
	return Workload{
		Name:      name,
		Prepare:   func(_ context.Context, disk string) error { return plant(scene, disk, from) },
		Processes: []Process{does("", verb)},
		Next:      []Process{does("next settles", firmware.VerbResume), does("next goes on", on)},
		Recover: func(ctx context.Context, disk string) error {
			_, err := powercut.Settle(ctx, powercut.InProcess, disk)
			return err
		},
		Check: func(ctx context.Context, disk string, facts []string, sample int) error {
			return settles(ctx, disk, any, facts, sample%every == 0)
		},
	}
}

// KilledDevices are those on which a process is killed at a moment that was bad once,
// or may be, and another one goes on.
func KilledDevices(scene *powercut.Scene, every int) []Workload {
	update := func(name string, at func(*History) bool, next int) Workload {
		return device(scene, every, name, check.V1, check.V1, check.V2).killed(at, next)
	}
	back := func(name string, at func(*History) bool) Workload {
		return device(scene, every, name, check.V2, check.V2, check.V1).killed(at, 0)
	}
	return []Workload{
		device(scene, every, "killed when it is new", check.None, check.None, check.V2).killed(made(1, Mkdir, "state/updates"), 1),
		update("killed when it begins", made(2, Rename, "state/updates/blobs/"), 1),
		update("killed while it stages", in("staging", ".pawl.app/tx/", 60), 0),
		update("killed before the boot", in("trial", "", 0), 0),
		update("killed while it switches", in("trial", ".pawl.sys/", 1), 0),
		update("killed while it commits", in("committing", "", 0), 0),
		sick(device(scene, every, "killed while it takes back", check.V1, check.V1, check.V2)).killed(made(1, Rename, ".pawl.app/trash/"), 0),
		back("killed while it keeps", made(1, Rename, ".pawl.sys/kept/")),
		back("killed while it drops", made(1, Rename, ".pawl.app/trash/")),
	}
}

// does is a process that runs a verb, and what follows.
func does(name, verb string) Process {
	return Process{Name: name, Run: func(ctx context.Context, disk string, fact func(string) error) error {
		return goes(ctx, disk, verb, fact)
	}}
}

// plant makes a device, which is a copy, and says beside it what its inodes were.
func plant(scene *powercut.Scene, disk string, v check.Version) error {
	if err := scene.CopyTo(disk, v); err != nil {
		return err
	}
	inodes, err := firmware.ReadInodes(disk)
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(disk, "inodes")); err != nil {
		return err
	}
	all, err := Scan(disk, nil)
	if err != nil {
		return err
	}
	x := &known{}
	for _, e := range all {
		x.all.Store(e.Ino, laid{e.Ident, inodes.See(e.Ident)})
	}
	return x.write(filepath.Join(filepath.Dir(disk), inodesName))
}

// goes runs a verb, and on after each boot that it asks for, until nothing is
// open. Then the device stays what it is; at the end it does what devices do every
// day.
func goes(ctx context.Context, disk, verb string, fact func(string) error) error {
	a := firmware.Run(ctx, disk, verb)
	for boots := 0; a.Code == firmware.ExitBoot; boots++ {
		if boots == 8 {
			return errors.New("the device does not stop to boot")
		}
		if a = firmware.Run(ctx, disk, firmware.VerbBoot); a.Code == firmware.ExitDone {
			a = firmware.Run(ctx, disk, firmware.VerbFinish)
		}
	}
	if a.Result.State == ota.Reverted {
		a.Code = firmware.ExitDone
	}
	if err := a.Err(); err != nil {
		return err
	}
	switch a.Result.State {
	case ota.Idle, ota.Committed, ota.Reverted:
		if err := fact(stays(check.Look(disk).Version())); err != nil {
			return err
		}
	}
	for _, verb := range []string{firmware.VerbBoot, firmware.VerbResume, firmware.VerbRefresh} {
		if err := firmware.Run(ctx, disk, verb).Err(); err != nil {
			return err
		}
	}
	return nil
}

// sick has the device's own check fail, until the checker makes it well again.
func sick(w Workload) Workload {
	w.Next[1] = does("next goes on", firmware.VerbFinish) // a release that was taken back is not to come again
	prepare := w.Prepare
	w.Prepare = func(ctx context.Context, disk string) error {
		if err := prepare(ctx, disk); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(disk, "health"), []byte("sick\n"), 0o644)
	}
	return w
}

// settles has the device come up, and checks it; and if goOn that the next change
// goes well, whichever way.
func settles(ctx context.Context, disk string, any []check.Version, facts []string, goOn bool) error {
	from := any[0]
	for _, v := range any {
		if slices.Contains(facts, stays(v)) {
			any = []check.Version{v}
		}
	}
	is, err := powercut.Settle(ctx, powercut.InProcess, disk, any...)
	if err == nil && is.State == ota.Idle {
		err = check.Tidy(disk) // micro.Files wiped, and the engine noted that nothing is owed
	}
	if err != nil || !goOn {
		return err
	}
	if err := os.WriteFile(filepath.Join(disk, "health"), []byte("ok\n"), 0o644); err != nil {
		return err
	}
	if is.State == ota.Idle && is.Version() == check.V2 && from != check.None {
		return powercut.Rollback(ctx, powercut.InProcess, disk)
	}
	return powercut.Update(ctx, powercut.InProcess, disk)
}
