package ota

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pawl-ota/pawl/ota/release"
)

// errTakenBack is the cause of a way back that is nobody's failure.
var errTakenBack = errors.New("taken back as asked")

// maxRearms is how many boots are asked for one after the other, after the
// commit point or on the way back.
const maxRearms = 3

// retryPauses are what is waited between tries of one Commit or Revert.
var retryPauses = []time.Duration{time.Second, 4 * time.Second}

// takeBack records that the way is back and goes it. It returns cause when the
// device is as it was, and else what is in the way, such as ErrRebootPending or
// ErrStuck, together with a cause that is a failure.
func (u *Updater) takeBack(ctx context.Context, t *txState, reason string, b blame, cause error) error {
	err := u.goBack(ctx, t, reason, b)
	switch {
	case err == nil:
		return cause
	case errors.Is(cause, errTakenBack):
		return err
	default:
		return errors.Join(err, cause)
	}
}

func (u *Updater) goBack(ctx context.Context, t *txState, reason string, b blame) error {
	if u.poison != nil {
		return fmt.Errorf("%w: %w", ErrPoisoned, u.poison)
	}
	if t.State != Reverting {
		if t.Doubt {
			u.suspectScripts(t)
		}
		t.State, t.Reason, t.Blame = Reverting, clip(reason, maxReason), b
		t.Armed, t.Rearms, t.Elapsed = "", 0, 0
		if u.fallback && t.Live == notBegun {
			t.Live = begun // the lost record may have said so
		}
		if err := u.save(); err != nil {
			return err
		}
	}
	if t.Armed == u.boot {
		return fmt.Errorf("%w: on the way back", ErrRebootPending)
	}
	return u.revert(ctx, t)
}

// revert goes the way back from any point of it. It returns nil when the
// device is as it was, and records that.
func (u *Updater) revert(ctx context.Context, t *txState) error {
	ctx = context.WithoutCancel(ctx)
	u.takeOver()
	kept := u.undoScripts(ctx, t, wholeInEffect)
	for _, p := range slices.Backward(activationOrder(t.Parts)) {
		kept = errors.Join(kept, u.undoScripts(ctx, t, at(release.AfterActivate, p.Name)))
		if err := u.revertPart(ctx, t, p); err != nil {
			return u.stuck(t, false, err)
		}
		kept = errors.Join(kept, u.undoScripts(ctx, t, at(release.BeforeActivate, p.Name)))
	}
	kept = errors.Join(kept, u.undoScripts(ctx, t, beforeAny))
	reboot, err := u.allOld(ctx, t)
	switch {
	case err != nil:
		return u.stuck(t, false, err)
	case reboot:
		return u.askReboot(t, false)
	case kept != nil:
		return u.stuck(t, false, kept)
	}
	if len(t.Scripts) > 0 || t.By != "" {
		parts := activationOrder(t.Parts)
		slices.Reverse(parts)
		if err := u.runAfter(ctx, t, release.AfterRevert, parts); err != nil {
			return err
		}
	}
	return u.reverted(ctx, t)
}

