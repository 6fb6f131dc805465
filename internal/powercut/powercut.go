// Package powercut is what all campaigns of power cuts, kills and errors work
// on: a device with three components and two releases for it (see packages
// firmware and check), what a device does after the power came back, and what
// must hold then.
//
//	s := powercut.New(t)             // v1 and v2, published; devices with nothing, v1, v2
//	s.Copy(dir, check.V1)            // a device in dir, with v1 on it
//	…                                // update, and cut the power
//	_, err := powercut.Settle(ctx, powercut.InProcess, dir)
//	err = powercut.Update(ctx, powercut.InProcess, dir)
//
// A device is used by [firmware.Run] in this process, or as the program that
// [Program] builds.
package powercut

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"

	"github.com/pawl-ota/pawl/internal/powercut/check"
	"github.com/pawl-ota/pawl/internal/powercut/firmware"
	"github.com/pawl-ota/pawl/ota"
)

// Run runs one verb on the device in dir, in whatever way.
type Run func(ctx context.Context, dir, verb string) firmware.Answer

// InProcess runs verbs in this process.
func InProcess(ctx context.Context, dir, verb string) firmware.Answer {
	return firmware.Run(ctx, dir, verb)
}

// Process runs verbs by the program of package device.
func Process(program string) Run {
	return func(ctx context.Context, dir, verb string) (a firmware.Answer) {
		cmd := exec.CommandContext(ctx, program, "-dir", dir, verb)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		if jsonErr := json.Unmarshal(stdout.Bytes(), &a); jsonErr != nil {
			return firmware.Answer{Code: firmware.ExitError, Error: fmt.Sprintf("%s %s: %v: %s", program, verb, err, stderr.String())}
		}
		return a
	}
}

// maxBoots is how many boots a device may ask for, one after the other.
const maxBoots = 8

// Settled is how a device is after the power came back.
type Settled struct {
	check.Found
	State ota.State // idle, or of the transaction that is still open
	Boots int
}

// Settle is what happens on the device in dir after the power came back, or
// the process was killed: it boots, and Resume runs, again after each boot that
// it asked for. Then the device is checked. It must be exactly one of the
// releases want, of any where want is empty. An error that wraps
// [check.ErrViolation] says what is broken.
func Settle(ctx context.Context, run Run, dir string, want ...check.Version) (Settled, error) {
	a, boots, err := drive(ctx, run, dir, firmware.VerbResume)
	s := Settled{State: a.Result.State, Boots: boots}
	if err != nil {
		return s, err
	}
	s.Found, err = check.Device(dir, want...)
	if err != nil {
		err = fmt.Errorf("after Resume (%s): %w", a.Result, err)
	}
	return s, err
}

// drive boots and runs verb until it asks for no boot any more.
func drive(ctx context.Context, run Run, dir, verb string) (a firmware.Answer, boots int, err error) {
	for boots = 1; boots <= maxBoots; boots++ {
		if a = run(ctx, dir, firmware.VerbBoot); a.Code != firmware.ExitDone {
			return a, boots, violation("boot", a)
		}
		if a = run(ctx, dir, verb); a.Code == firmware.ExitDone {
			return a, boots, nil
		}
		if a.Code != firmware.ExitBoot {
			return a, boots, violation(verb, a)
		}
	}
	return a, boots, fmt.Errorf("%w: %s asked for %d boots: %s", check.ErrViolation, verb, maxBoots, a.Error)
}

func violation(verb string, a firmware.Answer) error {
	return fmt.Errorf("%w: %s: %s", check.ErrViolation, verb, a.Error)
}

// Update takes a device that was settled to v2, however it was before, with the
// boots that it needs, and checks that nothing but v2 is there.
func Update(ctx context.Context, run Run, dir string) error {
	return take(ctx, run, dir, firmware.VerbRetry, firmware.VerbRetry, check.V2)
}

// Rollback takes a device that runs v2, and has kept v1, back to v1.
func Rollback(ctx context.Context, run Run, dir string) error {
	return take(ctx, run, dir, firmware.VerbRollback, firmware.VerbFinish, check.V1)
}

// take runs first, and then, after each boot that it asked for, on.
func take(ctx context.Context, run Run, dir, first, on string, want check.Version) error {
	a := run(ctx, dir, first)
	if a.Code == firmware.ExitBoot {
		var err error
		if a, _, err = drive(ctx, run, dir, on); err != nil {
			return err
		}
	}
	if a.Code != firmware.ExitDone {
		return violation(first, a)
	}
	if _, err := check.Device(dir, want); err != nil {
		return fmt.Errorf("after %s (%s): %w", first, a.Result, err)
	}
	return check.Tidy(dir)
}
