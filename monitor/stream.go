package monitor

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"iter"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Sink takes events to be sent. Append returns at once, whatever a disk does,
// and has no error: what it could not keep it counts. data is the sink's from
// then on. keep says that it is a result; key is [Event.Key].
type Sink interface {
	Append(keep bool, key string, data []byte)
}

// StreamOptions configure a [Stream]. Device is needed.
type StreamOptions struct {
	// Device is the name of the device, at most 128 bytes.
	Device string
	// Sink takes every event as JSON; nil takes none.
	Sink Sink
	// Now returns the wall clock, and whether to trust it; nil means
	// [WallClock].
	Now func() (t time.Time, trusted bool)
	// Uptime is the running time since boot; nil asks the system.
	Uptime func() time.Duration
	// Boot is a word that is new at each boot; empty asks the system.
	Boot string
}

// Stream numbers and dates the events of one device. It is safe for concurrent
// use.
type Stream struct {
	o      StreamOptions
	run    string
	failed atomic.Uint64

	mu      sync.Mutex
	seq     uint64
	running *Release
	tx      string
	during  *Release // what tx is about
	readers map[*reader]bool
}

// NewStream returns a Stream. An error names the option that is wrong.
func NewStream(o StreamOptions) (*Stream, error) {
	if o.Device == "" || line(o.Device, maxWord) != o.Device {
		return nil, errors.New("monitor: stream: Device is empty, longer than 128 bytes or not one line of text")
	}
	if o.Now == nil {
		o.Now = WallClock
	}
	if o.Uptime == nil {
		o.Uptime = bootClock
	}
	if o.Boot == "" {
		id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // events without one are better than none
		o.Boot = string(bytes.TrimSpace(id))
	}
	return &Stream{o: o, run: rand.Text()[:16], readers: map[*reader]bool{}}, nil
}

// WallClock returns the time, and trusts it when the kernel says that something keeps it in
// step (adjtimex(2)): without that it may be of a battery, or of 1970.
func WallClock() (time.Time, bool) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return time.Now(), err == nil && state != unix.TIME_ERROR
}

func bootClock() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// Running says which release runs: events that name none carry it from now on.
func (s *Stream) Running(r Release) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = &r
}

// During says which transaction is open, and to which release: events that name
// none carry it from now on, until it is told an empty tx.
func (s *Stream) During(tx string, r *Release) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tx, s.during = tx, r
}

// Emit hands e to the sink and to whoever listens. It waits for nobody, and
// cannot fail: Failed counts what went wrong.
func (s *Stream) Emit(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		if recover() != nil { // out of a sink that is not ours
			s.failed.Add(1)
		}
	}()
	s.fill(&e)
	for r := range s.readers {
		r.push(e)
	}
	if s.o.Sink == nil {
		return
	}
	data, err := e.encode()
	if err != nil {
		s.failed.Add(1)
		return
	}
	s.o.Sink.Append(e.Kind.Keep(), e.Key, data)
}

func (s *Stream) fill(e *Event) {
	s.seq++
	e.Format, e.Device, e.Run, e.Seq, e.Boot = EventFormat, s.o.Device, s.run, s.seq, s.o.Boot
	now, trusted := s.o.Now()
	e.Time, e.TimeTrusted, e.Uptime = now.UTC().Truncate(time.Millisecond), trusted, s.o.Uptime()
	if e.Tx == "" && s.tx != "" {
		e.Tx = s.tx
		if e.Release == nil {
			e.Release = s.during
		}
	}
	if e.Release == nil {
		e.Release = s.running
	}
	e.bounded()
}

// Failed returns how many events could not be written as JSON, or made the
// sink panic.
func (s *Stream) Failed() uint64 { return s.failed.Load() }

// Probe emits the change of a probe. It fits [HealthOptions.Changed].
func (s *Stream) Probe(a Answer) {
	s.Emit(Event{Kind: Changed, Name: a.Probe, Reason: a.Error, Probe: &a})
}

// Sample emits measurements. Values that JSON cannot hold are left out, and
// those above 256.
func (s *Stream) Sample(name string, values map[string]float64) {
	s.Emit(Event{Kind: Sample, Name: name, Values: values})
}

// LostEvent returns the JSON of an event of kind [Lost] with these counts, for
// a sink that has to say so itself; it is not emitted. It is nil where that is
// not possible.
func (s *Stream) LostEvent(counts map[string]float64) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := Event{Kind: Lost, Values: counts}
	s.fill(&e)
	data, err := e.encode()
	if err != nil {
		return nil
	}
	return data
}

// maxBehind is how many events a listener may be behind.
const maxBehind = 256

// reader is one listener.
type reader struct {
	queue []Event
	wake  chan struct{} // holds one when the queue is not empty
}

// push is called with the stream's lock held.
func (r *reader) push(e Event) {
	if len(r.queue) == maxBehind {
		r.queue = append(r.queue[:0], r.queue[1:]...)
	}
	r.queue = append(r.queue, e)
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Events returns the events from now on, until ctx ends. A listener that is more
// than 256 events behind misses the oldest: Seq then has a gap. What an event
// points to is shared and must not be changed.
func (s *Stream) Events(ctx context.Context) iter.Seq[Event] {
	r := &reader{wake: make(chan struct{}, 1)}
	s.mu.Lock()
	s.readers[r] = true
	s.mu.Unlock()
	context.AfterFunc(ctx, func() { s.forget(r) })
	return func(yield func(Event) bool) {
		defer s.forget(r)
		for {
			select {
			case <-r.wake:
			case <-ctx.Done():
				return
			}
			for _, e := range s.taken(r) {
				if ctx.Err() != nil || !yield(e) {
					return
				}
			}
		}
	}
}

// taken empties the queue of r.
func (s *Stream) taken(r *reader) []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := r.queue
	r.queue = nil
	return q
}

func (s *Stream) forget(r *reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.readers, r)
}

// Tell calls f with each event from now on, one after the other, in a goroutine
// of its own, until ctx ends. A panic of f is counted in Failed, and ends it.
func (s *Stream) Tell(ctx context.Context, f func(Event)) {
	events := s.Events(ctx)
	go func() {
		defer func() {
			if recover() != nil {
				s.failed.Add(1)
			}
		}()
		for e := range events {
			f(e)
		}
	}()
}
