package delta

func (d *decoder) tree(m []prob, n uint) uint32 {
	node := uint32(1)
	for range n {
		node = node<<1 | d.bit(&m[node])
	}
	return node - 1<<n
}

// single reads n bits with one model. Most of a device's time goes here, and into
// mixed: what the encoder's ones call is written out in both, and what the decoder
// holds is in registers.
func (d *decoder) single(m []short, n uint) uint32 {
	m = m[:1<<n]
	node, rng, code := uint32(1), d.rng, d.code
	for range n {
		p := m[node]
		if bound := rng >> probBits * p.oneOf(); code < bound {
			rng = bound
			m[node], node = p.moved(4095), node<<1|1
		} else {
			rng, code = rng-bound, code-bound
			m[node], node = p.moved(0), node<<1
		}
		if rng < top {
			rng, code = d.widen(rng, code)
		}
	}
	d.rng, d.code = rng, code
	return node - 1<<n
}

func (d *decoder) mixed(m *mixing, a, b, c []short, w []weights, n uint) uint32 {
	a, b, c, w = a[:1<<n], b[:1<<n], c[:1<<n], w[:1<<n]
	node, rng, code := uint32(1), d.rng, d.code
	for range n {
		pa, pb, pc, pw := a[node], b[node], c[node], &w[node]
		x, y, z := int32(m.stretched[pa.odds()]), int32(m.stretched[pb.odds()]), int32(m.stretched[pc.odds()])
		sum := (x*(pw[0]+firstWeight) + y*(pw[1]+firstWeight) + z*(pw[2]+firstWeight)) >> 16
		p := int32(m.squashed[max(-2048, min(2047, sum))+2048])

		bound := rng >> probBits * (uint32(p)<<3 | 4)
		ones, miss := int32(4095), (4096-p)*learnRate
		if code < bound {
			rng = bound
			node, a[node], b[node], c[node] = node<<1|1, pa.moved(ones), pb.moved(ones), pc.moved(ones)
		} else {
			rng, code = rng-bound, code-bound
			miss -= 4096 * learnRate
			node, a[node], b[node], c[node] = node<<1, pa.moved(0), pb.moved(0), pc.moved(0)
		}
		if rng < top {
			rng, code = d.widen(rng, code)
		}

		pw[0] = bounded(pw[0] + (x*miss+1<<13)>>14)
		pw[1] = bounded(pw[1] + (y*miss+1<<13)>>14)
		pw[2] = bounded(pw[2] + (z*miss+1<<13)>>14)
	}
	d.rng, d.code = rng, code
	return node - 1<<n
}

func (d *decoder) number(m *number) int64 {
	n := uint(d.tree(m.class[:], 6))
	if n >= uint(len(m.upper)) {
		d.fail("a number is out of range")
		return 0
	}
	return int64(d.mantissa(&m.upper[n], n)) - 1
}

// mantissa reads n bits below a one.
func (d *decoder) mantissa(m *[8]prob, n uint) uint64 {
	k := min(n, 3)
	n -= k
	x := uint64(1)<<k | uint64(d.tree(m[:], k))
	for n > 0 {
		k := min(n, 16)
		n -= k
		x = x<<k | uint64(d.direct(k))
	}
	return x
}

func (d *decoder) signed(m *signed) int64 {
	if d.bit(&m.zero) == 1 {
		return 0
	}
	negative := d.bit(&m.sign) == 1
	v := d.number(&m.size) + 1
	if negative {
		return -v
	}
	return v
}

// token reads a gap and a difference. at is the place in the new blob.
func (d *decoder) token(m *model, at int64) (gap int64, diff uint32) {
	t := &m.tokens
	long, short := t.guesses()
	x, ok := d.guessed(t, long, short)
	if ok {
		gap, diff = int64(x>>9), uint32(x&511)
	} else {
		gap = d.gap(m, at)
		if m.quick {
			diff = d.single(t.diffRow(gap), 9)
		} else {
			a, b, c := t.diffRows(gap, at+gap)
			diff = d.mixed(m.mixing, a, b, c, t.diffW[:], 9)
		}
		x = makeToken(gap, diff)
	}
	t.learn(long, short, x)
	return gap, diff
}

func (d *decoder) gap(m *model, at int64) int64 {
	t, g := &m.tokens, uint32(0)
	if m.quick {
		g = d.single(t.gapRow(), 6)
	} else {
		a, b, c := t.gapRows(at)
		g = d.mixed(m.mixing, a, b, c, t.gapW[:], 6)
	}
	if g >= 32 {
		return int64(d.mantissa(&t.gapUpper[g], uint(g-32)+5))
	}
	return int64(g)
}

func (d *decoder) guessed(t *tokenModel, long, short *guess) (token, bool) {
	if long.count > 0 {
		agree := 2
		if short.count > 0 {
			agree = int(b2u(short.t == long.t))
		}
		if d.bit(&t.longHit[long.count][agree]) == 1 {
			return long.t, true
		}
	}
	if short.count > 0 && (long.count == 0 || short.t != long.t) {
		return short.t, d.bit(&t.shortHit[short.count][b2u(long.count > 0)]) == 1
	}
	return 0, false
}
