package delta

import (
	"fmt"
	"io"
	"math/bits"
)

// The range coder is the binary one of LZMA (Martin, "Range encoding", 1979;
// Pavlov's carry propagation): decisions of yes and no, each with the
// probability that a model gives, in a fraction of a bit.

// prob is what is expected of one decision. The zero prob knows nothing.
type prob struct {
	p uint16 // of a one, in 1/65536, with the upper bit flipped
	n uint8  // how many decisions it has seen, up to a limit
}

// oneOf returns the probability of a one in 1/32768, never none nor all.
func (b *prob) oneOf() uint32 { return uint32(b.p^0x8000)>>1 | 1 }

// learn moves towards what was decided, by less and less down to 1/32.
func (b *prob) learn(bit uint32) {
	shift := uint(bits.Len8(b.n + 1))
	if b.n < 30 {
		b.n++
	}
	p := uint32(b.p ^ 0x8000)
	if bit != 0 {
		p += (0xffff - p) >> shift
	} else {
		p -= p >> shift
	}
	b.p = uint16(p) ^ 0x8000
}

const (
	probBits = 15
	top      = 1 << 24
)

// encoder writes decisions to w.
type encoder struct {
	w       io.Writer
	buf     []byte
	low     uint64
	rng     uint32
	cache   byte
	pending int64 // bytes that a carry can still change, after the first one
	begun   bool
	n       int64 // bytes handed on, with those in buf
	dear    int64 // decisions of three models
	err     error
}

func newEncoder(w io.Writer, kind byte) *encoder {
	return &encoder{w: w, rng: 0xffffffff, buf: append(make([]byte, 0, 64<<10), kind), n: 1}
}

// decide writes one decision that is a one with p in 1/32768.
func (e *encoder) decide(p, bit uint32) {
	bound := e.rng >> probBits * p
	if bit != 0 {
		e.rng = bound
	} else {
		e.low += uint64(bound)
		e.rng -= bound
	}
	for e.rng < top {
		e.rng <<= 8
		e.shift()
	}
}

func (e *encoder) bit(b *prob, bit uint32) {
	e.decide(b.oneOf(), bit)
	b.learn(bit)
}

// direct writes the lower n ≤ 16 bits of v as they are.
func (e *encoder) direct(v uint32, n uint) {
	e.rng >>= n
	e.low += uint64(v&(1<<n-1)) * uint64(e.rng)
	for e.rng < top {
		e.rng <<= 8
		e.shift()
	}
}

// shift hands on the upper byte of low, once no carry can change it.
func (e *encoder) shift() {
	if e.low < 0xff000000 || e.low > 0xffffffff {
		carry := byte(e.low >> 32)
		if e.begun {
			e.put(e.cache + carry)
		}
		for ; e.pending > 0; e.pending-- {
			e.put(0xff + carry)
		}
		e.cache, e.begun = byte(e.low>>24), true
	} else {
		e.pending++
	}
	e.low = e.low << 8 & 0xffffffff
}

func (e *encoder) put(b byte) {
	if e.buf = append(e.buf, b); len(e.buf) == cap(e.buf) {
		e.flush()
	}
	e.n++
}

func (e *encoder) flush() {
	if e.err == nil {
		_, e.err = e.w.Write(e.buf)
	}
	e.buf = e.buf[:0]
}

func (e *encoder) close() error {
	for range 5 {
		e.shift()
	}
	e.flush()
	return e.err
}

// decoder reads what an encoder wrote. After an error it gives zeros.
type decoder struct {
	r    io.Reader
	buf  []byte
	at   int
	code uint32
	rng  uint32
	kind byte // the first byte of the group
	err  error
}

func newDecoder(r io.Reader) *decoder {
	d := &decoder{r: r, rng: 0xffffffff, buf: make([]byte, 0, 32<<10)}
	if d.kind = d.next(); d.kind != mixedGroup && d.kind != quickGroup {
		d.fail("its format is unknown")
	}
	for range 4 {
		d.code = d.code<<8 | uint32(d.next())
	}
	return d
}

func (d *decoder) next() byte {
	if d.at == len(d.buf) {
		d.fill()
	}
	b := d.buf[d.at]
	d.at++
	return b
}

func (d *decoder) fill() {
	d.buf, d.at = d.buf[:cap(d.buf)], 0
	if d.err == nil {
		var n int
		n, err := io.ReadAtLeast(d.r, d.buf, 1)
		if n > 0 {
			d.buf = d.buf[:n]
			return
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		d.err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	clear(d.buf)
}

// fail notes that the group cannot be right.
func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrDamaged, what)
	}
}

func (d *decoder) decide(p uint32) uint32 {
	bound := d.rng >> probBits * p
	var bit uint32
	if d.code < bound {
		d.rng = bound
		bit = 1
	} else {
		d.code -= bound
		d.rng -= bound
	}
	if d.rng < top {
		d.more()
	}
	return bit
}

func (d *decoder) more() {
	for d.rng < top {
		d.rng <<= 8
		d.code = d.code<<8 | uint32(d.next())
	}
}

// widen is more for who holds both in registers.
func (d *decoder) widen(rng, code uint32) (uint32, uint32) {
	for rng < top {
		rng, code = rng<<8, code<<8|uint32(d.next())
	}
	return rng, code
}

func (d *decoder) bit(b *prob) uint32 {
	bit := d.decide(b.oneOf())
	b.learn(bit)
	return bit
}

func (d *decoder) direct(n uint) uint32 {
	d.rng >>= n
	v := d.code / d.rng
	if v >= 1<<n {
		d.fail("a number is out of range")
		v = 1<<n - 1
	}
	d.code -= v * d.rng
	d.more()
	return v
}
