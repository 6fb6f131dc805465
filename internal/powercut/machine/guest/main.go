// Command guest is init of the machine whose power is cut. It mounts the disk,
// boots the device, has it settle, checks it, and then sends it to and fro
// between the two releases for as long as there is power. What happens goes to
// the console, a line each.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/powercut"
	"github.com/pawl-ota/pawl/internal/powercut/check"
	"github.com/pawl-ota/pawl/internal/powercut/firmware"
	"github.com/pawl-ota/pawl/internal/powercut/machine"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
)

// dir is the device.
const dir = machine.DeviceDir

func main() {
	if as := os.Getenv(role); as != "" { // a process that init has started
		code, err := play(as)
		if err != nil {
			fmt.Println(as+":", err)
			code = max(code, firmware.ExitError)
		}
		os.Exit(code)
	}
	say(machine.SaysUp)
	if err := live(os.Args[1:]); err != nil {
		say(machine.SaysViolation, err)
	}
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}

// cutShort is in the error of a verb that gave a release up because the power
// went again and again while one of its scripts ran.
const cutShort = "cut short"

// say writes a line to the console, and waits until it is out.
func say(words ...any) {
	fmt.Print(machine.Mark, fmt.Sprintln(words...))
	_ = unix.IoctlSetInt(1, unix.TCSBRK, 1)
}

// restart resets the machine without a sync.
func restart() {
	say(machine.SaysReboot)
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)
}

// life is what happens between two boots.
type life struct {
	run     powercut.Run
	install bool // only v1 is there to be installed, and then the end
	sick    bool // no release passes its trial
	dog     bool // it is about the watchdog
}

func live(words []string) error {
	l := life{
		run:     powercut.Process("/device"),
		install: slices.Contains(words, machine.ModeInstall), sick: slices.Contains(words, machine.ModeSick),
		dog: slices.Contains(words, machine.ModeGuarded),
	}
	if err := l.mount(); err != nil {
		return err
	}
	if a := l.run(context.Background(), dir, firmware.VerbBoot); a.Code != firmware.ExitDone {
		return fmt.Errorf("boot: %s", a.Error)
	}
	a := l.run(context.Background(), dir, firmware.VerbResume)
	switch a.Code {
	case firmware.ExitBoot:
		restart()
	case firmware.ExitError:
		return fmt.Errorf("resume: %s", a.Error)
	}
	found, err := check.Device(dir)
	if err != nil {
		return err
	}
	say(machine.SaysFound, found.Version(), a.Result.State)
	state := a.Result.State
	if state == ota.Committed || state == ota.Reverted { // Resume has ended it
		state = ota.Idle
	}
	if state == ota.Idle {
		if err := check.Tidy(dir); err != nil {
			return err
		}
	}
	if l.dog {
		return l.guarded()
	}
	return l.toAndFro(found.Version(), state)
}

// mount brings up what a program needs, and the disk.
func (l life) mount() error {
	for _, m := range []struct{ what, at, kind string }{
		{"proc", "/proc", "proc"}, {"dev", "/dev", "devtmpfs"}, {"sys", "/sys", "sysfs"}, {"tmp", "/tmp", "tmpfs"},
		{machine.DiskDevice, machine.DiskMount, "ext4"},
	} {
		if m.kind == "ext4" {
			if err := errors.Join(load(nil), appears(m.what), flushes()); err != nil {
				return err
			}
		}
		if err := syscall.Mount(m.what, m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("cannot mount %s: %w", m.at, err)
		}
	}
	repo := "/repo-2"
	if l.install {
		repo = "/repo-1"
		if _, err := os.Stat(dir); os.IsNotExist(err) {
			err := errors.Join(os.CopyFS(dir, os.DirFS("/factory")), os.Chmod(dir+"/state", 0o700), durable.SyncTree(dir))
			if err != nil {
				return err
			}
		}
	}
	health := "ok\n"
	if l.sick {
		health = "sick\n"
	}
	if err := os.WriteFile(dir+"/health", []byte(health), 0o644); err != nil {
		return err
	}
	return os.Symlink(repo, machine.Repo)
}

// flushes has the kernel know that the disk keeps what it was told in a cache, and
// that nothing but a flush makes it durable: a write with FUA would not be told as
// such to the disk by all that QEMU has.
func flushes() error {
	for file, want := range map[string]string{"write_cache": "write back", "fua": "0"} {
		is, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(machine.DiskDevice), "queue", file))
		if err != nil || strings.TrimSpace(string(is)) != want {
			return fmt.Errorf("the disk's %s is %q, not %q (%w)", file, is, want, err)
		}
	}
	return nil
}

// toAndFro goes on from v in the state given.
func (l life) toAndFro(v check.Version, state ota.State) error {
	for {
		verb := firmware.VerbRetry
		switch {
		case state != ota.Idle:
			verb = firmware.VerbFinish
		case l.install && v == check.V1:
			say(machine.SaysEnd)
			return syscall.Unmount(machine.DiskMount, 0)
		case v == check.V2:
			verb = firmware.VerbRollback
		}
		say(machine.SaysBegin, verb)
		a := l.run(context.Background(), dir, verb)
		if a.Code == firmware.ExitBoot {
			restart()
		}
		if a.Code == firmware.ExitError && !l.sick && !strings.Contains(a.Error, cutShort) {
			return fmt.Errorf("%s: %s", verb, a.Error)
		}
		found, err := check.Device(dir)
		if err != nil {
			return err
		}
		if err := check.Tidy(dir); err != nil {
			return err
		}
		v, state = found.Version(), ota.Idle
		say(machine.SaysDone, v, verb, a.Code)
	}
}