// revertPart takes one component back.
func (u *Updater) revertPart(ctx context.Context, t *txState, p txPart) error {
	if u.poison != nil {
		return u.poison
	}
	b, c, err := u.reverting(p.Name)
	if err != nil {
		return err
	}
	u.report(Progress{Step: "revert", Component: p.Name})
	revert := func(ctx context.Context) error { return b.Revert(ctx, t.ID, c) }
	err = u.run(ctx, u.opts.StepLimit, revert)
	if err != nil && u.poison == nil {
		u.kick()
		if errors.Is(err, ErrDigest) {
			u.mend(ctx, b, p)
		}
		if u.poison == nil {
			err = u.persist(ctx, revert)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot revert %s: %w", p.Name, err)
	}
	u.addDowntime(t, b)
	u.kick()
	return nil
}

// mend repairs the old component from the local copy, for a Revert that
// brought it back but found it damaged. Whether it helped shows the next
// Revert. After any other failure it would do harm: what was changed on the
// device by hand before is damage to a Repair, and has to come back.
func (u *Updater) mend(ctx context.Context, b Backend, p txPart) {
	r, ok := b.(Repairer)
	if !ok {
		return
	}
	a, err := u.active(ctx, p.Name)
	if err != nil || !a.Is(p.Before.Digest) {
		return
	}
	old, ok := u.rec.part(p.Name, p.Before.Digest)
	if !ok {
		return
	}
	c, err := u.installedComponent(old)
	if err != nil {
		return
	}
	err = u.run(ctx, u.opts.StageLimit, func(ctx context.Context) error {
		_, err := r.Repair(ctx, c, u.local())
		return err
	})
	u.report(Progress{Step: "repair", Component: p.Name, Err: err})
	u.kick()
}

// activationOrder returns the parts that change: first those that need a
// reboot, then the others, each class in the release's order.
func activationOrder(parts []txPart) []txPart {
	var order []txPart
	for _, class := range []func(Effect) bool{isReboot, notReboot} {
		for _, p := range parts {
			if !p.Same && class(p.Effect) {
				order = append(order, p)
			}
		}
	}
	return order
}

// reverting returns what Revert is called with. Where the release document
// was lost the name has to do: a backend goes back by what it noted itself.
func (u *Updater) reverting(name string) (Backend, release.Component, error) {
	if u.rel != nil {
		return u.component(u.rel, name)
	}
	b, err := u.backend(name)
	return b, release.Component{Name: name}, err
}

// persist calls one step of a backend until it succeeds, a bounded number of
// times. A try that failed in its time is a step that ended: the device does
// not hang.
func (u *Updater) persist(ctx context.Context, step func(context.Context) error) error {
	for try := 0; ; try++ {
		err := u.run(ctx, u.opts.StepLimit, step)
		if u.poison == nil {
			u.kick()
		}
		if err == nil || try == len(retryPauses) || u.poison != nil {
			return err
		}
		u.report(Progress{Step: "retry", Err: err})
		if err := u.host.Sleep(ctx, retryPauses[try]); err != nil {
			return err
		}
		u.kick()
	}
}

// allOld asks the device whether everything is as it was, and whether that
// still takes a boot.
func (u *Updater) allOld(ctx context.Context, t *txState) (reboot bool, err error) {
	for _, p := range t.Parts {
		if p.Same {
			continue // it was left alone
		}
		a, err := u.active(ctx, p.Name)
		switch {
		case err != nil:
			return false, err
		case asBefore(a, p.Before):
		case !a.Next.IsZero() && (a.Next == p.Before.Digest || a.Next == p.Before.Next):
			reboot = true
		case p.Before.State == None && p.Effect == NeedsReboot:
			reboot = true // no component can be named for the next boot
		default:
			return false, fmt.Errorf("%s was reverted, but the device says %s, and said %s before", p.Name, describe(a), describe(p.Before))
		}
	}
	return reboot, nil
}

// asBefore compares what is with what was. What was mixed has no name that it
// could be compared by.
func asBefore(now, before Active) bool {
	if !before.Next.IsZero() && now.Is(before.Next) {
		return true // a boot has ended since, as it had to already
	}
	switch before.State {
	case Whole:
		return now.Is(before.Digest) && (now.Next.IsZero() || now.Next == before.Digest || now.Next == before.Next)
	case None:
		return now.State == None
	default:
		return true
	}
}

// askReboot records that this boot has to end, a bounded number of times.
func (u *Updater) askReboot(t *txState, forward bool) error {
	if t.Rearms++; t.Rearms > maxRearms {
		return u.stuck(t, forward, fmt.Errorf("%d boots did not bring up what was armed", maxRearms))
	}
	t.Armed = u.boot
	if err := u.save(); err != nil {
		return err
	}
	return fmt.Errorf("%w: on the way %s", ErrRebootPending, t.State)
}

// stuck records that neither way could be gone to its end, for now.
func (u *Updater) stuck(t *txState, forward bool, cause error) error {
	if u.poison != nil {
		return fmt.Errorf("%w: %w", ErrPoisoned, u.poison)
	}
	t.State, t.Forward, t.Rearms = Stuck, forward, 0
	if why := clip(cause.Error(), maxReason/2); !strings.Contains(t.Reason, why) {
		t.Reason = clip(strings.TrimPrefix(t.Reason+"; "+why, "; "), maxReason)
	}
	t.Tries++
	u.retryAt = u.host.Uptime() + backoff(t.Tries)
	if err := u.save(); err != nil {
		return err
	}
	u.disarm()
	return fmt.Errorf("%w: %w", ErrStuck, cause)
}

// reverted records that the device is as it was before t.
func (u *Updater) reverted(ctx context.Context, t *txState) error {
	r := t.result()
	r.State = Reverted
	// The program that runs may be the one that was just taken back: it was
	// started after the switch, and not by a boot after the way back.
	if t.needs(NeedsRestart) && t.Live != notBegun && t.By != u.process && t.Armed == "" {
		r.Needs = NeedsRestart
	}
	r = u.end(t, r)
	if t.Blame != blameNone && !t.Back {
		u.rec.hold(t.To.ID, u.attempt(), t.Blame == blameRelease, u.host.Now(), t.Reason)
	}
	u.rec.Tx = nil
	if n := len(u.rec.Over); n > 0 {
		last := u.rec.Over[n-1]
		u.rec.Tx, u.rec.Over = &last, u.rec.Over[:n-1]
	}
	return u.close(ctx, r)
}

func (u *Updater) attempt() uint32 {
	if u.rel == nil {
		return 0
	}
	return u.rel.Attempt
}

// end writes the history's line of t.
func (u *Updater) end(t *txState, r Result) Result {
	r.Ended = u.host.Now().UTC().Truncate(time.Second)
	u.charge(t)
	r.Bytes, r.Fetched, r.Took, r.Downtime = t.Bytes, t.Fetched, t.Took, t.Down
	r.Reason = clip(r.Reason, 512)
	brief := r
	brief.Scripts = past(r.Scripts)
	u.rec.remember(brief)
	return r
}

// close makes the end of a transaction durable, and then drops what it leaves
// behind.
func (u *Updater) close(ctx context.Context, r Result) error {
	u.rec.Owed, u.rel, u.brought, u.silent = true, nil, false, nil
	if u.rec.Tx != nil { // an older one that is stuck is open again
		u.rel, _ = u.document(u.rec.Tx.To.Digest)
	}
	u.ended = &r
	if err := u.save(); err != nil {
		return err
	}
	u.disarm()
	u.report(Progress{Step: string(r.State), State: r.State, To: r.To, Tx: r.Tx, Result: &r})
	u.tidy(ctx)
	return nil
}
