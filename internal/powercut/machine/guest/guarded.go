package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/powercut/firmware"
	"github.com/pawl-ota/pawl/internal/powercut/machine"
	"github.com/pawl-ota/pawl/monitor/device"
	"github.com/pawl-ota/pawl/monitor/watchdog"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
)

const (
	timeout = 10 * time.Second // of the watchdog
	during  = 45 * time.Second // in an update: a script may take 35 s
	role    = "PAWL_ROLE"      // of a process that init starts
)

// A guarded machine shows one thing after the other; which is next is in a file.
// Each is done once: those that do not end in a reset wait for longer than the
// watchdog would, and say so.
var acts = []struct {
	name string
	do   func() error
}{
	{"disarmed", func() error { return alone("disarmed") }},
	{"fed", func() error { return verb(firmware.VerbUpdate) }},
	{"fed after the boot", func() error { return verb(firmware.VerbFinish) }},
	{"starved", func() error { return verb(firmware.VerbRollback) }},
	{"starved after the boot", func() error { return verb("starve") }},
	{"killed", func() error { return alone("killed") }},
	{"no way out, disarmed", func() error { return errors.Join(noWayOut(), alone("disarmed for good")) }},
	{"no way out, closed", func() error { return alone("closed") }},
}

// guarded goes on with what the machine is to show.
func (l life) guarded() error {
	boots := device.Boots{File: filepath.Join(machine.DiskMount, "boot")}
	_, why, err := boots.Begin()
	if err != nil {
		return err
	}
	say(machine.SaysBoot, why)
	path := filepath.Join(machine.DiskMount, "act")
	data, _ := os.ReadFile(path) // it is not there at first
	for next, _ := strconv.Atoi(strings.TrimSpace(string(data))); next < len(acts); next++ {
		a := acts[next]
		say(machine.SaysDog, a.name)
		if err := errors.Join(os.WriteFile(path, []byte(strconv.Itoa(next+1)), 0o600), durable.SyncTree(machine.DiskMount)); err != nil {
			return err
		}
		err := a.do()
		if errors.Is(err, errBoot) {
			if err := boots.Ends("wanted"); err != nil {
				return err
			}
			restart()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		say(machine.SaysDog, "no reset")
	}
	say(machine.SaysEnd)
	return syscall.Unmount(machine.DiskMount, 0)
}

// errBoot asks for one.
var errBoot = errors.New("the device has to boot")

// alone runs a process that does nothing but with the watchdog, until it ends or is
// no more.
func alone(what string) error { return process(what) }

// verb runs one under the watchdog.
func verb(v string) error {
	err := process(v)
	var code *exec.ExitError
	if errors.As(err, &code) && code.ExitCode() == firmware.ExitBoot {
		return errBoot
	}
	return err
}

func process(as string) error {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), role+"="+as)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() < 0 { // it was killed: who feeds now?
		wait()
		return nil
	}
	return err
}

// wait is for longer than the watchdog would.
func wait() { <-time.After(3 * timeout) }

// play is the process.
func play(as string) (int, error) {
	dog, err := watchdog.OpenDevice(watchdog.DeviceOptions{})
	if err != nil {
		return firmware.ExitError, err
	}
	switch as {
	case firmware.VerbUpdate, firmware.VerbFinish, firmware.VerbRollback, "starve":
		return update(dog, as)
	}
	err = errors.Join(dog.Arm(timeout), dog.Kick())
	say(machine.SaysDog, fmt.Sprintf("%+v", dog.Info()))
	switch {
	case err != nil:
	case as == "killed":
		err = unix.Kill(os.Getpid(), unix.SIGKILL)
	case as == "closed":
		err = dog.Close()
		wait()
	default:
		err = dog.Disarm()
		wait()
	}
	return firmware.ExitDone, err
}

// update is a verb whose trial takes longer than the watchdog waits, or stops this
// process in the middle of it, as nothing that a program guards against can.
func update(dog ota.Watchdog, as string) (int, error) {
	o, done, err := firmware.Options(dir)
	if err != nil {
		return firmware.ExitError, err
	}
	o.Watchdog, o.WatchdogTimeout = dog, during
	o.Trial = ota.Trial{Soak: 2*during + timeout} // half of which is waited for, see package firmware
	asked := 0
	o.Health = func(context.Context) error {
		<-time.After(time.Second)
		if asked++; as == "starve" && asked == 3 {
			say(machine.SaysDog, "stops")
			return unix.Kill(os.Getpid(), unix.SIGSTOP)
		}
		return nil
	}
	u, err := ota.Open(context.Background(), o)
	if err != nil {
		return firmware.ExitError, err
	}
	r, err := u.Resume(context.Background())
	switch {
	case err != nil:
	case as == firmware.VerbRollback:
		r, err = u.Rollback(context.Background(), 0)
	case u.Tx() != nil:
		t := u.Tx()
		err = t.Commit(context.Background())
		r = t.Result()
	default:
		r, err = u.Update(context.Background())
	}
	if errors.Is(err, ota.ErrRebootPending) {
		return firmware.ExitBoot, nil
	}
	say(machine.SaysDone, r.State, as, asked)
	return firmware.ExitDone, errors.Join(err, u.Close(), done())
}

// load loads the modules that the machine came with, in their order.
func load(parameters map[string]string) error {
	names, err := filepath.Glob("/modules/*")
	if err != nil {
		return err
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		_, module, _ := strings.Cut(filepath.Base(name), "-") // behind its place in the order
		err = unix.FinitModule(int(f.Fd()), parameters[module], 0)
		if err = errors.Join(err, f.Close()); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("cannot load %s: %w", name, err)
		}
	}
	return nil
}

// noWayOut has the watchdog's module loaded anew, so that it cannot be switched off.
func noWayOut() error {
	return errors.Join(unix.DeleteModule("i6300esb", 0), load(map[string]string{"i6300esb": "nowayout=1"}))
}

// appears waits for a device that a module finds.
func appears(path string) error {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for range 3000 {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		<-t.C
	}
	return fmt.Errorf("%s does not appear", path)
}
