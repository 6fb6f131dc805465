package otatest

import (
	"context"
	"fmt"
	"time"
)

// epoch is when the clock of a simulated device starts.
var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// host is the machine under one process. It implements the Host of
// internal/seam.
type host struct{ *process }

func (h host) Boot() (id string, err error) {
	err = h.look(func(s *state) { id = fmt.Sprint("boot-", s.boots) })
	return id, err
}

func (h host) Process() (id string, err error) {
	err = h.look(func(s *state) { id = fmt.Sprint("process-", h.id) })
	return id, err
}

func (h host) Now() time.Time {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return epoch.Add(h.d.state.clock)
}

func (h host) Uptime() time.Duration {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return h.d.state.uptime
}

// Sleep takes no time but the device's own.
func (h host) Sleep(ctx context.Context, t time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return h.spend(t)
}

func (h host) Space(string) (bytes, inodes int64, fs string, err error) {
	err = h.look(func(s *state) { bytes, inodes = s.free[0], s.free[1] })
	return bytes, inodes, "disk", err
}

func (h host) Memory() (held, available int64, err error) {
	err = h.look(func(s *state) { available = s.memory })
	return 0, available, err
}

// watchdog is the device's own watchdog, as one process sees it.
type watchdog struct{ *process }

func (w watchdog) Arm(t time.Duration) error {
	return w.look(func(s *state) { s.watchdog, s.fed = s.uptime+t, t })
}

func (w watchdog) Kick() error {
	return w.look(func(s *state) {
		if s.watchdog > 0 {
			s.watchdog = s.uptime + s.fed
		}
	})
}

func (w watchdog) Disarm() error { return w.look(func(s *state) { s.watchdog = 0 }) }
