//go:build monitor

package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/pawl-ota/pawl/monitor/watchdog"
)

// dog is what resets the device, or starts the agent anew, when the agent hangs:
// the watchdog of the device, and that of systemd. Each may be missing.
type dog struct {
	systemd *watchdog.Systemd
	device  *watchdog.Device
	shared  *watchdog.Shared // nil where neither bites
	said    string
}

// dogEvery is how often it is fed.
const dogEvery = 10 * time.Second

// openDog arms what there is. slack is how long one answer of health may take.
func openDog(c runs, slack time.Duration) (*dog, error) {
	d := &dog{}
	var kick watchdog.Several
	var err error
	if d.systemd, err = watchdog.NewSystemd(); err != nil && !errors.Is(err, watchdog.ErrNoSystemd) {
		return nil, err
	}
	if d.systemd != nil && d.systemd.Timeout() > 0 {
		kick = append(kick, d.systemd)
	}
	if c.Watchdog != "" {
		d.device, err = watchdog.OpenDevice(watchdog.DeviceOptions{Path: c.Watchdog, Stay: c.Stay})
		if err == nil {
			err = d.device.Arm(time.Minute + 2*slack)
		}
		if err != nil {
			return nil, fmt.Errorf("run.watchdog: %w", err)
		}
		kick = append(kick, d.device)
	}
	if len(kick) > 0 {
		d.shared = watchdog.NewShared(kick)
	}
	return d, nil
}

// alive is called by the loop that asks for health. What cannot be fed bites,
// which says more than an error would.
func (d *dog) alive() {
	if d.shared != nil {
		_ = d.shared.Alive()
	}
}

// What systemd is told is for people: nothing depends on its arriving.

func (d *dog) ready() {
	if d.systemd != nil {
		_ = d.systemd.Ready()
	}
}

func (d *dog) stopping() {
	if d.systemd != nil {
		_ = d.systemd.Stopping()
	}
}

func (d *dog) status(text string) {
	if d.systemd != nil && text != d.said {
		d.said = text
		_ = d.systemd.Status(plain(text))
	}
}

// disarm lets go of the device's watchdog, where the kernel allows that.
func (d *dog) disarm() {
	if d.device != nil {
		_ = d.device.Close()
	}
}
