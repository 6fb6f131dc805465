package outbox

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/pawl-ota/pawl/internal/journal"
	"github.com/pawl-ota/pawl/internal/seam"
)

// writer is what belongs to the one goroutine that changes the folder.
type writer struct {
	journal *journal.Journal
	file    [classes]uint64   // number of the newest file
	open    [classes]uint64   // number of the file that is being written, or 0
	log     [classes]seam.Log // that file
	last    error             // of the last round
	told    time.Time         // when losses were told last
	wait    time.Duration     // before results are tried again
}

// seal closes the file that is being written: the next event begins another.
func (w *writer) seal(c class) {
	if w.log[c] != nil {
		_ = w.log[c].Close() // what counts was persisted
	}
	w.log[c], w.open[c] = nil, 0
}

// abandon has nothing be written to the file any more, because it may hold
// anything behind what was persisted: the next event begins another.
func (w *writer) abandon(c class) {
	w.seal(c)
	w.file[c]++
}

const (
	retryWrite    = time.Second
	maxRetryWrite = time.Minute
	ageEvery      = time.Hour
)

// write is the goroutine that makes events durable.
func (b *Outbox) write() {
	defer close(b.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for stopping := false; !stopping; {
		select {
		case <-b.wake:
		case <-timer.C:
		case <-b.stop:
			stopping = true
		}
		b.w.last = b.round(stopping)
		timer.Reset(b.pause())
	}
	for c := range classes {
		b.w.seal(c)
	}
}

// round writes what is due, and tells those who wait for it.
func (b *Outbox) round(all bool) error {
	b.mu.Lock()
	waiting := b.flushes
	b.flushes = nil
	all = all || len(waiting) > 0
	b.mu.Unlock()
	b.tellLosses()
	err := errors.Join(b.age(), b.put(results, true), b.put(metrics, all), b.tidy())
	for _, w := range waiting {
		w <- err
	}
	return err
}

// pause is how long to wait for the next round if nothing comes in between.
func (b *Outbox) pause() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := ageEvery
	if q := &b.waiting[metrics]; len(q.events) > 0 {
		next = min(next, until(q.since, b.o.Delay))
	}
	if len(b.waiting[results].events) > 0 || b.dirty && b.w.last != nil {
		b.w.wait = min(max(2*b.w.wait, retryWrite), maxRetryWrite)
		return min(next, b.w.wait)
	}
	b.w.wait = 0
	return next
}

// tellLosses appends an event of what was lost since that was told last.
func (b *Outbox) tellLosses() {
	b.mu.Lock()
	lost, say := b.cur.Lost, b.say
	due := lost != b.cur.Told && say != nil && !b.closed && (b.w.told.IsZero() || time.Since(b.w.told) >= reportEvery)
	b.mu.Unlock()
	if !due {
		return
	}
	b.w.told = time.Now()
	data := said(say, lost)
	if data == nil {
		return
	}
	b.mu.Lock()
	b.cur.Told, b.dirty = lost, true
	b.mu.Unlock()
	b.Append(true, "", data)
}

// said is what say says, or nil when it panics.
func said(say func(map[string]float64) []byte, lost Lost) (data []byte) {
	defer func() {
		if recover() != nil {
			data = nil
		}
	}()
	return say(lost.values())
}

// put makes durable what waits of a class: all of it, or metrics only if they
// are due. What it cannot write of metrics is lost, of results it goes back to
// the front of the queue.
func (b *Outbox) put(c class, all bool) error {
	for {
		events, ok := b.next(c, all)
		if !ok {
			return nil
		}
		err := b.putBlock(c, events)
		b.mu.Lock()
		b.flying[c] = 0
		switch {
		case err != nil && c == results:
			b.waiting[c].back(events)
		case err != nil:
			b.lose(c, uint64(len(events)))
		}
		b.mu.Unlock()
		if err != nil {
			return err
		}
		nudge(b.ready)
	}
}

// next takes as many of the events that wait as one block holds.
func (b *Outbox) next(c class, all bool) (events []record, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := &b.waiting[c]
	if len(q.events) == 0 || !all && q.bytes < b.o.Buffer && until(q.since, b.o.Delay) > 0 {
		return nil, false
	}
	size := 0
	for len(q.events) > 0 && len(events) < maxEvents {
		r := q.events[0]
		if size += r.size(); len(events) > 0 && size > max(b.o.Buffer, cluster) {
			break
		}
		events = append(events, r)
		q.drop()
	}
	b.flying[c] = uint64(len(events))
	return events, true
}

// putBlock makes events durable, and makes room for them first.
func (b *Outbox) putBlock(c class, events []record) error {
	b.mu.Lock()
	first := b.cur.Next[c]
	b.mu.Unlock()
	block, err := encodeBlock(first, events)
	if err != nil {
		return b.failed(err)
	}
	if err := b.makeRoom(c, int64(len(block))); err != nil {
		return err
	}
	for {
		err = b.store(c, first, events, block)
		if err == nil {
			return nil
		}
		// A disk that others filled: our own metrics are what can go.
		if !isFull(err) || b.drop(metrics) != nil {
			return err
		}
	}
}

