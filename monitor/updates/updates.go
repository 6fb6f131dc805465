// Package updates makes events of what an [ota.Updater] does:
//
//	r := updates.New(updates.Options{Stream: stream})
//	options.Progress = r.Progress
//	u, err := ota.Open(ctx, options)
//	…
//	r.CatchUp(u.History(), box.LastKey())
//	result, err := u.Update(ctx)
//	r.Outcome(result, err)
//
// The end of a transaction is told by the Updater after it was made durable. A
// program that was killed right then finds it in the history: CatchUp emits what
// the sink did not have yet. A [Late] goes on watching what was committed, and goes
// back from it when it becomes sick.
package updates

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/ota"
)

// Options configure a Reporter. Stream is needed.
type Options struct {
	Stream *monitor.Stream
	// Bytes returns what was fetched so far, by cause; nil leaves it out.
	Bytes func() monitor.Bytes
}

// Reporter emits events. It is safe for concurrent use.
type Reporter struct {
	o Options

	mu   sync.Mutex
	said map[monitor.Kind]string // the last of a kind that may come again and again
	told map[string]bool         // keys of ends
}

// New returns a Reporter.
func New(o Options) *Reporter {
	return &Reporter{o: o, said: map[monitor.Kind]string{}, told: map[string]bool{}}
}

// Progress takes the steps of a transaction. It fits ota.Options.Progress.
func (r *Reporter) Progress(p ota.Progress) {
	if p.Result != nil {
		r.end(*p.Result)
		return
	}
	e := monitor.Event{Tx: string(p.Tx), Release: of(p.To), Component: p.Component}
	if e.Tx != "" {
		r.o.Stream.During(e.Tx, e.Release)
	}
	switch {
	case p.Step == "begin":
		e.Kind = monitor.Begin
	case p.Step == "staged":
		e.Kind, e.Bytes = monitor.Staged, r.bytes()
	case p.Step == "health" && !r.again(monitor.Activated, e.Tx):
		e.Kind = monitor.Activated
	default:
		return
	}
	r.o.Stream.Emit(e)
}

func (r *Reporter) bytes() *monitor.Bytes {
	if r.o.Bytes == nil {
		return nil
	}
	b := r.o.Bytes()
	return &b
}

// end emits how a transaction ended, once.
func (r *Reporter) end(res ota.Result) {
	key := keyOf(res)
	r.mu.Lock()
	known := r.told[key]
	r.told[key] = true
	r.mu.Unlock()
	if known {
		return
	}
	r.o.Stream.During("", nil)
	e := event(res)
	e.Kind, e.Key, e.Bytes = monitor.Kind(res.State), key, r.bytes()
	if res.State == ota.Committed {
		r.o.Stream.Running(*e.Release)
	}
	r.o.Stream.Emit(e)
}

func keyOf(res ota.Result) string { return string(res.Tx) + "/" + string(res.State) }

// CatchUp emits the ends of transactions that the sink does not have: those in
// the history after the one whose key is last, which is what the sink took last;
// all of them when that is not among them. It belongs right after ota.Open.
func (r *Reporter) CatchUp(history []ota.Result, last string) {
	from := 0
	for i, res := range history {
		if keyOf(res) == last {
			from = i + 1
		}
	}
	for _, res := range history[from:] {
		r.end(res)
	}
}

// Outcome emits what a verb of the Updater returned where that is no end that
// was told already: a release that is held back, a transaction that is stuck, an
// attempt that came to nothing. The same outcome twice in a row is told once.
func (r *Reporter) Outcome(res ota.Result, err error) {
	e := event(res)
	switch {
	case err == nil, errors.Is(err, ota.ErrUnhealthy), errors.Is(err, ota.ErrUpToDate),
		errors.Is(err, ota.ErrRestartPending), errors.Is(err, ota.ErrRebootPending):
		r.forget()
		return
	case errors.Is(err, ota.ErrStuck):
		e.Kind = monitor.Stuck
	case errors.Is(err, ota.ErrHeld):
		e.Kind = monitor.Held
	default:
		e.Kind = monitor.Failed
	}
	e.Reason = err.Error()
	if r.again(e.Kind, e.Tx+e.Reason) {
		return
	}
	e.Bytes = r.bytes()
	r.o.Stream.Emit(e)
}

func (r *Reporter) again(k monitor.Kind, what string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	again := r.said[k] == what
	r.said[k] = what
	return again
}

func (r *Reporter) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range []monitor.Kind{monitor.Stuck, monitor.Held, monitor.Failed} {
		delete(r.said, k)
	}
}

// Repaired emits what a Repair left damaged. found is what a Verify had found
// before: without any there is nothing to tell.
func (r *Reporter) Repaired(found, left []ota.Damage, err error) {
	if len(found) == 0 && err == nil {
		return
	}
	var reasons []string
	if err != nil {
		reasons = append(reasons, err.Error())
	}
	for _, d := range left {
		reasons = append(reasons, d.String())
	}
	r.o.Stream.Emit(monitor.Event{
		Kind: monitor.Repaired, Reason: strings.Join(reasons, "; "),
		Values: map[string]float64{"found": float64(len(found)), "left": float64(len(left))},
	})
}

func event(res ota.Result) monitor.Event {
	e := monitor.Event{
		Tx: string(res.Tx), Release: of(res.To), From: of(res.From), Reason: res.Reason,
		Condemned: res.Condemned, Back: res.Back, Took: res.Took,
	}
	if res.Needs != ota.Live {
		e.Needs = string(res.Needs)
	}
	return e
}

func of(i ota.Installed) *monitor.Release {
	if i.Seq == 0 {
		return nil
	}
	return &monitor.Release{
		Product: i.Product, Variant: i.Variant, Seq: i.Seq, Version: i.Version, Digest: fmt.Sprint(i.Digest),
	}
}
