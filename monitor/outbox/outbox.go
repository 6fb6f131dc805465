// Package outbox keeps events of a device until somebody has taken them: through
// power cuts, on a full disk, for years without a network.
//
//	box, err := outbox.Open(ctx, outbox.Options{Dir: "/var/lib/device/outbox"})
//	stream, err := monitor.NewStream(monitor.StreamOptions{Device: "pump-7", Sink: box})
//	box.OnLoss(stream.LostEvent)
//	go box.Run(ctx, sender) // a cloudevents.Sender, say
//	…
//	box.Close()
//
// # What is promised
//
// [Outbox.Append] puts an event into memory and returns: it waits for no disk,
// and has no error. A goroutine of the Outbox makes results durable at once, and
// metrics when some have come together or some time has passed, which is what a
// power cut can take of them. Only what is durable is sent.
//
// What is sent is sent again until it was taken. Each event has an [Item.ID] that
// it keeps over restarts and power cuts and that no other event ever has, so that
// a receiver can drop what it has already. Each class arrives in order.
//
// On disk an Outbox takes no more than [Options.MaxBytes]. Where it is full, or
// the disk is, the oldest metrics go; when there are none, the oldest results.
// Whatever had to go is counted, and the counts are told with the next results.
//
// # What is not promised
//
// A disk that acknowledges what it did not write loses events. So does a
// process that ends without [Outbox.Close]: those that were appended
// moments before. What has to be told in any case has to be found again at the
// next start: [Outbox.LastKey] says what was there last.
package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pawl-ota/pawl/internal/journal"
	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/ota/durable"
)

var (
	// ErrFormat is returned by Open for a folder that another version wrote.
	// Everything is kept as it is.
	ErrFormat = errors.New("the outbox is not one that this program can read")
	// ErrClosed is returned by Flush after Close.
	ErrClosed = errors.New("the outbox is closed")
)

// Options configure an [Outbox]. Dir is needed; every other field has a useful
// zero value.
type Options struct {
	// Dir is the folder of the events. It is made with mode 0700 if it is
	// missing, and belongs to one Outbox at a time.
	Dir string
	// LockWait is how long Open waits for another one; 0 means 10 s.
	LockWait time.Duration
	// MaxBytes is what it may take on the disk; 0 means 4 MiB, the least is
	// 64 KiB.
	MaxBytes int64
	// MaxAge is how old metrics get; 0 means 30 days. Results have no age. It
	// counts only where the clock could be trusted then and can be now.
	MaxAge time.Duration
	// Buffer is how many bytes of metrics come together in memory before they
	// are written; 0 means 64 KiB. Delay is how long they wait for that; 0
	// means 5 minutes.
	Buffer int
	Delay  time.Duration
	// Interval is the time between two times that metrics are sent; 0 means 15
	// minutes. Results are sent at once.
	Interval time.Duration
	// BatchBytes and BatchItems bound what is sent at a time; 0 means 256 KiB
	// and 500.
	BatchBytes, BatchItems int
	// SendTimeout is how long one try to send may take; 0 means 2 minutes.
	SendTimeout time.Duration
	// RetryMin and RetryMax bound the time between two tries, which is chosen
	// by chance below a limit that doubles with each; 0 means 10 s and 1 hour.
	RetryMin, RetryMax time.Duration
	// Now returns the wall clock and whether to trust it; nil means
	// [monitor.WallClock].
	Now func() (t time.Time, trusted bool)

	dir seam.Dir // in place of Dir, for tests
}

const (
	minBytes    = 64 << 10
	maxSegment  = 256 << 10
	minSegment  = 8 << 10
	cluster     = 4 << 10 // what a file takes at least
	maxWaiting  = 1 << 20 // bytes of results in memory
	closeLimit  = 10 * time.Second
	reportEvery = time.Hour
)

