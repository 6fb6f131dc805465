package delta

import (
	"encoding/binary"
	"math/bits"
)

// index finds the longest piece of a blob's window that a text begins with.
type index struct {
	data  []byte
	sa    []int32
	pairs []int32  // where in sa the suffixes begin that begin with two bytes
	seen  []uint64 // a bit for the hash of each 8 bytes
	shift int
}

// shortest is the length below which a match is not looked for.
const shortest = 8

func newIndex(data []byte) *index {
	x := &index{data: data, sa: make([]int32, len(data))}
	sortSuffixes(data, x.sa, 256)
	x.countPairs()
	x.markSeen()
	return x
}

func (x *index) countPairs() {
	x.pairs = make([]int32, 1<<16+1)
	for i := range len(x.data) - 1 {
		x.pairs[int(x.data[i])<<8|int(x.data[i+1])]++
	}
	last := int(x.data[len(x.data)-1]) << 8
	sum := int32(0)
	for i, n := range x.pairs {
		if i == last { // the suffix of one byte is before all that begin with it
			sum++
		}
		x.pairs[i] = sum
		sum += n
	}
}

func (x *index) markSeen() {
	n := max(bits.Len(uint(len(x.data)))+2, 6)
	x.seen, x.shift = make([]uint64, 1<<(n-6)), 64-n
	for i := range max(len(x.data)-shortest+1, 0) {
		h := x.hash(x.data[i:])
		x.seen[h>>6] |= 1 << (h & 63)
	}
}

func (x *index) hash(b []byte) uint64 {
	return binary.LittleEndian.Uint64(b) * 0x9e3779b97f4a7c15 >> x.shift
}

// longest returns where the longest match of text is, and its length; 0 where
// it is certainly shorter than shortest bytes.
func (x *index) longest(text []byte) (at, length int) {
	if len(text) < shortest {
		return 0, 0
	}
	if h := x.hash(text); x.seen[h>>6]>>(h&63)&1 == 0 {
		return 0, 0
	}
	pair := int(text[0])<<8 | int(text[1])
	lo, hi := int(x.pairs[pair]), int(x.pairs[pair+1])
	// All suffixes before lo are smaller than text, those from hi on are larger.
	var left, right int
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		at := int(x.sa[mid])
		n := min(left, right)
		n += common(x.data[at+n:], text[n:])
		if n == len(text) {
			return at, n
		}
		if at+n == len(x.data) || x.data[at+n] < text[n] {
			lo, left = mid+1, n
		} else {
			hi, right = mid, n
		}
	}
	if left >= right && lo > 0 {
		return int(x.sa[lo-1]), left
	}
	if hi < len(x.sa) {
		return int(x.sa[hi]), right
	}
	return 0, 0
}

// common returns how many bytes a and b have in common at their beginning.
func common(a, b []byte) int {
	n := min(len(a), len(b))
	a, b = a[:n], b[:n]
	i := 0
	for ; i+8 <= n; i += 8 {
		if d := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); d != 0 {
			return i + bits.TrailingZeros64(d)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}
