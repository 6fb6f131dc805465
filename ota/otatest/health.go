package otatest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

// Health is how a release answers when it is asked whether it is healthy.
type Health struct {
	// Bad releases must not be kept: a simulated backend notes a broken rule
	// when one is committed.
	Bad bool
	// answer gets the number of the question, from 1 on, over the whole life
	// of the release on a device.
	answer func(n int) error
}

var (
	errSick = errors.New("sick")
	errHang = errors.New("hang") // do not answer until the context ends
	errDeaf = errors.New("deaf") // do not answer at all
	// errCrash and errPanic are the end of the process and of the boot.
	errCrash = errors.New("crash")
	errPanic = errors.New("panic")
)

// Crashing releases end the process with their first answer, and those that
// panic the boot: neither ever says that it is sick.
func Crashing(panics bool) Health {
	if panics {
		return Health{Bad: true, answer: func(int) error { return errPanic }}
	}
	return Health{Bad: true, answer: func(int) error { return errCrash }}
}

// Healthy releases always are.
func Healthy() Health { return Health{answer: func(int) error { return nil }} }

// Sick releases never are healthy.
func Sick() Health { return Health{Bad: true, answer: func(int) error { return errSick }} }

// HealthyThenSick releases are healthy for the first n questions only.
func HealthyThenSick(n int) Health { return thenFrom(n, nil, errSick, true) }

// HealthyUntilProved releases are healthy for the first n questions only, and
// may be kept all the same: whoever asked often enough has no reason to ask
// again.
func HealthyUntilProved(n int) Health { return thenFrom(n, nil, errSick, false) }

// SickThenHealthy releases are slow to start: they are healthy from question
// n+1 on.
func SickThenHealthy(n int) Health { return thenFrom(n, errSick, nil, false) }

// HealthyThenHang releases answer n questions, and then none: the check
// returns when its context ends, and if deaf not even then.
func HealthyThenHang(n int, deaf bool) Health {
	if deaf {
		return thenFrom(n, nil, errDeaf, true)
	}
	return thenFrom(n, nil, errHang, true)
}

// Flaky releases are sick at every nth question.
func Flaky(n int) Health {
	return Health{Bad: true, answer: func(i int) error {
		if i%n == 0 {
			return errSick
		}
		return nil
	}}
}

func thenFrom(n int, before, after error, bad bool) Health {
	return Health{Bad: bad, answer: func(i int) error {
		if i <= n {
			return before
		}
		return after
	}}
}

// health is the health check of one process: every part has to run, be of one
// piece, and its release has to be healthy.
func (p *process) health(ctx context.Context) error {
	if err := p.spend(askTime); err != nil {
		return err
	}
	var worst error
	if err := p.look(func(s *state) {
		worst = s.health(p.d.repo)
		switch {
		case errors.Is(worst, errCrash):
			p.d.end()
		case errors.Is(worst, errPanic):
			p.d.powerOff()
		}
	}); err != nil {
		return err
	}
	if !errors.Is(worst, errHang) && !errors.Is(worst, errDeaf) {
		return worst
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := p.spend(time.Until(deadline)); err != nil {
			return err
		}
	}
	if errors.Is(worst, errDeaf) {
		ctx = context.WithoutCancel(ctx)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-p.ctx.Done():
		return errDead
	}
}

func (s *state) health(repo *Repo) error {
	var worst error
	for _, name := range slices.Sorted(maps.Keys(s.parts)) {
		img := s.parts[name].runs()
		if img.empty() {
			return errNotStarted
		}
		d, whole := img.digest()
		if !whole {
			s.breaks("health was asked while %s is of two pieces", name)
			return errSick
		}
		s.asked[d.String()]++
		if err := repo.health[d].answer(s.asked[d.String()]); err != nil {
			worst = err
		}
	}
	return worst
}