func (o Options) withDefaults() (Options, error) {
	for _, d := range []struct {
		field string
		value *time.Duration
		zero  time.Duration
	}{
		{"LockWait", &o.LockWait, 10 * time.Second}, {"MaxAge", &o.MaxAge, 30 * 24 * time.Hour}, {"Delay", &o.Delay, 5 * time.Minute},
		{"Interval", &o.Interval, 15 * time.Minute}, {"SendTimeout", &o.SendTimeout, 2 * time.Minute},
		{"RetryMin", &o.RetryMin, 10 * time.Second}, {"RetryMax", &o.RetryMax, time.Hour},
	} {
		if *d.value < 0 {
			return o, fmt.Errorf("outbox: field %s is negative", d.field)
		}
		*d.value = cmp.Or(*d.value, d.zero)
	}
	o.MaxBytes = cmp.Or(o.MaxBytes, 4<<20)
	o.Buffer = cmp.Or(o.Buffer, 64<<10)
	o.BatchBytes, o.BatchItems = cmp.Or(o.BatchBytes, 256<<10), cmp.Or(o.BatchItems, 500)
	if o.Now == nil {
		o.Now = monitor.WallClock
	}
	switch {
	case o.Dir == "" && o.dir == nil:
		return o, errors.New("outbox: field Dir is empty")
	case o.MaxBytes < minBytes:
		return o, fmt.Errorf("outbox: field MaxBytes is below %d", minBytes)
	case o.Buffer < 0 || o.Buffer > maxBlock/2:
		return o, fmt.Errorf("outbox: field Buffer is negative or above %d", maxBlock/2)
	case o.BatchBytes < 0 || o.BatchItems < 0:
		return o, errors.New("outbox: a field Batch is negative")
	}
	return o, nil
}

// Outbox keeps events until they were taken. It is safe for concurrent use.
type Outbox struct {
	o      Options
	dir    seam.Dir
	unlock func() error
	wake   chan struct{} // there is something to write
	ready  chan struct{} // there is something to send
	stop   chan struct{}
	ended  chan struct{}

	mu      sync.Mutex
	closed  bool
	waiting [classes]queue
	flying  [classes]uint64     // events on their way from memory to the disk
	stored  [classes][]*segment // oldest first
	cur     cursor
	dirty   bool // cur has changed since it was written
	say     func(map[string]float64) []byte
	stats   Stats
	flushes []chan error

	w writer // of the goroutine that writes
}

// queue is what waits in memory.
type queue struct {
	events []record
	bytes  int
	since  time.Time // of the oldest
}

func (q *queue) add(r record, now time.Time) {
	if len(q.events) == 0 {
		q.since = now
	}
	q.events, q.bytes = append(q.events, r), q.bytes+r.size()
}

// drop takes the oldest event off.
func (q *queue) drop() {
	q.bytes -= q.events[0].size()
	if q.events = q.events[1:]; len(q.events) == 0 {
		*q = queue{}
	}
}

// back puts events in front of the others.
func (q *queue) back(events []record) {
	for _, r := range events {
		q.bytes += r.size()
	}
	q.events = append(events, q.events...)
}

// Stats says what is kept, and what happened since the outbox was made.
type Stats struct {
	// Results and Metrics are kept, durably or in memory; Bytes are on the disk.
	Results, Metrics uint64
	Bytes            int64
	// Lost counts what had to go unsent.
	Lost Lost
	// Errors counts calls of the file system that failed since Open, and Error
	// is the last of them. Tries and Failures count Send since Open.
	Errors          uint64
	Error           string
	Tries, Failures uint64
	// Notes say what Open found damaged.
	Notes []string
}

// Lost counts events that were not sent and never will be.
type Lost struct {
	Results  uint64 `json:"results,omitempty"`
	Metrics  uint64 `json:"metrics,omitempty"`
	Refused  uint64 `json:"refused,omitempty"`  // by the receiver, for good
	Damaged  uint64 `json:"damaged,omitempty"`  // on the disk
	TooLarge uint64 `json:"tooLarge,omitempty"` // to be kept
}

func (l Lost) values() map[string]float64 {
	all := map[string]float64{}
	for name, n := range map[string]uint64{
		"results": l.Results, "metrics": l.Metrics, "refused": l.Refused, "damaged": l.Damaged, "tooLarge": l.TooLarge,
	} {
		if n > 0 {
			all[name] = float64(n)
		}
	}
	return all
}

