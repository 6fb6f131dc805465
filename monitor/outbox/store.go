package outbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"github.com/pawl-ota/pawl/internal/journal"
)

// cursor is what is known beside the events: how far they were sent. It is kept
// as an internal/journal.
type cursor struct {
	Format string `json:"format"`
	// Sent is how far each class was taken, and Next the number of its next
	// event.
	Sent [classes]position `json:"sent"`
	Next [classes]uint64   `json:"next"`
	// Key is of the last event that had one.
	Key  string `json:"key,omitempty"`
	Lost Lost   `json:"lost,omitzero"`
	// Told is what was lost when that was told last.
	Told Lost `json:"told,omitzero"`
}

// position is an event by the number of its file and its own. Everything up to
// it was taken.
type position struct {
	File uint64 `json:"file"`
	Seq  uint64 `json:"seq"`
}

// gap is left in the numbers when the newest cursor was lost: some may have been
// given to events that are not there any more.
const gap = 1 << 16

func (c *cursor) load(found journal.Found) error {
	if found.Body != nil {
		if err := json.Unmarshal(found.Body, c); err != nil {
			return fmt.Errorf("%w: %w", ErrFormat, err)
		}
		if c.Format != magic+format {
			return fmt.Errorf("%w: format %.40q", ErrFormat, c.Format)
		}
	}
	c.Format = magic + format
	for i := range c.Next {
		c.Next[i] = max(c.Next[i], 1)
		if found.Fallback {
			c.Next[i] += gap
		}
	}
	return nil
}

// segment is one file of events.
type segment struct {
	number      uint64
	header      header
	first, last uint64 // numbers of events; 0 in an empty one
	size        int64
}

func name(c class, number uint64) string { return fmt.Sprintf("%s/%016x", c.folder(), number) }

// takes is how much of the disk it occupies.
func (s *segment) takes() int64 { return (s.size + cluster - 1) / cluster * cluster }

// unsent is how many of its events were not taken yet.
func (s *segment) unsent(p position) uint64 {
	switch {
	case s.last == 0 || s.number < p.File || s.number == p.File && s.last <= p.Seq:
		return 0
	case s.number == p.File && s.first <= p.Seq:
		return s.last - p.Seq
	}
	return s.last - s.first + 1
}

// bytes is what all segments take. The lock is held.
func (b *Outbox) bytes() (sum int64) {
	for _, all := range b.stored {
		for _, s := range all {
			sum += s.takes()
		}
	}
	return sum
}

// loadClass reads the segments of a class. One that is damaged from the
// beginning goes; one that cannot be read stays, and is left alone.
func (b *Outbox) loadClass(c class) error {
	names, err := b.dir.List(c.folder())
	if err != nil {
		return err
	}
	b.w.file[c] = b.cur.Sent[c].File // a new one with a lower number would pass for sent
	for _, n := range names {
		number, err := strconv.ParseUint(n, 16, 64)
		if err != nil || name(c, number) != c.folder()+"/"+n {
			continue // not ours
		}
		b.w.file[c] = max(b.w.file[c], number)
		got, err := b.readSegment(name(c, number))
		switch {
		case errors.Is(err, ErrFormat):
			return fmt.Errorf("%s: %w", n, err)
		case err == nil && got.class != c:
			err = errDamaged
		case err == nil:
			b.take(got, number)
			continue
		}
		if errors.Is(err, errDamaged) {
			err = errors.Join(err, b.dir.Remove(name(c, number)))
		}
		b.stats.Notes = append(b.stats.Notes, fmt.Sprintf("%s: %v", name(c, number), err))
	}
	b.settle(c)
	return nil
}

// take adds a segment that was read, the newest so far.
func (b *Outbox) take(got *content, number uint64) {
	c := got.class
	s := &segment{number: number, header: got.header, size: got.good}
	if n := len(got.blocks); n > 0 {
		s.first, s.last = got.blocks[0].first, got.blocks[n-1].last()
		b.takeKey(got)
	}
	b.cutOff(c, s.first)
	b.stored[c] = append(b.stored[c], s)
	b.cur.Next[c] = max(b.cur.Next[c], s.last+1)
}

