package ota

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// saveEvery is how much running time of a trial a power cut can lose.
const saveEvery = 30 * time.Second

// errHung is the answer of a health check that did not return in time.
var errHung = errors.New("the health check did not answer")

// verdict is how a trial ended.
type verdict struct {
	proved  bool
	reason  string
	condemn bool // a check failed; else time or starts ran out
}

// proof is what the answers of Health since the last start add up to.
type proof struct {
	trial   Trial
	holds   bool
	since   time.Duration // uptime of the question from which on health held
	good    bool          // at least one answer was
	sick    int           // answers in a row, since one was good
	lastErr error
}

// answer takes in the answer to the question asked at that uptime.
func (p *proof) answer(asked time.Duration, err error) {
	if err != nil {
		p.holds, p.lastErr = false, err
		if p.good {
			p.sick++
		}
		return
	}
	if !p.holds {
		p.since = asked
	}
	p.holds, p.good, p.sick = true, true, 0
}

// soaked is how long health has held at the uptime now.
func (p *proof) soaked(now time.Duration) time.Duration {
	if !p.holds {
		return 0
	}
	return now - p.since
}

// verdict decides at the uptime now, with the running time of the whole trial.
func (p *proof) verdict(now, elapsed time.Duration) (v verdict, decided bool) {
	switch {
	case p.holds && p.soaked(now) >= p.trial.Soak:
		return verdict{proved: true}, true
	case p.sick >= p.trial.Failures || errors.Is(p.lastErr, ErrHopeless):
		return verdict{reason: "unhealthy: " + p.lastErr.Error(), condemn: true}, true
	case elapsed < p.trial.Deadline:
		return verdict{}, false
	case p.lastErr != nil:
		return verdict{reason: fmt.Sprintf("not healthy for %v within %v: %v", p.trial.Soak, p.trial.Deadline, p.lastErr), condemn: true}, true
	default:
		return verdict{reason: fmt.Sprintf("the trial did not end within %v", p.trial.Deadline)}, true
	}
}

// prove asks Health until the trial is decided, or until ctx ends, whose error
// it then returns: the trial stays open.
func (u *Updater) prove(ctx context.Context, t *txState) (verdict, error) {
	p := proof{trial: u.opts.Trial}
	last, saved := u.host.Uptime(), t.Elapsed
	for {
		asked := u.host.Uptime()
		err := u.ask(ctx)
		now := u.host.Uptime()
		t.Elapsed += now - last
		last = now
		if ctx.Err() != nil {
			return verdict{}, errors.Join(ctx.Err(), u.saveElapsed(t, &saved, 0))
		}
		if !errors.Is(err, errHung) {
			u.kick()
		}
		p.answer(asked, err)
		u.report(Progress{Step: "health", Done: int64(p.soaked(now)), Total: int64(p.trial.Soak), Err: err})
		if v, decided := p.verdict(now, t.Elapsed); decided {
			return v, nil
		}
		if err := u.saveElapsed(t, &saved, saveEvery); err != nil {
			return verdict{}, err
		}
		if err := u.host.Sleep(ctx, p.trial.Interval); err != nil {
			t.Elapsed += u.host.Uptime() - last
			return verdict{}, errors.Join(err, u.saveElapsed(t, &saved, 0))
		}
	}
}

// saveElapsed makes the running time of the trial durable when more than
// atLeast of it is new.
func (u *Updater) saveElapsed(t *txState, saved *time.Duration, atLeast time.Duration) error {
	if t.Elapsed-*saved <= atLeast {
		return nil
	}
	*saved = t.Elapsed
	return u.save()
}

// ask asks Health once. One that does not return in time is not asked again
// until it has: its late answer is then taken for none.
func (u *Updater) ask(ctx context.Context) error {
	if u.opts.Health == nil {
		return nil
	}
	limit := time.NewTimer(u.opts.Trial.Timeout)
	defer limit.Stop()
	if u.asking != nil {
		select {
		case <-u.asking:
			u.asking = nil
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return fmt.Errorf("%w: still waiting for an earlier answer", errHung)
		}
	}
	asked, cancel := context.WithTimeout(ctx, u.opts.Trial.Timeout)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- u.opts.Health(asked) }()
	select {
	case err := <-answer:
		return err
	case <-asked.Done():
	}
	u.asking = answer
	return fmt.Errorf("%w within %v", errHung, u.opts.Trial.Timeout)
}

// arm starts the watchdog. It is armed before anything that runs is touched.
func (u *Updater) arm() error {
	if u.opts.Watchdog == nil {
		return nil
	}
	if err := u.opts.Watchdog.Arm(u.opts.WatchdogTimeout); err != nil {
		return fmt.Errorf("%w: %w", ErrWatchdog, err)
	}
	u.armed = true
	return nil
}

// takeOver feeds the watchdog that an earlier process of this boot may have
// armed. Where it cannot be armed the way that was begun is gone all the same.
func (u *Updater) takeOver() {
	if u.armed {
		return
	}
	if err := u.arm(); err != nil {
		u.report(Progress{Step: "watchdog", Err: err})
	}
}

// kick feeds the watchdog after a bounded step that completed.
func (u *Updater) kick() {
	if !u.armed {
		return
	}
	if err := u.opts.Watchdog.Kick(); err != nil {
		u.report(Progress{Step: "watchdog", Err: err})
	}
}

// disarm ends the feeding when a transaction has ended.
func (u *Updater) disarm() {
	if !u.armed {
		return
	}
	u.armed = false
	if err := u.opts.Watchdog.Disarm(); err != nil {
		u.report(Progress{Step: "watchdog", Err: err})
	}
}
