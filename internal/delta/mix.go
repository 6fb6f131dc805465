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

const inputs = 3

// weights say how much each model counts in some situation. They are differences
// to the first ones, in 1/65536.
type weights [inputs]int32

const firstWeight = 26000

// mixed is one decision while it is made.
type mixed struct {
	*mixing
	in [inputs]*prob
	st [inputs]int32
	w  *weights
	p  int32 // in 1/4096
}

// expect returns the probability of a one in 1/32768.
func (m *mixed) expect(a, b, c *prob, w *weights) uint32 {
	m.in[0], m.in[1], m.in[2], m.w = a, b, c, w
	m.st[0] = int32(m.stretched[(a.p^0x8000)>>4])
	m.st[1] = int32(m.stretched[(b.p^0x8000)>>4])
	m.st[2] = int32(m.stretched[(c.p^0x8000)>>4])
	dot := int64(m.st[0])*int64(w[0]+firstWeight) + int64(m.st[1])*int64(w[1]+firstWeight) + int64(m.st[2])*int64(w[2]+firstWeight)
	x := max(-2048, min(2047, dot>>16))
	m.p = int32(m.squashed[x+2048])
	return uint32(m.p)<<3 | 4
}

// learn tells the models and the weights what was decided.
func (m *mixed) learn(bit uint32) {
	miss := int32(bit)<<12 - m.p
	for i := range m.st {
		m.w[i] += (m.st[i]*miss*rate + 1<<13) >> 14
	}
	m.in[0].learn(bit)
	m.in[1].learn(bit)
	m.in[2].learn(bit)
}

const rate = 6
