package monitor

import (
	"encoding/json"
	"math"
	"time"
)

// EventFormat is the format of an event's JSON.
const EventFormat = "pawl-event/0"

// Kind says what happened. It is stored as its word.
type Kind string

// The values of [Kind]. Those that end a transaction come after what they say
// was made durable: a release is never reported as committed before it is.
const (
	Boot      Kind = "boot"      // the program started, first in this boot
	Begin     Kind = "begin"     // a transaction began
	Staged    Kind = "staged"    // all of the release is on the device
	Activated Kind = "activated" // the release is in effect, on trial; once in each run
	Committed Kind = "committed"
	Reverted  Kind = "reverted" // Reason says why
	Stuck     Kind = "stuck"    // neither way could be gone to its end
	Held      Kind = "held"     // the newest release is held back; Reason says why
	Failed    Kind = "failed"   // an attempt came to nothing, and will be made again
	Repaired  Kind = "repaired" // damage was found and mended; Reason lists what could not be
	Alert     Kind = "alert"    // a rule of the device or of the release
	Lost      Kind = "lost"     // Values count what could not be kept for sending
	Changed   Kind = "probe"    // a probe became well or sick
	Sample    Kind = "sample"   // Values are measurements
)

// Keep reports whether events of this kind are results, which are kept at the
// expense of all others until they are sent.
func (k Kind) Keep() bool { return k != Changed && k != Sample }

// Release names a release.
type Release struct {
	Product string `json:"product,omitempty"`
	Variant string `json:"variant,omitempty"`
	Seq     uint64 `json:"seq"`
	Version string `json:"version,omitempty"`
	// Digest is of the release document, with its algorithm.
	Digest string `json:"digest,omitempty"`
}

// Bytes are what was fetched so far, by cause.
type Bytes struct {
	Metadata int64 `json:"metadata"`
	Content  int64 `json:"content"`
	Report   int64 `json:"report"`
	Wasted   int64 `json:"wasted"`
}

// Event is one thing that happened on the device. Whoever emits one sets the
// kind and what belongs to it; the [Stream] fills in what stands above Release,
// and Release where it is nil.
type Event struct {
	Format string `json:"format"`
	Kind   Kind   `json:"kind"`
	Device string `json:"device"`
	// Run is a random word that is new at each start of the program, and Seq
	// counts the events of one run from 1: together they are in order and
	// are an event's identity.
	Run string `json:"run"`
	Seq uint64 `json:"seq"`
	// Boot is new at each boot; Uptime is the running time since then in
	// nanoseconds, suspended time included, which never jumps.
	Boot   string        `json:"boot,omitempty"`
	Uptime time.Duration `json:"uptimeNs"`
	// Time is the wall clock, and TimeTrusted whether that was set by a source
	// of time in this boot.
	Time        time.Time `json:"time"`
	TimeTrusted bool      `json:"timeTrusted"`

	// Release is what the event is about, or what runs.
	Release *Release `json:"release,omitempty"`
	From    *Release `json:"from,omitempty"` // ran before
	// Tx is the same in all events of a transaction.
	Tx        string `json:"tx,omitempty"`
	Component string `json:"component,omitempty"`
	// Reason says why, in one line of at most 512 bytes.
	Reason string `json:"reason,omitempty"`
	// Needs is "restart" or "reboot" where that has to happen next.
	Needs string `json:"needs,omitempty"`
	// Condemned is whether the release will not be tried again by itself.
	Condemned bool `json:"condemned,omitempty"`
	// Back is whether it is the way back to a kept release.
	Back  bool   `json:"back,omitempty"`
	Bytes *Bytes `json:"bytes,omitempty"`
	// Took is running time in nanoseconds.
	Took  time.Duration `json:"tookNs,omitempty"`
	Probe *Answer       `json:"probe,omitempty"`
	// Name is what an alert or a sample is known by.
	Name   string             `json:"name,omitempty"`
	Values map[string]float64 `json:"values,omitempty"`

	// Key, where it is set, tells the [Sink] by what it can be asked whether
	// it had this event before.
	Key string `json:"-"`
}

const (
	maxEventReason = 512
	maxWord        = 128 // bytes of an id or a name
	maxValues      = 256
)

// bounded cuts everything in e that may have come from outside.
func (e *Event) bounded() {
	for _, s := range []*string{&e.Device, &e.Boot, &e.Tx, &e.Component, &e.Needs, &e.Name, (*string)(&e.Kind)} {
		*s = line(*s, maxWord)
	}
	e.Reason = line(e.Reason, maxEventReason)
	e.Release, e.From = e.Release.bounded(), e.From.bounded()
	if e.Probe != nil {
		p := *e.Probe
		p.Probe, p.Saw, p.Error = line(p.Probe, maxName), line(p.Saw, maxText), line(p.Error, maxText)
		e.Probe = &p
	}
	e.Values = numbers(e.Values)
}

func (r *Release) bounded() *Release {
	if r == nil {
		return nil
	}
	return &Release{line(r.Product, maxWord), line(r.Variant, maxWord), r.Seq, line(r.Version, maxWord), line(r.Digest, maxWord)}
}

// numbers copies what JSON can hold.
func numbers(values map[string]float64) map[string]float64 {
	if len(values) == 0 {
		return nil
	}
	out := make(map[string]float64, min(len(values), maxValues))
	for name, v := range values {
		if !math.IsNaN(v) && !math.IsInf(v, 0) && len(out) < maxValues {
			out[line(name, maxWord)] = v
		}
	}
	return out
}

// encode returns the event as JSON.
func (e *Event) encode() ([]byte, error) { return json.Marshal(e) }
