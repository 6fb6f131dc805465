// Package watchdog has what resets a device, or starts its service anew, when
// nobody says any more that all is well: a hardware watchdog ([Device]), systemd's
// ([Systemd]), several at once ([Several]), and one that a main loop and an updater
// share ([Shared]). Each is an ota.Watchdog.
//
// A firmware with a main loop:
//
//	device, err := watchdog.OpenDevice(watchdog.DeviceOptions{Path: "/dev/watchdog"})
//	err = device.Arm(30 * time.Second)
//	dog := watchdog.NewShared(device)
//	options.Watchdog = dog // of an ota.Options
//	for { work(); dog.Alive() }
//
// A service of systemd without one gives its [Systemd] to the updater as it is.
package watchdog

import (
	"errors"
	"sync"
	"time"
)

// Watchdog is what everything here is; it fits ota.Watchdog.
type Watchdog interface {
	// Arm starts it, or sets it anew: without a Kick for d it bites.
	Arm(d time.Duration) error
	Kick() error
	// Disarm ends what Arm began.
	Disarm() error
}

// None never bites.
type None struct{}

// Arm implements [Watchdog].
func (None) Arm(time.Duration) error { return nil }

// Kick implements [Watchdog].
func (None) Kick() error { return nil }

// Disarm implements [Watchdog].
func (None) Disarm() error { return nil }

// Several are armed, kicked and disarmed together. Where one cannot be armed
// the others are disarmed again.
type Several []Watchdog

// Arm implements [Watchdog].
func (s Several) Arm(d time.Duration) error {
	for i, w := range s {
		if err := w.Arm(d); err != nil {
			return errors.Join(err, s[:i].Disarm())
		}
	}
	return nil
}

// Kick implements [Watchdog].
func (s Several) Kick() (err error) {
	for _, w := range s {
		err = errors.Join(err, w.Kick())
	}
	return err
}

// Disarm implements [Watchdog].
func (s Several) Disarm() (err error) {
	for _, w := range s {
		err = errors.Join(err, w.Disarm())
	}
	return err
}

// Shared stands between the one watchdog of a device and the two that have to be
// alive: its main loop always, and an updater while it changes something. To the
// updater it is a [Watchdog]. It is safe for concurrent use.
type Shared struct {
	to Kicker

	mu     sync.Mutex
	armed  time.Duration // 0 while the updater changes nothing
	kicked time.Time     // by the updater
}

// Kicker is a watchdog that was armed.
type Kicker interface{ Kick() error }

// NewShared returns a Shared in front of to, which its owner has armed.
func NewShared(to Kicker) *Shared { return &Shared{to: to} }

// Arm implements [Watchdog]. It does not reach the watchdog behind it, which has
// its own time.
func (s *Shared) Arm(d time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed, s.kicked = d, time.Now()
	return nil
}

// Kick implements [Watchdog].
func (s *Shared) Kick() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kicked = time.Now()
	return nil
}

// Disarm implements [Watchdog].
func (s *Shared) Disarm() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = 0
	return nil
}

// Alive is called by the main loop, more often than the watchdog's time. It
// kicks it, unless the updater has been hanging for longer than it said.
func (s *Shared) Alive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.armed != 0 && time.Since(s.kicked) >= s.armed {
		return nil
	}
	return s.to.Kick()
}
