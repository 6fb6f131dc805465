package delta

// plain expects bytes that are nearly chance by how often each was there, and
// codes one in a step: eight decisions would cost a device a multiple of that,
// and save nothing. What is expected follows what was seen in steps.
type plain struct {
	count [256]uint32
	sum   uint32
	left  uint32               // bytes until the next step
	step  uint32               // the one after that takes as many
	below [257]uint32          // what is expected of all lower bytes, in 1/4096
	which [1 << plainBits]byte // the byte that a number stands for
}

const (
	plainBits  = 12
	plainStep  = 1 << 9  // bytes at most until what is expected is told anew
	plainLimit = 1 << 13 // what was seen longer ago counts less and less
)

func (t *plain) init() {
	for i := range t.count {
		t.count[i] = 1
	}
	t.sum, t.step = 256, 64
	t.tell()
}

// tell fills in what is expected, never nothing of any byte.
func (t *plain) tell() {
	most, at := 0, uint32(0)
	for b, n := range t.count {
		if n > t.count[most] {
			most = b
		}
		t.below[b] = at
		at += 1 + uint32(uint64(n)*(1<<plainBits-256)/uint64(t.sum))
	}
	rest := uint32(1<<plainBits) - at
	for b := most + 1; b < 256; b++ {
		t.below[b] += rest
	}
	t.below[256] = 1 << plainBits
	for b := range t.count {
		part := t.which[t.below[b]:t.below[b+1]]
		for i := range part {
			part[i] = byte(b)
		}
	}
	t.left = t.step
	t.step = min(2*t.step, plainStep)
}

func (t *plain) learn(b byte) {
	t.count[b]++
	t.sum++
	if t.left--; t.left > 0 {
		return
	}
	if t.sum >= plainLimit {
		t.sum = 0
		for i := range t.count {
			t.count[i] = (t.count[i] + 1) / 2
			t.sum += t.count[i]
		}
	}
	t.tell()
}

func (e *encoder) plain(t *plain, b byte) {
	part := e.rng >> plainBits
	e.low += uint64(part) * uint64(t.below[b])
	e.rng = part * (t.below[int(b)+1] - t.below[b])
	for e.rng < top {
		e.rng <<= 8
		e.shift()
	}
	t.learn(b)
}

func (d *decoder) plain(t *plain) byte {
	part := d.rng >> plainBits
	b := t.which[min(d.code/part, 1<<plainBits-1)]
	from := t.below[b]
	d.code -= part * from
	d.rng = part * (t.below[int(b)+1] - from)
	if d.code >= d.rng {
		d.fail("a byte is out of range")
		d.code = 0
	}
	d.more()
	t.learn(b)
	return b
}