// settle makes the newest segment durable as it was read: the process before
// may have been killed between writing and that, and what is not durable must
// not be sent. Where it cannot be, nothing more is written to that file, so that
// no number of it is given twice.
func (b *Outbox) settle(c class) {
	n := len(b.stored[c])
	if n == 0 {
		return
	}
	err := b.open(c, b.stored[c][n-1])
	if err == nil {
		err = b.w.log[c].Persist()
	}
	if err != nil {
		_ = b.failed(err)
		b.w.abandon(c)
	}
}

// maxFile bounds what is read: a segment, and what may follow its end.
const maxFile = maxSegment + 2*maxBlock

func (b *Outbox) readSegment(file string) (*content, error) {
	data, err := b.dir.ReadFile(file, maxFile)
	if err != nil {
		return nil, err
	}
	return decodeSegment(data)
}

// takeKey takes over the last key in a segment that was written after the cursor.
func (b *Outbox) takeKey(got *content) {
	if got.blocks[len(got.blocks)-1].last() < b.cur.Next[got.class] {
		return
	}
	for _, block := range got.blocks {
		if block.first < b.cur.Next[got.class] {
			continue
		}
		events, err := block.events()
		if err != nil {
			continue
		}
		for _, r := range events {
			if r.key != "" {
				b.cur.Key = r.key
			}
		}
	}
}

// cutOff takes from earlier segments what is in a later one that begins with
// first: it was written anew there, because the earlier file had failed.
func (b *Outbox) cutOff(c class, first uint64) {
	for _, s := range b.stored[c] {
		switch {
		case first == 0 || s.last < first:
		case s.first >= first:
			s.first, s.last = 0, 0
		default:
			s.last = first - 1
		}
	}
}

// saveCursor makes the cursor durable.
func (b *Outbox) saveCursor() error {
	b.mu.Lock()
	b.dirty = false
	body, err := json.Marshal(b.cur)
	b.mu.Unlock()
	if err == nil {
		err = b.w.journal.Write(body)
	}
	if err != nil {
		b.mu.Lock()
		b.dirty = true
		b.mu.Unlock()
		return b.failed(err)
	}
	return nil
}

// failed counts an error of the file system.
func (b *Outbox) failed(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stats.Errors++
	b.stats.Error = err.Error()
	return err
}

// tidy removes segments that were taken wholly, but for the ones that are being
// written. The cursor that says so is durable first.
func (b *Outbox) tidy() error {
	var gone []string
	b.mu.Lock()
	for c := range classes {
		kept := b.stored[c][:0:0]
		for _, s := range b.stored[c] {
			if s.unsent(b.cur.Sent[c]) == 0 && s.number != b.w.open[c] {
				gone = append(gone, name(c, s.number))
			} else {
				kept = append(kept, s)
			}
		}
		b.stored[c] = kept
	}
	dirty := b.dirty || len(gone) > 0
	b.mu.Unlock()
	if !dirty {
		return nil
	}
	if err := b.saveCursor(); err != nil {
		return err
	}
	return b.remove(gone)
}

func (b *Outbox) remove(names []string) error {
	var all error
	for _, n := range names {
		if err := b.dir.Remove(n); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = errors.Join(all, b.failed(err))
		}
	}
	return all
}

// age drops metrics that are too old.
func (b *Outbox) age() error {
	for {
		b.mu.Lock()
		all := b.stored[metrics]
		b.mu.Unlock()
		if len(all) == 0 || !b.isOld(all[0], b.o.MaxAge) {
			return nil
		}
		if err := b.drop(metrics); err != nil {
			return err
		}
	}
}

// drop removes the oldest segment of a class, unsent. The numbers of its
// events stay given: the cursor says so first.
func (b *Outbox) drop(c class) error {
	b.mu.Lock()
	if len(b.stored[c]) == 0 {
		b.mu.Unlock()
		return errNothing
	}
	s := b.stored[c][0]
	b.stored[c] = b.stored[c][1:]
	b.lose(c, s.unsent(b.cur.Sent[c]))
	b.mu.Unlock()
	if b.w.open[c] == s.number {
		b.w.seal(c)
	}
	// On a full disk the cursor may not be writable before this made room.
	cursor := b.saveCursor()
	if err := b.remove([]string{name(c, s.number)}); err != nil {
		return err
	}
	if cursor != nil {
		return b.saveCursor()
	}
	return nil
}

var errNothing = errors.New("there is nothing to drop")

// until is the time until d after t.
func until(t time.Time, d time.Duration) time.Duration { return max(time.Until(t.Add(d)), 0) }
