package machine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/testneeds"
)

// guardedLines are what init says of a machine with a watchdog that waits for 10 s,
// but for the first word and details: what it goes on to show, what came of it, and
// why the machine booted.
var guardedLines = []string{
	"up", "found v1 idle", "boot not known: the first boot that is watched",
	"dog disarmed", "dog NoWayOut:false", "dog no reset", // switched off by the magic close, for three times as long
	"dog fed", "reboot",
	"up", "found v2 trial", "boot wanted",
	"dog fed after the boot", "done committed", "dog no reset", // twice as long
	"dog starved", "reboot",
	"up", "found v1 trial", "boot wanted",
	"dog starved after the boot", "dog stops",
	"up", "found v2 reverted", "boot a watchdog reset the device",
	"dog killed", "dog NoWayOut:false",
	"up", "found v2 idle", "boot a watchdog reset the device",
	"dog no way out, disarmed", "dog NoWayOut:true", "dog no reset", // it is fed on
	"dog no way out, closed", "dog NoWayOut:true",
	"up", "found v2 idle", "boot a watchdog reset the device",
	"end",
}

// TestWatchdog has QEMU's watchdog reset a machine with the real engine, or not,
// and does nothing where PAWL_WATCHDOG is not set (see make watchdog).
func TestWatchdog(t *testing.T) {
	if os.Getenv("PAWL_WATCHDOG") == "" {
		return
	}
	c := guardedMachine(t)
	c.installOnly()
	c.vm.resets, c.vm.devices = true, []string{"-device", "i6300esb"}
	var said []string
	var at []time.Duration
	begin := time.Now()
	require.NoError(t, c.boot(ModeGuarded, func([]string) {
		said, at = append(said, c.last[len(c.last)-1]), append(at, time.Since(begin))
		t.Logf("%4.0f s: %s", time.Since(begin).Seconds(), said[len(said)-1])
	}))
	c.check()
	require.Len(t, said, len(guardedLines))
	boot, resets := time.Duration(0), []time.Duration{}
	for i, want := range guardedLines {
		require.True(t, says(said[i], want), "line %d: %s, not %s", i, said[i], want)
		if i == 0 || want != "up" {
			continue
		}
		if took := (at[i] - at[i-1]).Round(time.Second); guardedLines[i-1] == "reboot" {
			boot = took
		} else {
			resets = append(resets, took)
		}
	}
	t.Logf("watchdog: %s; up again %v after a reboot, %v after the processes were stopped (45 s), killed and closed it (10 s)", c.vm.accel, boot, resets)
	for i, least := range []time.Duration{40 * time.Second, 5 * time.Second, 5 * time.Second} {
		require.Greater(t, resets[i], least)
	}
}

// says reports whether init said what it should have.
func says(line, want string) bool {
	info, ok := strings.CutPrefix(want, "dog NoWayOut")
	return strings.HasPrefix(line, want) || ok && strings.Contains(line, "NoWayOut"+info)
}

// guardedMachine is one whose kernel knows the watchdog.
func guardedMachine(t *testing.T) *campaign {
	testneeds.Program(t, "qemu-system-x86_64")
	p, modules, err := debian(t.TempDir(), "linux-image-amd64", "crc32c_generic", "ext4", "virtio_pci", "virtio_blk", "i6300esb")
	require.NoError(t, err)
	initrd := filepath.Join(t.TempDir(), "initrd")
	require.NoError(t, os.WriteFile(initrd, firmwareImage(t, p, modules...), 0o600))
	c := campaignOn(t, vm{kernel: p.kernel, initrd: initrd}, format(t), 1)
	c.vm.accel = c.vm.fastest(t.Context())
	return c
}
