package delta

import (
	"fmt"
	"io"
)

// Reader reads a group. It is for one goroutine.
type Reader struct {
	d       *decoder
	m       *model
	items   restorer
	current *blob
	ended   bool
}

// NewReader returns a Reader of the group that r holds. It reads r as it needs
// the bytes, with a small buffer, and to its end.
func NewReader(r io.Reader) (*Reader, error) {
	d := newDecoder(r)
	if d.err != nil {
		return nil, d.err
	}
	m := newModel(d.kind == quickGroup)
	return &Reader{d: d, m: m, items: restorer{d: d, m: m}}, nil
}

// Next returns a reader of the next patch's blob, which has newSize bytes: where
// the patch says otherwise the group is damaged. What is left of the blob before
// it is skipped. old is the blob that the patch was made from, and is read in
// place; nil and 0 stand for none. What is read is not verified: a caller
// compares its digest. With ErrOld the patch was skipped. After the last patch
// Next returns io.EOF.
func (r *Reader) Next(old io.ReaderAt, oldSize, newSize int64) (io.Reader, error) {
	b, err := r.begin(newSize)
	if err != nil {
		return nil, err
	}
	if b.oldSize != oldSize {
		if err := r.rest(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("cannot patch: %w: it has %d bytes, not %d", ErrOld, oldSize, b.oldSize)
	}
	b.old = &place{r: old, size: oldSize}
	return b, nil
}

// Skip goes past the next patch, whose blob has newSize bytes. It needs no old
// blob.
func (r *Reader) Skip(newSize int64) error {
	if _, err := r.begin(newSize); err != nil {
		return err
	}
	return r.rest()
}

// Close lets go of memory.
func (r *Reader) Close() error {
	r.m, r.items, r.current = nil, restorer{}, nil
	if r.d.err == nil {
		r.d.err = io.ErrClosedPipe
	}
	return nil
}

func (r *Reader) begin(size int64) (*blob, error) {
	if err := r.rest(); err != nil {
		return nil, err
	}
	if r.ended {
		return nil, io.EOF
	}
	if r.d.bit(&r.m.more) == 0 {
		r.ended = true
		return nil, r.d.end()
	}
	b := &blob{reader: r}
	b.oldSize = r.d.number(&r.m.oldSize)
	b.left = b.oldSize + r.d.signed(&r.m.growth)
	if b.oldSize > maxSize || b.left != size {
		r.d.fail("a blob has another length")
		return nil, r.d.err
	}
	if b.oldSize == 0 {
		b.insert = b.left
	}
	r.items.ahead, r.items.plain = 0, r.d.bit(&r.m.plain) == 1
	r.current = b
	return b, r.d.err
}

// rest skips what is left of the blob that was begun.
func (r *Reader) rest() error {
	b := r.current
	r.current = nil
	if b == nil || r.d.err != nil {
		return r.d.err
	}
	b.old = nil
	defer func() { b.err = io.ErrClosedPipe }()
	if b.err == io.EOF {
		return nil
	}
	buf := make([]byte, 4<<10)
	for {
		if _, err := b.read(buf); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// end reports whether the group is at its end, as io.EOF.
func (d *decoder) end() error {
	if d.err != nil {
		return d.err
	}
	if d.at < len(d.buf) {
		d.fail("there is more behind its end")
		return d.err
	}
	n, err := io.ReadFull(d.r, d.buf[:1])
	if n > 0 {
		d.fail("there is more behind its end")
		return d.err
	}
	if err != io.EOF {
		d.err = fmt.Errorf("%w: %w", ErrDamaged, err)
		return d.err
	}
	return io.EOF
}

// blob reads a new blob. Without old it gives something else of the same length.
type blob struct {
	reader  *Reader
	old     *place
	oldSize int64
	left    int64

	copying bool
	from    int64 // where in old the copy is
	gap     int64 // bytes until the next difference
	diff    uint32
	carry   int
	insert  int64
	at      int64
	empty   bool // the copy has no byte
	err     error
}

// Read implements io.Reader. An error that wraps ErrDamaged is about the whole
// group; others are those of the old blob. They stay.
func (b *blob) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.read(p)
	b.err = err
	return n, err
}

// read goes on in the group by as much as it returns and, where it returns an
// error of the old blob, by what could not be read.
func (b *blob) read(p []byte) (int, error) {
	d, n := b.reader.d, 0
	for n < len(p) && b.left > 0 {
		k, err := b.step(p[n:])
		b.left, b.at = b.left-int64(k), b.at+int64(k)
		if d.err != nil {
			return n, d.err
		}
		if err != nil {
			return n, err
		}
		n += k
	}
	if n == 0 && b.left == 0 && len(p) > 0 {
		return 0, b.finish()
	}
	return n, nil
}

// finish reads what is behind the last byte.
func (b *blob) finish() error {
	d := b.reader.d
	if b.copying {
		b.nextOp()
	}
	if d.err == nil && (b.copying || b.insert > 0 || b.reader.items.ahead > 0) {
		d.fail("a patch goes on behind its blob's end")
	}
	if d.err != nil {
		return d.err
	}
	return io.EOF
}

// step writes some bytes of the blob to p, or goes on to the next part.
func (b *blob) step(p []byte) (int, error) {
	p = p[:min(int64(len(p)), b.left)]
	switch {
	case b.insert > 0:
		n := b.reader.items.read(p[:min(int64(len(p)), b.insert)])
		b.insert -= int64(n)
		return n, nil
	case !b.copying:
		b.begin()
		return 0, nil
	case b.gap > 0:
		n := int(min(int64(len(p)), b.gap))
		if b.carry != 0 {
			n = 1
		}
		b.gap -= int64(n)
		return n, b.take(p[:n], 0)
	case b.diff != end:
		err := b.take(p[:1], int(b.diff)-end)
		b.token(b.at + 1)
		return 1, err
	}
	b.nextOp()
	return 0, nil
}

// begin begins a copy.
func (b *blob) begin() {
	r := b.reader
	b.from += r.d.signed(&r.m.seek)
	if b.from < 0 || b.from > b.oldSize {
		r.d.fail("a copy begins outside of the old blob")
	}
	b.copying, b.carry = true, 0
	b.token(b.at)
	b.empty = b.gap == 0 && b.diff == end
}

// nextOp goes on with the insert behind a copy.
func (b *blob) nextOp() {
	r := b.reader
	b.copying = false
	b.insert = r.d.number(&r.m.insert)
	if b.insert > b.left || b.insert == 0 && b.empty {
		r.d.fail("an insert's length is out of range")
	}
}

func (b *blob) token(at int64) {
	r := b.reader
	b.gap, b.diff = r.d.token(r.m, at)
	n := b.gap
	if b.diff != end {
		n++
	}
	if n > b.left || n > b.oldSize-b.from {
		r.d.fail("a copy reaches beyond the end")
		b.gap, b.diff = 0, end
	}
}

// take copies len(p) bytes, of which the first gets a difference and what the
// one before carried.
func (b *blob) take(p []byte, diff int) error {
	if b.old == nil {
		b.from += int64(len(p))
		return nil
	}
	from := b.from
	b.from += int64(len(p))
	if err := b.old.read(p, from); err != nil {
		return err
	}
	if diff != 0 || b.carry != 0 {
		sum := int(p[0]) + diff + b.carry
		p[0] = byte(sum)
		b.carry = sum >> 8
	}
	return nil
}

// place reads a blob here and there through a buffer.
type place struct {
	r    io.ReaderAt
	size int64
	buf  []byte
	at   int64 // of buf
}

const placeBuffer = 64 << 10

func (r *place) read(p []byte, at int64) error {
	for len(p) > 0 {
		if i := at - r.at; i >= 0 && i < int64(len(r.buf)) {
			n := copy(p, r.buf[i:])
			p, at = p[n:], at+int64(n)
			continue
		}
		if r.buf == nil {
			r.buf = make([]byte, 0, min(placeBuffer, r.size))
		}
		want := min(int64(cap(r.buf)), r.size-at)
		n, err := r.r.ReadAt(r.buf[:want], at)
		if n == 0 {
			if err == io.EOF || err == nil {
				err = io.ErrUnexpectedEOF
			}
			r.buf = r.buf[:0]
			return fmt.Errorf("cannot read the old blob: %w", err)
		}
		r.buf, r.at = r.buf[:n], at
	}
	return nil
}
