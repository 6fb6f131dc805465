package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/pawl-ota/pawl/monitor/watchdog"
	"github.com/pawl-ota/pawl/ota"
)

// firmware is the device's own main loop. It works on its own ticker whatever
// the updater does, which runs beside it one step at a time.
type firmware struct {
	updates *updates
	every   time.Duration // between two units of work
	dog     *watchdog.Shared
	say     func(format string, args ...any)

	done atomic.Int64 // units of work since the start
	last ota.Progress // what was said last; used by the step that runs
}

// stepped is how one step of the updater ended.
type stepped struct {
	next next
	err  error
}

// run works until ctx ends, or until the program or the device has to start
// anew, which it returns. In the middle of a soak it stops within a moment and
// leaves the trial open; the next start goes on with it.
func (f *firmware) run(ctx context.Context) (ota.Effect, error) {
	work := time.NewTicker(f.every)
	defer work.Stop()
	due := time.NewTimer(0)
	defer due.Stop()
	ended := make(chan stepped, 1)
	running := false
	step := f.updates.settle
	for {
		select {
		case <-work.C:
			f.work()
		case <-due.C:
			running = true
			go func(step func(context.Context) (next, error)) {
				n, err := step(ctx)
				ended <- stepped{n, err}
			}(step)
		case s := <-ended:
			running, step = false, f.updates.step
			if s.err != nil || s.next.needs != ota.Live || ctx.Err() != nil {
				return s.next.needs, ignoreEnd(ctx, s.err)
			}
			due.Reset(s.next.wait)
		case <-ctx.Done():
			if running {
				s := <-ended
				return s.next.needs, ignoreEnd(ctx, s.err)
			}
			return ota.Live, nil
		}
	}
}

// ignoreEnd drops an error that only says that ctx ended.
func ignoreEnd(ctx context.Context, err error) error {
	if errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// work is one unit of what the device is for.
func (f *firmware) work() {
	f.done.Add(1)
	_ = f.dog.Alive() // a watchdog that cannot be kicked resets the device: nothing is left to do here
}

// health is what a trial asks: has this program worked since it was started?
func (f *firmware) health(context.Context) error {
	switch {
	case sick != "":
		return errors.New(sick)
	case f.done.Load() == 0:
		return errors.New("no work was done yet")
	}
	return nil
}

// progress says each new step once, and each tenth of what takes long.
func (f *firmware) progress(p ota.Progress) {
	tenth := func(p ota.Progress) int64 {
		if p.Total <= 0 {
			return 0
		}
		return 10 * p.Done / p.Total
	}
	last := f.last
	if p.Step == last.Step && p.Component == last.Component && p.State == last.State && tenth(p) == tenth(last) && p.Err == nil {
		return
	}
	f.last = p
	f.say("%s %s %s %d/%d %s", p.To, p.State, p.Step, p.Done, p.Total, p.Component)
	if p.Err != nil {
		f.say("because: %v", p.Err)
	}
}
