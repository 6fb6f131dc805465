package ota

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/pawl-ota/pawl/ota/release"
)

// Bounds of what the journal remembers.
const (
	maxHistory = 24
	maxHeld    = 32
	maxKept    = 16
	maxOver    = 4
	maxReason  = 2048 // bytes
)

// record is the body of the journal: all that the Updater knows of the device
// beside the blobs.
type record struct {
	Running *running  `json:"running,omitempty"`
	Kept    []running `json:"kept,omitempty"` // newest first
	// SecurityFloor and DataFloor rise only with the record of a commit and by
	// SetDataFloor.
	SecurityFloor uint64   `json:"securityFloor,omitempty"`
	DataFloor     uint64   `json:"dataFloor,omitempty"`
	Tx            *txState `json:"tx,omitempty"`
	// Over are stuck transactions that Tx was begun over, oldest first.
	Over    []txState `json:"over,omitempty"`
	Held    []Held    `json:"held,omitempty"`
	History ended     `json:"history,omitempty"`
	// Owed is set while something of ended transactions may still lie about.
	Owed bool `json:"owed,omitempty"`
}

// ended is how transactions ended, the newest last. A later program may have
// written fields that this one does not know: nothing is decided by them, so
// they are left out, where elsewhere in the journal they are refused.
type ended []Result

func (e *ended) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, (*[]Result)(e)) }

// running is a release that was committed here, with all components that were
// in effect then. A component that a later release does not list stays.
type running struct {
	Installed
	Parts []part `json:"parts"`
}

// part is one component as it was committed.
type part struct {
	Name    string         `json:"name"`
	Digest  release.Digest `json:"digest"`  // of the component
	Release release.Digest `json:"release"` // the document that lists it
}

// txState is one transaction.
type txState struct {
	ID    TxID      `json:"id"`
	State State     `json:"state"`
	To    Installed `json:"to"`
	From  Installed `json:"from"`
	// Locator is the stored locator document; zero for a way back that needs
	// none.
	Locator release.Digest `json:"locator,omitzero"`
	// Back is set for a Rollback to a kept release: no network is used.
	Back  bool     `json:"back,omitempty"`
	Parts []txPart `json:"parts"`
	// Scripts are those that were begun, in that order.
	Scripts []txScript `json:"scripts,omitempty"`
	// Doubt is set when a record of the transaction was lost, which may have
	// begun a script.
	Doubt bool `json:"doubt,omitempty"`

	// Reason is why it goes back, Blame what that means for the release.
	Reason string `json:"reason,omitempty"`
	Blame  blame  `json:"blame,omitempty"`

	// Armed is the boot that has to end: components were armed for the next.
	Armed string `json:"armed,omitempty"`
	// Live says how far the components that need no reboot are: not begun,
	// begun, or all of them in effect once.
	Live progress `json:"live,omitempty"`
	// By is the process that activated what needs a restart: it has to be
	// replaced.
	By string `json:"by,omitempty"`
	// Seen is the last process that Resume counted.
	Seen   string `json:"seen,omitempty"`
	Starts int    `json:"starts,omitempty"`
	// Rearms counts boots asked for after the commit point, or in a revert.
	Rearms int `json:"rearms,omitempty"`
	// Forward is the way that a stuck transaction was going, Tries how often.
	Forward bool `json:"forward,omitempty"`
	Tries   int  `json:"tries,omitempty"`

	Bytes   int64         `json:"bytes,omitempty"`
	Fetched Fetched       `json:"fetched,omitzero"`
	Began   time.Time     `json:"began"`
	Elapsed time.Duration `json:"elapsed,omitempty"` // of the trial, running time
	Took    time.Duration `json:"took,omitempty"`
	Down    time.Duration `json:"down,omitempty"`
}

// txPart is one component of a transaction.
type txPart struct {
	Name   string         `json:"name"`
	Digest release.Digest `json:"digest"`
	Effect Effect         `json:"effect,omitempty"` // known once staged
	// Before is what Active said at Begin.
	Before Active `json:"before"`
	// Same is set when the component was in effect before and is left alone.
	Same bool `json:"same,omitempty"`
}

// progress is a word for how far a group of steps is.
type progress string

const (
	notBegun progress = ""
	begun    progress = "begun"
	done     progress = "done"
)

// blame is a word for what going back means for the release.
type blame string

const (
	blameNone    blame = ""        // nothing: it was not wanted any more
	blameCut     blame = "cut"     // it was cut short: back off
	blameRelease blame = "release" // it failed its trial: condemned
)

// needs reports whether any component that changes has the effect e.
func (t *txState) needs(e Effect) bool {
	for _, p := range t.Parts {
		if !p.Same && p.Effect == e {
			return true
		}
	}
	return false
}

