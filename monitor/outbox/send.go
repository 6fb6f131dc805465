package outbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"
)

// Item is one event that is to be sent.
type Item struct {
	// ID is the same each time that the event is sent, and of no other event of
	// any device.
	ID string
	// Seq rises by one from event to event of a class, over restarts; a gap is
	// an event that was lost.
	Seq uint64
	// Keep is whether it is a result.
	Keep bool
	Data []byte
}

// Sender takes events to somebody. Send returns nil when all of items were
// taken, durably: they are not sent again. It returns soon after ctx ends. An
// error means that they are sent again later, one that wraps a *[Later] not
// before some time; with a *[Refused] in smaller numbers, to find out which.
type Sender interface {
	Send(ctx context.Context, items []Item) error
}

// Later is an error with the time that the receiver wants to be left alone for.
type Later struct {
	After time.Duration
	Err   error
}

func (e *Later) Error() string { return fmt.Sprintf("%v; not before %v", e.Err, e.After) }
func (e *Later) Unwrap() error { return e.Err }

// Refused is an error that says that the receiver will never take these items
// together as they are.
type Refused struct{ Err error }

func (e *Refused) Error() string { return "refused: " + e.Err.Error() }
func (e *Refused) Unwrap() error { return e.Err }

// ByClass returns a Sender that hands results to one and metrics to another, such
// as events to whoever acts on them and measurements to where they are drawn.
func ByClass(results, metrics Sender) Sender { return byClass{results, metrics} }

type byClass [2]Sender

// Send hands on a batch, all of which is of one class.
func (b byClass) Send(ctx context.Context, items []Item) error {
	if len(items) > 0 && items[0].Keep {
		return b[0].Send(ctx, items)
	}
	return b[1].Send(ctx, items)
}

const (
	maxLater   = 24 * time.Hour
	maxRefusal = 8 // tries with one result that is refused alone
)

// sending is what Run remembers from one try to the next.
type sending struct {
	*Outbox
	to       Sender
	tries    int       // without success
	refusals int       // of the one item that is left
	unread   int       // tries to read the oldest segment
	limit    int       // items at a time, 0 for as many as are allowed
	metrics  time.Time // when metrics are due
}

// Run sends what is there and what comes, until ctx ends, whose error it
// returns. One Run at a time belongs to an Outbox.
func (b *Outbox) Run(ctx context.Context, to Sender) error {
	s := &sending{Outbox: b, to: to, metrics: time.Now().Add(chance(b.o.Interval))}
	for {
		items, end, err := s.batch()
		if err == nil && len(items) == 0 {
			err = s.idle(ctx)
		} else {
			err = s.send(ctx, items, end, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.rest(ctx, err)
		}
	}
}

// idle waits until there is something to send.
func (s *sending) idle(ctx context.Context) error {
	due := until(s.metrics, 0)
	if due == 0 { // all of them were sent
		s.metrics = time.Now().Add(s.o.Interval)
		due = s.o.Interval
	}
	t := time.NewTimer(due)
	defer t.Stop()
	select {
	case <-s.ready:
	case <-t.C:
	case <-ctx.Done():
	}
	return nil
}

// send tries once, and moves on when that succeeded.
func (s *sending) send(ctx context.Context, items []Item, end mark, err error) error {
	if err == nil {
		err = s.try(ctx, items)
	}
	var refused *Refused
	switch {
	case err == nil:
		s.tries, s.refusals = 0, 0
		if s.limit *= 2; s.limit >= s.o.BatchItems {
			s.limit = 0
		}
		s.taken(end, 0)
	case errors.As(err, &refused) && len(items) > 1:
		s.limit = len(items) / 2
		return nil
	case errors.As(err, &refused):
		if s.refusals++; !items[0].Keep || s.refusals >= maxRefusal {
			s.refusals = 0
			s.taken(end, 1)
			return nil
		}
	}
	return err
}

func (s *sending) try(ctx context.Context, items []Item) (err error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.SendTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the sender panicked: %v", p)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stats.Tries++
		if err != nil {
			s.stats.Failures++
		}
	}()
	return s.to.Send(ctx, items)
}

