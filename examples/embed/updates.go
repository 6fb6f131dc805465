package main

import (
	"context"
	"errors"
	"time"

	"github.com/pawl-ota/pawl/ota"
)

// updates takes the updater one verb further at each step, so that the
// firmware decides in between.
type updates struct {
	updater *ota.Updater
	look    time.Duration // between two looks at the repository
	consent func() bool   // may the device switch now?
	say     func(format string, args ...any)
}

// next says when the next step is due, or what has to start anew before it.
type next struct {
	wait  time.Duration
	needs ota.Effect
}

// askAgain is how long a staged release waits until consent is asked again.
const askAgain = time.Second

// settle is the first step of every start: it brings whatever was cut short
// back onto firm ground.
func (u *updates) settle(ctx context.Context) (next, error) {
	r, err := u.updater.Resume(ctx)
	return u.after(r, err)
}

// step goes on with the open transaction, or looks for a release to begin one.
func (u *updates) step(ctx context.Context) (next, error) {
	tx := u.updater.Tx()
	if tx == nil {
		return u.begin(ctx)
	}
	var err error
	switch tx.State() {
	case ota.Staging:
		err = tx.Stage(ctx)
	case ota.Staged:
		if !u.consent() {
			return next{askAgain, ota.Live}, nil
		}
		err = tx.Activate(ctx)
	case ota.InTrial, ota.Committing:
		err = tx.Commit(ctx)
	default:
		return u.settle(ctx)
	}
	return u.after(tx.Result(), err)
}

// begin opens a transaction to the newest release, if there is one to take.
func (u *updates) begin(ctx context.Context) (next, error) {
	r, err := u.updater.Check(ctx)
	if err == nil {
		_, err = u.updater.Begin(ctx, r)
	}
	return u.after(ota.Result{}, err)
}

// after decides what an outcome means for the loop. Only what leaves the
// updater itself unusable is an error of the firmware.
func (u *updates) after(r ota.Result, err error) (next, error) {
	switch {
	case errors.Is(err, ota.ErrPoisoned), errors.Is(err, context.Canceled):
		return next{needs: ota.Live}, err
	case errors.Is(err, ota.ErrRestartPending), r.Needs == ota.NeedsRestart:
		return next{needs: ota.NeedsRestart}, nil
	case errors.Is(err, ota.ErrRebootPending), r.Needs == ota.NeedsReboot:
		return next{needs: ota.NeedsReboot}, nil
	case errors.Is(err, ota.ErrUpToDate), errors.Is(err, ota.ErrNoRelease), errors.Is(err, ota.ErrCondemned):
		u.say("nothing to do")
		return next{u.look, ota.Live}, nil
	case err != nil:
		u.say("not now: %v", err)
		return next{min(u.look, time.Minute), ota.Live}, nil
	}
	return next{0, ota.Live}, nil
}