func (t *txState) result() Result {
	r := Result{
		Tx: t.ID, State: t.State, From: t.From, To: t.To, Back: t.Back, Reason: t.Reason,
		Condemned: t.Blame == blameRelease, Bytes: t.Bytes, Fetched: t.Fetched, Starts: t.Starts, Began: t.Began, Took: t.Took,
		Downtime: t.Down, Scripts: t.scriptRuns(),
	}
	return r
}

// load reads a record from the body of the journal. Fields and states that it
// does not know are refused: they may matter.
func load(body []byte) (*record, error) {
	rec := new(record)
	if body == nil {
		return rec, nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(rec); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: something follows the record", ErrJournal)
	}
	open := rec.Over
	if rec.Tx != nil {
		open = append(open[:len(open):len(open)], *rec.Tx)
	}
	for _, t := range open {
		if err := t.known(); err != nil {
			return nil, fmt.Errorf("%w: transaction %.64q: %w", ErrJournal, t.ID, err)
		}
	}
	return rec, nil
}

func (t *txState) known() error {
	switch t.State {
	case Staging, Staged, Activating, InTrial, Committing, Reverting, Stuck:
	default:
		return fmt.Errorf("unknown state %.40q", t.State)
	}
	switch t.Live {
	case notBegun, begun, done:
	default:
		return fmt.Errorf("unknown word %.40q", t.Live)
	}
	switch t.Blame {
	case blameNone, blameCut, blameRelease:
	default:
		return fmt.Errorf("unknown word %.40q", t.Blame)
	}
	for _, s := range t.Scripts {
		if !s.known() {
			return fmt.Errorf("unknown words %.40q and %.40q", s.Outcome, s.At)
		}
	}
	for _, p := range t.Parts {
		if !knownEffect(p.Effect) {
			return fmt.Errorf("unknown effect %.40q", p.Effect)
		}
		switch p.Before.State {
		case None, Whole, Mixed:
		default:
			return fmt.Errorf("unknown presence %.40q", p.Before.State)
		}
	}
	return nil
}

func knownEffect(e Effect) bool {
	return e == "" || e == Live || e == NeedsRestart || e == NeedsReboot
}

// remember adds an ended transaction to the history.
func (rec *record) remember(r Result) {
	rec.History = append(rec.History, r)
	if over := len(rec.History) - maxHistory; over > 0 {
		rec.History = rec.History[over:]
	}
}

// part returns the component of the running release that has the name and the
// digest.
func (rec *record) part(name string, d release.Digest) (part, bool) {
	if rec.Running == nil {
		return part{}, false
	}
	i := slices.IndexFunc(rec.Running.Parts, func(p part) bool { return p.Name == name && p.Digest == d })
	if i < 0 {
		return part{}, false
	}
	return rec.Running.Parts[i], true
}

// held returns what holds back the release id with the given attempt number.
func (rec *record) held(id release.ID, attempt uint32) *Held {
	if h := rec.noted(id); h != nil && h.Attempt >= attempt {
		return h
	}
	return nil
}

func (rec *record) noted(id release.ID) *Held {
	for i := range rec.Held {
		if rec.Held[i].ID == id {
			return &rec.Held[i]
		}
	}
	return nil
}

// backoff is how long a release that was cut short count times is held back:
// not at all the first time, then 1 minute, doubled each time, to a day.
func backoff(count int) time.Duration {
	if count < 2 {
		return 0
	}
	return min(time.Minute<<min(count-2, 20), 24*time.Hour)
}

// hold notes that a release failed or was cut short here.
func (rec *record) hold(id release.ID, attempt uint32, condemn bool, now time.Time, reason string) {
	h := rec.noted(id)
	if h == nil {
		rec.Held = append(rec.Held, Held{ID: id, Attempt: attempt})
		h = &rec.Held[len(rec.Held)-1]
	}
	if attempt > h.Attempt {
		*h = Held{ID: id, Attempt: attempt}
	}
	h.Count++
	h.Condemned = h.Condemned || condemn
	h.Until = now.Add(backoff(h.Count)).UTC().Truncate(time.Second)
	h.Reason = clip(reason, 256)
	if over := len(rec.Held) - maxHeld; over > 0 {
		rec.Held = rec.Held[over:]
	}
}

// releaseHolds drops the notes on releases up to id: they can never be installed.
func (rec *record) releaseHolds(id release.ID) {
	kept := rec.Held[:0]
	for _, h := range rec.Held {
		if h.Product == id.Product && h.Variant == id.Variant && h.Seq > id.Seq {
			kept = append(kept, h)
		}
	}
	rec.Held = kept
}

// clip bounds a text for the journal.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most-3] + "…"
}