// rest waits before the next try: a time by chance below a limit that doubles
// with each failure (full jitter, as in Marc Brooker's "Exponential Backoff And
// Jitter"), so that a fleet does not come back all at once; or as long as the
// receiver says and a little more.
func (s *sending) rest(ctx context.Context, err error) {
	limit := s.o.RetryMax
	if s.tries < 30 {
		limit = min(limit, s.o.RetryMin<<s.tries)
	}
	s.tries++
	wait := chance(limit)
	var later *Later
	if errors.As(err, &later) && later.After > 0 {
		after := min(later.After, maxLater)
		wait = after + chance(after/10+s.o.RetryMin)
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// chance returns a time from 0 to limit.
func chance(limit time.Duration) time.Duration { return rand.N(limit + 1) }

// mark is the last event of a batch.
type mark struct {
	class   class
	at      position
	damaged uint64 // events before it that cannot be read
}

// batch returns the events to be sent next, results first.
func (s *sending) batch() ([]Item, mark, error) {
	for c := range classes {
		if c == metrics && time.Now().Before(s.metrics) {
			break
		}
		items, end, err := s.batchOf(c)
		if len(items) > 0 || err != nil {
			return items, end, err
		}
	}
	return nil, mark{}, nil
}

// batchOf reads from the first segment of the class that has something unsent.
func (s *sending) batchOf(c class) ([]Item, mark, error) {
	for {
		from, at, ok := s.oldest(c)
		if !ok {
			return nil, mark{}, nil
		}
		items, end, err := s.read(c, from, at)
		switch {
		case errors.Is(err, fs.ErrNotExist) && !s.has(c, from.number):
			continue // it had to go meanwhile
		case len(items) > 0:
			s.unread = 0
			return items, end, nil
		case err != nil && !errors.Is(err, errDamaged):
			if s.unread++; s.unread < maxRefusal {
				return nil, mark{}, s.failed(err)
			}
		}
		s.unread = 0
		s.skip(c, from)
	}
}

// oldest returns a copy of the first segment with unsent events.
func (s *sending) oldest(c class) (from segment, at position, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.stored[c] {
		if seg.unsent(s.cur.Sent[c]) > 0 {
			return *seg, s.cur.Sent[c], true
		}
	}
	return from, at, false
}

func (s *sending) has(c class, number uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.stored[c] {
		if seg.number == number {
			return true
		}
	}
	return false
}

// skip gives up what is left of a segment: it was damaged since it was written.
func (s *sending) skip(c class, from segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.move(mark{class: c, at: position{from.number, from.last}, damaged: from.unsent(s.cur.Sent[c])})
}

// read returns events of a segment behind at, as many as may be sent together.
func (s *sending) read(c class, from segment, at position) (items []Item, end mark, err error) {
	data, err := s.dir.ReadFile(name(c, from.number), maxFile)
	if err != nil {
		return nil, mark{}, err
	}
	got, err := decodeSegment(data[:min(int64(len(data)), from.size)])
	if err != nil {
		return nil, mark{}, err
	}
	limit, size, damaged := s.o.BatchItems, 0, uint64(0)
	if s.limit > 0 {
		limit = s.limit
	}
	for _, block := range got.blocks {
		if at.File == from.number && block.last() <= at.Seq {
			continue
		}
		events, err := block.events()
		if err != nil {
			damaged += block.count
			continue
		}
		for i, r := range events {
			seq := block.first + uint64(i)
			if at.File == from.number && seq <= at.Seq || seq < from.first || seq > from.last {
				continue
			}
			if size += len(r.data); len(items) > 0 && (size > s.o.BatchBytes || len(items) >= limit) {
				return items, end, nil
			}
			items = append(items, Item{ID: fmt.Sprintf("%s-%d", got.tag, seq), Seq: seq, Keep: c == results, Data: r.data})
			end = mark{c, position{from.number, seq}, damaged}
		}
	}
	return items, end, nil
}

// taken notes that everything up to end need not be sent again, of which the
// last refused ones were not taken.
func (s *sending) taken(end mark, refused uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cur.Lost.Refused += refused
	s.move(end)
}

// move sets the position. The lock is held.
func (s *sending) move(end mark) {
	s.cur.Lost.Damaged += end.damaged
	s.cur.Sent[end.class], s.dirty = end.at, true
	nudge(s.wake)
}
