package delta

import (
	"bufio"
	"fmt"
	"io"
)

// maxSize is the length of the longest blob.
const maxSize = 1 << 36

// Writer writes a group.
type Writer struct {
	e *encoder
	m *model
	s *inserter
}

// NewWriter returns a Writer of a group to w.
func NewWriter(w io.Writer) *Writer { return newWriter(w, mixedGroup) }

// NewQuickWriter returns a Writer of a quick group to w: one that a device reads
// in less than half of the time, and that is a few per cent longer.
func NewQuickWriter(w io.Writer) *Writer { return newWriter(w, quickGroup) }

func newWriter(w io.Writer, kind byte) *Writer {
	e, m := newEncoder(w, kind), newModel(kind == quickGroup)
	return &Writer{e: e, m: m, s: newInserter(e, m)}
}

// Slack returns how many bytes longer the patches so far may be in a quick group
// and be worth it: a bit for each decision of three models that a device is
// spared, but not more than a sixteenth of what they take now. Such a decision takes 20 to
// 30 ns of a processor of a server, of which one model's takes a third; in 20 ns a link
// of 50 Mbit/s brings a bit. A device has a slower processor, and most have a slower link.
func (w *Writer) Slack() int64 { return min(w.e.dear/8, w.Len()/16) }

// Add appends a patch. After an error the Writer is of no more use.
func (w *Writer) Add(p *Patch) error {
	if err := w.add(p); err != nil {
		return fmt.Errorf("cannot write a patch: %w", err)
	}
	return nil
}

func (w *Writer) add(p *Patch) error {
	if p.oldSize() > maxSize || p.new.Size() > maxSize {
		return fmt.Errorf("a blob of more than %d bytes", int64(maxSize))
	}
	w.e.bit(&w.m.more, 1)
	w.e.number(&w.m.oldSize, p.oldSize())
	w.e.signed(&w.m.growth, p.new.Size()-p.oldSize())
	if err := w.s.begin(p); err != nil {
		return err
	}
	c := copier{w: w, old: bufio.NewReaderSize(nil, 64<<10), new: bufio.NewReaderSize(nil, 64<<10)}
	place, last := int64(0), int64(0)
	for _, o := range p.ops {
		if p.oldSize() > 0 {
			w.e.signed(&w.m.seek, o.from-last)
			c.old.Reset(io.NewSectionReader(p.old, o.from, o.copy))
			c.new.Reset(io.NewSectionReader(p.new, place, o.copy))
			if err := c.copy(place, o.copy); err != nil {
				return err
			}
			place, last = place+o.copy, o.from+o.copy
			w.e.number(&w.m.insert, o.insert)
		}
		if err := w.s.code(o.insert); err != nil {
			return err
		}
		place += o.insert
	}
	return w.e.err
}

// Len returns how many bytes the group has so far. The last ones come with
// Close.
func (w *Writer) Len() int64 { return w.e.n }

// Close ends the group.
func (w *Writer) Close() error {
	w.e.bit(&w.m.more, 0)
	if err := w.e.close(); err != nil {
		return fmt.Errorf("cannot write a patch: %w", err)
	}
	return nil
}

// inserts reads what a patch inserts.
type inserts struct {
	p    *Patch
	op   int
	at   int64 // where in the new blob the op begins
	done int64 // of its insert
}

func (r *inserts) Read(b []byte) (int, error) {
	for r.op < len(r.p.ops) {
		o := r.p.ops[r.op]
		if r.done < o.insert {
			n, err := r.p.new.ReadAt(b[:min(int64(len(b)), o.insert-r.done)], r.at+o.copy+r.done)
			r.done += int64(n)
			if n > 0 {
				err = nil
			} else if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
		r.op, r.at, r.done = r.op+1, r.at+o.copy+o.insert, 0
	}
	return 0, io.EOF
}

// copier writes the tokens of a copy.
type copier struct {
	w        *Writer
	old, new *bufio.Reader
	gap      int64
	carry    int
	at       int64 // where in the new blob the gap begins
}

func (c *copier) copy(at, n int64) error {
	c.gap, c.carry, c.at = 0, 0, at
	for n > 0 {
		k := int(min(n, 32<<10))
		// One more, to see what a difference does to the byte behind it.
		a, err := c.old.Peek(min(k+1, int(n)))
		if err != nil {
			return err
		}
		b, err := c.new.Peek(len(a))
		if err != nil {
			return err
		}
		c.tokens(a, b, k)
		c.old.Discard(k)
		c.new.Discard(k)
		n -= int64(k)
	}
	c.token(0)
	return nil
}

func (c *copier) tokens(a, b []byte, n int) {
	for i := 0; i < n; i++ {
		if c.carry == 0 {
			k := common(a[i:n], b[i:n])
			c.gap += int64(k)
			if i += k; i == n {
				return
			}
		}
		sum := int(a[i]) + c.carry
		d := int(b[i] - byte(sum))
		if d == 0 {
			c.gap++
			c.carry = sum >> 8
			continue
		}
		d = c.sign(a[i:], b[i:], sum, d)
		c.carry = (sum + d) >> 8
		c.token(d)
	}
}

// sign chooses between a difference of d and one of d-256: what makes the next
// byte as expected, else the smaller one.
func (c *copier) sign(a, b []byte, sum, d int) int {
	if len(a) > 1 {
		plus := byte(int(a[1])+(sum+d)>>8) == b[1]
		minus := byte(int(a[1])+(sum+d-256)>>8) == b[1]
		if plus != minus {
			if plus {
				return d
			}
			return d - 256
		}
	}
	if d > 128 {
		return d - 256
	}
	return d
}

func (c *copier) token(d int) {
	c.w.e.token(c.w.m, c.gap, uint32(d+end), c.at)
	c.at += c.gap + 1
	c.gap = 0
}