// Open opens the outbox in o.Dir, or makes one. It returns ErrFormat for one of
// another version, and what the file system says.
func Open(ctx context.Context, o Options) (*Outbox, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	dir := o.dir
	if dir == nil {
		if dir, err = durable.OpenDir(o.Dir); err != nil {
			return nil, fmt.Errorf("outbox: %w", err)
		}
	}
	unlock, err := dir.Lock(ctx, o.LockWait)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("outbox: %w", err), dir.Close())
	}
	b := &Outbox{
		o: o, dir: dir, unlock: unlock, wake: make(chan struct{}, 1), ready: make(chan struct{}, 1),
		stop: make(chan struct{}), ended: make(chan struct{}),
	}
	if err := b.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("outbox: %w", err), unlock(), dir.Close())
	}
	go b.write()
	return b, nil
}

// load reads the cursor and all segments.
func (b *Outbox) load() error {
	j, found, err := journal.Open(b.dir)
	if errors.Is(err, journal.ErrFormat) {
		err = fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if err == nil {
		b.w.journal = j
		b.stats.Notes = found.Notes
		err = b.cur.load(found)
	}
	for c := range classes {
		if err == nil {
			err = b.loadClass(c)
		}
	}
	return err
}

// Append takes one event, and returns at once. It fits [monitor.Sink]: keep says
// that it is a result. data must not be changed afterwards.
func (b *Outbox) Append(keep bool, key string, data []byte) {
	r := record{key, data}
	c := metrics
	if keep {
		c = results
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	q := &b.waiting[c]
	switch {
	case b.closed:
		b.lose(c, 1)
		return
	case len(key) > maxKey || len(data) > maxData || len(data) == 0:
		b.cur.Lost.TooLarge++
		b.dirty = true
		return
	case c == metrics && q.bytes+r.size() > 4*max(b.o.Buffer, maxData): // the disk is slower than they come
		b.lose(c, 1)
		return
	}
	for c == results && len(q.events) > 0 && q.bytes+r.size() > maxWaiting { // nothing can be written for long
		q.drop()
		b.lose(c, 1)
	}
	q.add(r, time.Now())
	if c == results || q.bytes >= b.o.Buffer || len(q.events) == 1 {
		nudge(b.wake)
	}
}

// lose counts events that had to go. The lock is held.
func (b *Outbox) lose(c class, n uint64) {
	if c == results {
		b.cur.Lost.Results += n
	} else {
		b.cur.Lost.Metrics += n
	}
	b.dirty = true
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// OnLoss has say make an event of the counts whenever more was lost, at most
// once an hour: it is appended as a result. [monitor.Stream.LostEvent] fits.
func (b *Outbox) OnLoss(say func(counts map[string]float64) []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.say = say
	nudge(b.wake)
}

// LastKey returns the key of the last event that was made durable with one,
// also when that was sent long ago.
func (b *Outbox) LastKey() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cur.Key
}

// Stats returns counts. It waits for no disk.
func (b *Outbox) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.Bytes, s.Lost = b.bytes(), b.cur.Lost
	s.Results, s.Metrics = b.count(results), b.count(metrics)
	return s
}

// count is how many events are kept. The lock is held.
func (b *Outbox) count(c class) uint64 {
	n := uint64(len(b.waiting[c].events)) + b.flying[c]
	for _, s := range b.stored[c] {
		n += s.unsent(b.cur.Sent[c])
	}
	return n
}

// Flush waits until everything that was appended before is durable or lost, and
// returns why something may not be durable.
func (b *Outbox) Flush(ctx context.Context) error {
	done := make(chan error, 1)
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return ErrClosed
	}
	b.flushes = append(b.flushes, done)
	nudge(b.wake)
	b.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("outbox: not everything is durable yet: %w", ctx.Err())
	case <-b.ended:
		return ErrClosed
	}
}

// Close makes durable what was appended before, for at most 10 s, and lets go of
// the folder. End Run before.
func (b *Outbox) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return ErrClosed
	}
	b.closed = true
	b.mu.Unlock()
	close(b.stop)
	limit := time.NewTimer(closeLimit)
	defer limit.Stop()
	select {
	case <-b.ended:
		return errors.Join(b.w.last, b.unlock(), b.dir.Close())
	case <-limit.C:
		return fmt.Errorf("outbox: the file system did not answer within %v", closeLimit)
	}
}
