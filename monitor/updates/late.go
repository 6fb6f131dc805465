package updates

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// Late goes on asking for health after a release was committed, and goes back to
// the one before when it is sick: by a new transaction with a trial of its own,
// whose content is on the device. A program calls Watch in the time between two
// updates:
//
//	late := updates.Late{File: "/var/lib/device/late", Health: health.Check, Stream: stream}
//	for {
//		result, err := u.Update(ctx)
//		…
//		within, cancel := context.WithTimeout(ctx, untilTheNextUpdate)
//		result, err = late.Watch(within, u)
//
// A release can forbid it ([release.LateForbidden]). Where no component keeps a
// previous release, there is nothing to go back to; nor is there below a floor,
// such as the one that an app sets with ota.Updater.SetDataFloor once its data was
// migrated. What else should forbid it, Allow can ask for.
//
// It goes back once for a release: when the old one does not prove itself either,
// the cause lies elsewhere, and the release stays; so it does when the way back
// was cut short four times. One that was gone back from is held back, as after
// every Rollback.
type Late struct {
	// File keeps how long a release was watched, durably. Health is asked. Both
	// are needed.
	File   string
	Health ota.Check
	// For is the running time after the commit, over restarts and boots, for
	// which health is asked; 0 means 1 hour. It ends with a good answer.
	For time.Duration
	// Interval is the time between two questions, 0 means 30 s, and Timeout
	// how long one answer may take, 0 means 10 s.
	Interval, Timeout time.Duration
	// Failures is how many sick answers in a row lead back; 0 means 10.
	Failures int
	// Allow may forbid to go back from what was committed; nil allows it.
	Allow func(committed ota.Result) error
	// Stream is told, by an alert of the name "late-rollback", that it goes
	// back and why, or why it cannot; nil is not.
	Stream *monitor.Stream
}

// ErrForbidden is returned by Watch where the release does not allow what is due.
var ErrForbidden = errors.New("the release forbids to go back from it after its commit")

func (l Late) withDefaults() (Late, error) {
	switch {
	case l.File == "" || l.Health == nil:
		return l, errors.New("updates: late: field File is empty, or Health is nil")
	case l.For < 0 || l.Interval < 0 || l.Timeout < 0 || l.Failures < 0:
		return l, errors.New("updates: late: a time or a number is negative")
	}
	l.For, l.Failures = cmp.Or(l.For, time.Hour), cmp.Or(l.Failures, 10)
	l.Interval, l.Timeout = cmp.Or(l.Interval, 30*time.Second), cmp.Or(l.Timeout, 10*time.Second)
	return l, nil
}

// Watch asks for health until what was committed last need not be watched any
// more; until it is sick for long, when it returns what u.Rollback does; or until
// ctx ends, whose error it returns. The next Watch goes on. While it runs no other
// verb of u may ask for health. u has to be settled, by Update or Resume; with a
// transaction that is open there is nothing to watch.
func (l Late) Watch(ctx context.Context, u *ota.Updater) (ota.Result, error) {
	l, err := l.withDefaults()
	if err != nil {
		return ota.Result{}, err
	}
	w := &watch{Late: l, u: u}
	for {
		c, ok := w.subject()
		if !ok {
			return ota.Result{}, nil
		}
		began := time.Now()
		t := time.NewTimer(l.Interval)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ota.Result{}, ctx.Err()
		}
		err := w.ask(ctx)
		if ctx.Err() != nil {
			return ota.Result{}, ctx.Err()
		}
		if now, ok := w.subject(); !ok || now.Tx != c.Tx {
			continue
		}
		w.state.Watched += time.Since(began)
		if res, err, over := w.judge(ctx, c, err); over {
			return res, err
		}
	}
}

// watch is one Watch.
type watch struct {
	Late
	u        *ota.Updater
	state    watched
	saved    time.Duration // of state.Watched
	failures int           // in a row
	open     chan error    // of a question that was not answered in time
}

const (
	lateFormat = "pawl-late/0"
	maxBack    = 4 // transactions that were cut short
)

// watched is what the file holds.
type watched struct {
	Format  string        `json:"format"`
	Tx      ota.TxID      `json:"tx"` // that committed what is watched
	Watched time.Duration `json:"watchedNs"`
	Over    bool          `json:"over,omitempty"`
}

