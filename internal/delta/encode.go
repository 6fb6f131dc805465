package delta

import "math/bits"

// tree writes the lower n bits of v, upper ones first.
func (e *encoder) tree(m []prob, v uint32, n uint) {
	node := uint32(1)
	for i := int(n) - 1; i >= 0; i-- {
		b := v >> i & 1
		e.bit(&m[node], b)
		node = node<<1 | b
	}
}

// single writes the lower n bits of v with one model.
func (e *encoder) single(m []short, v uint32, n uint) {
	node := uint32(1)
	for i := int(n) - 1; i >= 0; i-- {
		bit := v >> i & 1
		e.decide(m[node].oneOf(), bit)
		m[node] = m[node].moved(int32(4095 & -bit))
		node = node<<1 | bit
	}
}

func (e *encoder) mixed(m *mixing, a, b, c []short, w []weights, v uint32, n uint) {
	e.dear += int64(n)
	node := uint32(1)
	for i := int(n) - 1; i >= 0; i-- {
		bit := v >> i & 1
		x := m.expect(a[node], b[node], c[node], &w[node])
		e.decide(x.oneOf(), bit)
		w[node].learn(x, bit)
		ones := int32(4095 & -bit)
		a[node], b[node], c[node] = a[node].moved(ones), b[node].moved(ones), c[node].moved(ones)
		node = node<<1 | bit
	}
}

func (e *encoder) number(m *number, v int64) {
	x := uint64(v) + 1
	n := uint(bits.Len64(x)) - 1
	e.tree(m.class[:], uint32(n), 6)
	e.mantissa(&m.upper[n], x, n)
}

// mantissa writes the lower n bits of x, three of them by a model.
func (e *encoder) mantissa(m *[8]prob, x uint64, n uint) {
	k := min(n, 3)
	n -= k
	e.tree(m[:], uint32(x>>n)&(1<<k-1), k)
	for n > 0 {
		k := min(n, 16)
		n -= k
		e.direct(uint32(x>>n), k)
	}
}

func (e *encoder) signed(m *signed, v int64) {
	e.bit(&m.zero, b2u(v == 0))
	if v == 0 {
		return
	}
	e.bit(&m.sign, b2u(v < 0))
	e.number(&m.size, max(v, -v)-1)
}

func b2u(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// token writes a gap that ends at a place of the new blob, and a difference.
func (e *encoder) token(m *model, gap int64, diff uint32, at int64) {
	t := &m.tokens
	x := makeToken(gap, diff)
	long, short := t.guesses()
	if !e.guessed(t, long, short, x) {
		e.gap(m, gap, at)
		if m.quick {
			e.single(t.diffRow(gap), diff, 9)
		} else {
			a, b, c := t.diffRows(gap, at+gap)
			e.mixed(m.mixing, a, b, c, t.diffW[:], diff, 9)
		}
	}
	t.learn(long, short, x)
}

func (e *encoder) gap(m *model, gap, at int64) {
	t, g := &m.tokens, gapSymbol(gap)
	if m.quick {
		e.single(t.gapRow(), g, 6)
	} else {
		a, b, c := t.gapRows(at)
		e.mixed(m.mixing, a, b, c, t.gapW[:], g, 6)
	}
	if g >= 32 {
		e.mantissa(&t.gapUpper[g], uint64(gap), uint(g-32)+5)
	}
}

func (e *encoder) guessed(t *tokenModel, long, short *guess, x token) bool {
	if long.count > 0 {
		agree := 2
		if short.count > 0 {
			agree = int(b2u(short.t == long.t))
		}
		hit := b2u(long.t == x)
		e.bit(&t.longHit[long.count][agree], hit)
		if hit == 1 {
			return true
		}
	}
	if short.count > 0 && (long.count == 0 || short.t != long.t) {
		hit := b2u(short.t == x)
		e.bit(&t.shortHit[short.count][b2u(long.count > 0)], hit)
		return hit == 1
	}
	return false
}