// makeRoom drops the oldest metrics, and then the oldest results, until size
// bytes more are allowed. Results never go for metrics.
func (b *Outbox) makeRoom(c class, size int64) error {
	for {
		b.mu.Lock()
		full := b.bytes()+size+cluster > b.o.MaxBytes
		b.mu.Unlock()
		if !full {
			return nil
		}
		err := b.drop(metrics)
		if errors.Is(err, errNothing) && c == results {
			err = b.drop(results)
		}
		if err != nil {
			return fmt.Errorf("no room within %d bytes: %w", b.o.MaxBytes, err)
		}
	}
}

// store appends a block to the file that is being written, or to a new one.
// Where that fails, results get a file of their own at once.
func (b *Outbox) store(c class, first uint64, events []record, block []byte) error {
	s, data, err := b.append(c, block)
	if err != nil {
		_ = b.failed(err)
		b.w.abandon(c)
		b.takeBack(c, s)
		if c == metrics {
			return err
		}
		if s, data, err = b.alone(c, block); err != nil {
			return b.failed(err)
		}
	}
	b.stand(c, s, len(data), first, events)
	return nil
}

// takeBack takes out of a file what could not be made durable: another process
// would find it and take it for that. Where this fails too, what is written to
// the next file tells.
func (b *Outbox) takeBack(c class, s *segment) {
	if s.size == 0 {
		_ = b.dir.Remove(name(c, s.number))
		return
	}
	if log, err := b.dir.Append(name(c, s.number), s.size); err == nil {
		_ = log.Close()
	}
}

// stand takes over what is durable now.
func (b *Outbox) stand(c class, s *segment, size int, first uint64, events []record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stored[c] = appendOnce(b.stored[c], s)
	if s.first == 0 {
		s.first = first
	}
	s.size += int64(size)
	s.last = first + uint64(len(events)) - 1
	b.cur.Next[c] = s.last + 1
	for _, r := range events {
		if r.key != "" {
			b.cur.Key = r.key
		}
	}
}

func appendOnce(all []*segment, s *segment) []*segment {
	if n := len(all); n > 0 && all[n-1] == s {
		return all
	}
	return append(all, s)
}

// append writes a block behind the others, and persists it. data is what it
// wrote: with the header, in a new file.
func (b *Outbox) append(c class, block []byte) (s *segment, data []byte, err error) {
	s, err = b.current(c, int64(len(block)))
	if err != nil {
		return s, nil, err
	}
	data = block
	if s.size == 0 {
		data = append(s.header.encode(), block...)
	}
	if _, err := b.w.log[c].Write(data); err != nil {
		return s, nil, err
	}
	return s, data, b.w.log[c].Persist()
}

// alone puts a block of results into a file of its own, for which the folder
// gives up its reserve on a full disk.
func (b *Outbox) alone(c class, block []byte) (*segment, []byte, error) {
	s := b.begin(c)
	data := append(s.header.encode(), block...)
	return s, data, b.dir.WriteFile(name(c, s.number), data)
}

// begin returns a segment of a new file, which is not there yet.
func (b *Outbox) begin(c class) *segment {
	now, trusted := b.o.Now()
	b.w.file[c]++
	return &segment{number: b.w.file[c], header: header{class: c, tag: newTag(), made: now, trusted: trusted}}
}

func newTag() string {
	var t [tagLength / 2]byte
	_, _ = rand.Read(t[:]) // it never fails
	return hex.EncodeToString(t[:])
}

// current returns the segment that size bytes more are to be appended to, open:
// the newest one, where that is not too long or too old, or else a new one.
func (b *Outbox) current(c class, size int64) (*segment, error) {
	b.mu.Lock()
	var s *segment
	if n := len(b.stored[c]); n > 0 && b.stored[c][n-1].number == b.w.file[c] {
		s = b.stored[c][n-1]
	}
	b.mu.Unlock()
	if s == nil || s.size+size > b.segmentBytes() || b.isOld(s, b.o.MaxAge/16) {
		b.w.seal(c)
		s = b.begin(c)
	}
	if b.w.log[c] != nil {
		return s, nil
	}
	return s, b.open(c, s)
}

func (b *Outbox) open(c class, s *segment) error {
	log, err := b.dir.Append(name(c, s.number), s.size)
	if err == nil {
		b.w.log[c], b.w.open[c] = log, s.number
	}
	return err
}

// isOld reports whether the file of s was made longer ago than age. Without a
// clock that can be trusted nothing is old.
func (b *Outbox) isOld(s *segment, age time.Duration) bool {
	now, trusted := b.o.Now()
	return trusted && s.header.trusted && now.Sub(s.header.made) > age
}

func (b *Outbox) segmentBytes() int64 {
	return min(max(b.o.MaxBytes/16, minSegment), maxSegment)
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