// subject returns the commit that is to be watched.
func (w *watch) subject() (c ota.Result, ok bool) {
	status, back := w.u.Status(), 0
	for _, r := range w.u.History() {
		switch {
		case r.State == ota.Committed:
			c, back = r, 0
		case r.Back && r.From.Digest == c.To.Digest && r.Condemned: // the one before did not prove itself
			back = maxBack
		case r.Back && r.From.Digest == c.To.Digest: // it was cut short
			back++
		}
	}
	if back >= maxBack || status.State != ota.Idle || c.Back || c.From.Seq == 0 || c.To.Digest != status.Running.Digest {
		return ota.Result{}, false
	}
	if w.state.Tx != c.Tx {
		w.state, w.failures = w.load(c.Tx), 0
		w.saved = w.state.Watched
	}
	return c, !w.state.Over
}

// load reads what is known of the transaction: nothing, when the file is damaged
// or of another one.
func (w *watch) load(tx ota.TxID) watched {
	var s watched
	data, err := os.ReadFile(w.File)
	if err != nil || json.Unmarshal(data, &s) != nil || s.Format != lateFormat || s.Tx != tx || s.Watched < 0 {
		return watched{Format: lateFormat, Tx: tx}
	}
	return s
}

func (w *watch) save() error {
	data, err := json.Marshal(w.state)
	if err == nil {
		err = durable.WriteFile(w.File, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot note how long the release was watched: %w", err)
	}
	w.saved = w.state.Watched
	return nil
}

// judge counts an answer, and goes back where that is due.
func (w *watch) judge(ctx context.Context, c ota.Result, sick error) (res ota.Result, err error, over bool) {
	if sick == nil {
		w.failures = 0
		if w.state.Watched >= w.For {
			w.state.Over = true
			return res, w.save(), true
		}
	} else if w.failures++; w.failures >= w.Failures {
		res, err = w.back(ctx, c, sick)
		return res, err, true
	}
	if w.state.Watched-w.saved >= w.For/16 {
		_ = w.save() // where it is not noted, it is watched for longer
	}
	return res, nil, false
}

// back returns to what ran before c.
func (w *watch) back(ctx context.Context, c ota.Result, sick error) (ota.Result, error) {
	why := fmt.Sprintf("%s, %d times in a row after the commit: %v", c.To, w.failures, sick)
	doc, err := w.u.Document()
	if err != nil {
		return ota.Result{}, fmt.Errorf("cannot tell whether the way back is allowed from %s: %w", why, err)
	}
	if doc.LateRollback == release.LateForbidden {
		err = ErrForbidden
	} else if w.Allow != nil {
		err = w.Allow(c)
	}
	if err != nil {
		return w.stay(why, err)
	}
	w.tell("going back from "+why, 1)
	res, err := w.u.Rollback(ctx, c.From.Seq)
	for _, never := range []error{ota.ErrNothingKept, ota.ErrFloor, ota.ErrNotLocal, ota.ErrComponent} {
		if errors.Is(err, never) {
			return w.stay(why, err)
		}
	}
	return res, err
}

// stay says why there is no way back, and watches no more.
func (w *watch) stay(why string, err error) (ota.Result, error) {
	w.tell("cannot go back: "+err.Error()+"; "+why, 0)
	w.state.Over = true
	return ota.Result{}, errors.Join(fmt.Errorf("cannot go back from %s: %w", why, err), w.save())
}

func (w *watch) tell(reason string, back float64) {
	if w.Stream != nil {
		w.Stream.Emit(monitor.Event{Kind: monitor.Alert, Name: "late-rollback", Reason: reason, Values: map[string]float64{"firing": 1, "back": back}})
	}
}

// ask puts the question. One that is not answered in time is a bad answer, and
// no other is put before it was answered.
func (w *watch) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	if w.open == nil {
		answer := make(chan error, 1)
		w.open = answer
		go func() {
			err := errors.New("ended without an answer")
			defer func() {
				if p := recover(); p != nil {
					err = fmt.Errorf("panicked: %v", p)
				}
				answer <- err
			}()
			err = w.Health(ctx)
		}()
	}
	select {
	case err := <-w.open:
		w.open = nil
		return err
	case <-ctx.Done():
		return fmt.Errorf("no answer within %v", w.Timeout)
	}
}
