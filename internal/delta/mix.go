package delta

import "math/bits"

// mixing joins what several models expect of one decision, as Mahoney's PAQ
// does ("Adaptive Weighing of Context Models for Lossless Data Compression",
// 2005): their probabilities are added as logarithms of odds, with weights that
// learn. All is done in integers, so that every machine comes to the same.
type mixing struct {
	stretched [4096]int16 // log2(p/(1-p)) for a probability in 1/4096, in 1/256
	squashed  [4096]int16 // the other way, for -2048…2047 in units of 1/256
}

func newMixing() *mixing {
	m := &mixing{}
	for i := range m.stretched {
		m.stretched[i] = int16((log2(uint64(2*i+1)) - log2(uint64(8192-2*i-1))) >> 8)
	}
	p := 0
	for i := range m.squashed {
		for p < 4095 && int(m.stretched[p]) < i-2048 {
			p++
		}
		m.squashed[i] = int16(p)
	}
	return m
}

// log2 returns the logarithm of v in 1/65536.
func log2(v uint64) int {
	n := bits.Len64(v) - 1
	x := v << (31 - n) // 1 ≤ x < 2 in 1/2^31
	sum := n
	for range 16 {
		x = x * x >> 31
		sum <<= 1
		if x >= 1<<32 {
			x >>= 1
			sum++
		}
	}
	return sum
}

// short is a prob in half the memory, of which many fit into a cache: the
// probability of a one in 1/4096, with the upper bit flipped, and below it in
// four bits how many decisions it has seen.
type short uint16

// odds is where a probability's logarithm of odds stands in a table.
func (b short) odds() uint32 { return uint32(b^0x8000) >> 4 & 4095 }

// oneOf returns the probability of a one in 1/32768, never none nor all.
func (b short) oneOf() uint32 { return b.odds()<<3 | 4 }

// moved returns b after a decision: moved by less and less, down to 1/32. ones
// is 4095 for a one.
func (b short) moved(ones int32) short {
	n := int32(b) & 15
	p := int32(b^0x8000) >> 4
	p += (ones - p) >> (uint(bits.Len8(uint8(n+1))) & 31)
	return short(p<<4|(n+(30-n)>>4)) ^ 0x8000
}

// weights say how much each of three models counts in some situation, as
// differences to the first weight, in 1/65536.
type weights [3]int32

const (
	firstWeight = 26000
	maxWeight   = 1 << 17 // with it the sum stays below 2^31
	learnRate   = 6
)

// mixed is one decision while it is made: what the models say, and what comes
// of it.
type mixed struct {
	x, y, z int32 // logarithms of odds, in 1/256
	p       int32 // the probability of a one, in 1/4096
}

func (m *mixing) expect(a, b, c short, w *weights) mixed {
	x := int32(m.stretched[a.odds()])
	y := int32(m.stretched[b.odds()])
	z := int32(m.stretched[c.odds()])
	sum := (x*(w[0]+firstWeight) + y*(w[1]+firstWeight) + z*(w[2]+firstWeight)) >> 16
	return mixed{x, y, z, int32(m.squashed[max(-2048, min(2047, sum))+2048])}
}

// oneOf returns the probability of a one in 1/32768, never none nor all.
func (m mixed) oneOf() uint32 { return uint32(m.p)<<3 | 4 }

// miss says how wrong that was.
func (m mixed) miss(bit uint32) int32 { return (int32(bit)<<12 - m.p) * learnRate }

// learn moves the weights towards the models that were right.
func (w *weights) learn(m mixed, bit uint32) {
	miss := m.miss(bit)
	w[0] = bounded(w[0] + (m.x*miss+1<<13)>>14)
	w[1] = bounded(w[1] + (m.y*miss+1<<13)>>14)
	w[2] = bounded(w[2] + (m.z*miss+1<<13)>>14)
}

func bounded(w int32) int32 {
	return max(-maxWeight-firstWeight, min(maxWeight-firstWeight, w))
}
