package main

import (
	"os"
	"sync"
	"time"
)

// hardware is what resets the device when nobody kicks it.
type hardware interface {
	Kick() error
	Close() error
}

// dog stands between the one watchdog of the device and the two that have to
// be alive: the main loop always, and the updater while it changes something.
// It is an [ota.Watchdog].
type dog struct {
	hardware hardware
	now      func() time.Time

	mu     sync.Mutex
	armed  time.Duration // 0 while the updater changes nothing
	kicked time.Time     // by the updater
}

func newDog(h hardware, now func() time.Time) *dog { return &dog{hardware: h, now: now} }

// Arm implements [ota.Watchdog].
func (d *dog) Arm(limit time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed, d.kicked = limit, d.now()
	return nil
}

// Kick implements [ota.Watchdog].
func (d *dog) Kick() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kicked = d.now()
	return nil
}

// Disarm implements [ota.Watchdog].
func (d *dog) Disarm() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed = 0
	return nil
}

// alive is called by the main loop. It kicks the hardware, unless the updater
// has been hanging for longer than it said.
func (d *dog) alive() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.armed == 0 || d.now().Sub(d.kicked) < d.armed {
		_ = d.hardware.Kick() // a watchdog that cannot be kicked resets the device: nothing is left to do here
	}
}

// openHardware opens a Linux watchdog device; without a path there is none.
func openHardware(path string) (hardware, error) {
	if path == "" {
		return noHardware{}, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return linuxWatchdog{f}, nil
}

type noHardware struct{}

func (noHardware) Kick() error  { return nil }
func (noHardware) Close() error { return nil }

// linuxWatchdog is kicked by any write; the one of a V before closing turns it
// off (Documentation/watchdog/watchdog-api.rst).
type linuxWatchdog struct{ f *os.File }

func (w linuxWatchdog) Kick() error {
	_, err := w.f.Write([]byte{0})
	return err
}

func (w linuxWatchdog) Close() error {
	if _, err := w.f.Write([]byte("V")); err != nil {
		return err
	}
	return w.f.Close()
}
