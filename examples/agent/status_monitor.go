//go:build monitor

package main

import (
	"bytes"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/examples/bar"
	"github.com/pawl-ota/pawl/monitor/outbox"
)

// addMonitored adds how much waits to be sent, and why the device booted.
func (a *agent) addMonitored(c *condition) (problems []string) {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it the rest is of use still
	c.Boot = &bootNow{ID: string(bytes.TrimSpace(id)), Uptime: uptime()}
	c.Boot.Reason, _ = a.config.boots().Why() // empty says that nobody knows
	if a.config.monitor.report == nil {
		return nil
	}
	s, err := outbox.Look(a.config.outboxDir())
	if err != nil {
		return []string{err.Error()}
	}
	l := s.Lost
	c.Outbox = &outboxNow{s.Results, s.Metrics, s.Bytes, l.Results + l.Metrics + l.Refused + l.Damaged + l.TooLarge}
	return s.Notes
}

// monitoredLines say it for people.
func (c *condition) monitoredLines() (lines []string) {
	if o := c.Outbox; o != nil {
		lines = append(lines, fmt.Sprintf("outbox: %d results and %d measurements wait, %s; %d were lost", o.Results, o.Metrics, bar.Size(o.Bytes), o.Lost))
	}
	if b := c.Boot; b != nil {
		lines = append(lines, fmt.Sprintf("boot: %v ago: %s", b.Uptime.Round(time.Second), b.Reason))
	}
	return lines
}

// uptime is the running time since the boot.
func uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
