package ota

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/ota/release"
)

// Check tells whether the device is healthy: nil when it is, else an error
// that a person can read. It returns soon after ctx ends. The Updater never
// runs two at a time. An error that wraps ErrHopeless ends a trial at once.
type Check func(ctx context.Context) error

// Watchdog is a hardware or service watchdog that the Updater feeds while it
// changes what runs. Its owner may be the embedder's own loop, which then
// hands on what it is told here. Calls come from one goroutine at a time.
type Watchdog interface {
	// Arm starts the watchdog, or sets it anew: without a Kick for d the
	// device is to be reset.
	Arm(d time.Duration) error
	Kick() error
	// Disarm is called when a transaction has ended.
	Disarm() error
}

// Options configure an Updater. Dir and Device are needed; every other field
// has a useful zero value.
type Options struct {
	// Dir is the folder for the journal and the local copy, on a file system
	// that survives a power cut. It is made with mode 0700 if it is missing.
	// One Dir belongs to one device.
	Dir string
	// Device says what this device is.
	Device Device
	// Source is where releases come from. Without one Resume, Rollback,
	// Verify and Repair still work.
	Source Source
	// Backends handle the components of a release, by component name. A
	// backend may stand under several names.
	Backends map[string]Backend
	// Health gates the commit. Without it a release has proved itself when
	// it was activated.
	Health Check
	Trial  Trial
	// Watchdog is fed while the device changes; nil feeds none.
	Watchdog Watchdog
	// WatchdogTimeout is what the watchdog is armed with; 0 means 1 minute. It
	// has to be longer than Trial.Timeout plus Trial.Interval, and should be
	// longer than any one Activate, Commit or Revert takes: the Updater kicks
	// after each. Between two verbs of an open trial nobody kicks, so that a
	// new program that does not come up is reset.
	WatchdogTimeout time.Duration
	// Progress is told of every step, from the goroutine that called the verb;
	// it has to return soon. A panic of it changes nothing.
	Progress func(Progress)
	// Retry lets Begin and Update try a release that ErrHeld would hold back:
	// an operator's word, never a timer's.
	Retry bool
	// LockWait is how long Open waits for another updater; 0 means 10 s, a
	// negative value not at all.
	LockWait time.Duration
	// StepLimit bounds one call of a Backend's Activate, Commit or Revert;
	// 0 means 10 minutes. StageLimit bounds one call of its Stage, with
	// everything that is fetched in it; 0 means 24 hours.
	StepLimit, StageLimit time.Duration
	// Reserve is how many bytes the precheck leaves free on every file
	// system; 0 means 1 MiB, a negative value none.
	Reserve int64

	host seam.Host
	dir  seam.Dir
}

// Trial says what a release has to do before it is committed. The zero value
// takes the defaults that stand with each field.
type Trial struct {
	// Soak is how long Health has to hold without a break; 0 means that one
	// good answer is enough.
	Soak time.Duration
	// Deadline is how much running time the trial may take in all, over
	// restarts and boots; 0 means 10 minutes plus Soak. It ends a trial only
	// after Health was asked at least once since the last start.
	Deadline time.Duration
	// Interval is the time between two questions to Health; 0 means 1 s.
	Interval time.Duration
	// Timeout is how long one answer may take; 0 means 10 s. A later one
	// counts as sick and does not feed the watchdog.
	Timeout time.Duration
	// Failures is how many sick answers in a row end the trial once Health
	// has been good since the last start; 0 means 3. Before the first good
	// answer only Deadline, Starts and ErrHopeless end it.
	Failures int
	// Starts is how many processes may find the trial open and not end it;
	// 0 means 6. One more and the release is taken back.
	Starts int
}

func init() {
	seam.Machine = machine{}
	seam.Set = func(options any, host seam.Host, dir seam.Dir) {
		o := options.(*Options)
		o.host, o.dir = host, dir
	}
}

// withDefaults checks o and fills in what is zero. The error names the field.
func (o Options) withDefaults() (Options, error) {
	if err := o.check(); err != nil {
		return o, fmt.Errorf("ota: options: %w", err)
	}
	if err := o.durations(); err != nil {
		return o, fmt.Errorf("ota: options: %w", err)
	}
	o.Trial.Failures = cmp.Or(o.Trial.Failures, 3)
	o.Trial.Starts = cmp.Or(o.Trial.Starts, 6)
	o.LockWait = max(cmp.Or(o.LockWait, 10*time.Second), 0)
	o.Reserve = max(cmp.Or(o.Reserve, 1<<20), 0)
	return o, nil
}

func (o *Options) check() error {
	if o.Dir == "" && o.dir == nil {
		return errors.New("field Dir is empty")
	}
	if err := release.CheckID(release.ID{Product: o.Device.Product, Variant: o.Device.Variant, Seq: 1}); err != nil {
		return fmt.Errorf("field Device: %w", err)
	}
	if len(o.Device.ID) > 128 || len(o.Device.Hardware) > 128 {
		return errors.New("field Device: an id is longer than 128 bytes")
	}
	for name, b := range o.Backends {
		if err := release.CheckName(name); err != nil {
			return fmt.Errorf("field Backends: %w", err)
		}
		if b == nil {
			return fmt.Errorf("field Backends[%q] is nil", name)
		}
	}
	if o.Trial.Failures < 0 || o.Trial.Starts < 0 {
		return errors.New("field Trial: Failures and Starts may not be negative")
	}
	return nil
}

// durations fills in and checks what is a time.
func (o *Options) durations() error {
	for _, d := range []struct {
		field string
		value *time.Duration
		zero  time.Duration
	}{
		{"Trial.Soak", &o.Trial.Soak, 0},
		{"Trial.Deadline", &o.Trial.Deadline, 10*time.Minute + o.Trial.Soak},
		{"Trial.Interval", &o.Trial.Interval, time.Second},
		{"Trial.Timeout", &o.Trial.Timeout, 10 * time.Second},
		{"WatchdogTimeout", &o.WatchdogTimeout, time.Minute},
		{"StepLimit", &o.StepLimit, 10 * time.Minute},
		{"StageLimit", &o.StageLimit, 24 * time.Hour},
	} {
		if *d.value < 0 {
			return fmt.Errorf("field %s is negative", d.field)
		}
		*d.value = cmp.Or(*d.value, d.zero)
	}
	if o.Trial.Deadline < o.Trial.Soak {
		return errors.New("field Trial.Deadline is shorter than Soak")
	}
	if o.Watchdog != nil && o.WatchdogTimeout <= o.Trial.Timeout+o.Trial.Interval {
		return errors.New("field WatchdogTimeout is not longer than Trial.Timeout plus Trial.Interval")
	}
	return nil
}
