package delta

import (
	"encoding/binary"
	"io"
	"math"
	"math/bits"
)

const (
	lookahead = 256 << 10 // bytes that are there before one is coded, where so many follow
	maxMatch  = 64 << 10
	chain     = 24 // candidates for a match
	hashBits  = 20
)

// inserter codes the inserted bytes of a group. They are one text: an item may
// reach from one insert into the next one of the same patch.
type inserter struct {
	e      *encoder
	m      *model
	src    io.Reader // the inserted bytes of the patch that were not read
	srcErr error
	buf    []byte
	pos    int // buf[:pos] is coded
	hashed int // buf[:hashed] is in the table
	base   uint32
	ahead  int64 // bytes that are coded and not asked for
	next   found // the best match at nextAt, where it was looked for
	nextAt uint32
	plain  bool // of this patch
	rawTo  int  // no need to look again before buf[rawTo]
	head   []uint32
	prev   []uint32 // as long as what was seen, then a ring as long as the window
}

func newInserter(e *encoder, m *model) *inserter {
	return &inserter{e: e, m: m, head: make([]uint32, 1<<hashBits)}
}

// begin begins with the inserted bytes of another patch.
func (s *inserter) begin(p *Patch) error {
	plain, err := nearlyChance(&inserts{p: p})
	s.plain = plain
	s.e.bit(&s.m.plain, b2u(plain))
	s.src, s.srcErr, s.ahead = &inserts{p: p}, nil, 0
	return err
}

// nearlyChance reports whether the bytes are of no text or program: what mixed
// models save is little there, and costs the device much time.
func nearlyChance(r io.Reader) (bool, error) {
	var count [256]int
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		for _, b := range buf[:n] {
			count[b]++
		}
		if err == io.EOF {
			return entropy(&count) > 7, nil
		} else if err != nil {
			return false, err
		}
	}
}

// entropy returns the bits per byte that the bytes' frequencies leave.
func entropy(count *[256]int) float64 {
	all := 0
	for _, n := range count {
		all += n
	}
	sum := 0.0
	for _, n := range count {
		if n > 0 {
			sum += float64(n) * math.Log2(float64(all)/float64(n))
		}
	}
	return sum / float64(max(all, 1))
}

// code codes so many items that n bytes more are covered.
func (s *inserter) code(n int64) error {
	for s.ahead < n {
		if err := s.fill(); err != nil {
			return err
		}
		if s.pos == len(s.buf) {
			return io.ErrUnexpectedEOF
		}
		s.ahead += int64(s.item())
	}
	s.ahead -= n
	return nil
}

// fill reads ahead, and forgets what is further back than the window.
func (s *inserter) fill() error {
	if len(s.buf)-s.pos >= lookahead/2 || s.srcErr == io.EOF {
		return nil
	}
	if s.pos > 2*window {
		drop := s.pos - window
		s.buf = append(s.buf[:0], s.buf[drop:]...)
		s.pos, s.hashed, s.rawTo, s.base = s.pos-drop, s.hashed-drop, s.rawTo-drop, s.base+uint32(drop)
	}
	for len(s.buf)-s.pos < lookahead && s.srcErr == nil {
		at := len(s.buf)
		s.buf = append(s.buf, make([]byte, lookahead)...)
		var n int
		n, s.srcErr = io.ReadFull(s.src, s.buf[at:])
		s.buf = s.buf[:at+n]
		if s.srcErr == io.ErrUnexpectedEOF {
			s.srcErr = io.EOF
		}
	}
	if s.srcErr == io.EOF {
		return nil
	}
	return s.srcErr
}

// found is a match that may be used.
type found struct {
	length int
	dist   int
	rep    int // which of the last distances it is, or -1
	gain   int // roughly the bits that it saves, times 4
}

// item codes the next item and returns how many bytes it is.
func (s *inserter) item() int {
	if n := s.rawLength(); n > 0 {
		return s.raw(n)
	}
	f := s.next
	if s.nextAt != s.base+uint32(s.pos) || s.pos == 0 {
		f = s.best(s.pos)
	}
	if f.gain > 0 && s.pos+1 < len(s.buf) && f.length < 64 {
		s.next, s.nextAt = s.best(s.pos+1), s.base+uint32(s.pos)+1
		if s.next.gain > f.gain+8 {
			f.gain = 0
		}
	}
	if f.gain <= 0 {
		return s.literal()
	}
	return s.match(f)
}

// rawLength returns how many of the next bytes are best left as they are.
func (s *inserter) rawLength() int {
	if s.pos < s.rawTo || len(s.buf)-s.pos < rawRun {
		return 0
	}
	n := 0
	for s.pos+n+rawRun <= len(s.buf) && n < rawMax && noisy(s.buf[s.pos+n:][:rawRun]) {
		n += rawRun
	}
	if n == 0 {
		s.rawTo = s.pos + rawRun/4
	} else if s.best(s.pos).length >= 32 {
		return 0
	}
	return n
}

// noisy reports whether the bytes of a block are as different as chance makes them.
func noisy(block []byte) bool {
	var count [256]int
	for _, b := range block {
		count[b]++
	}
	return entropy(&count) > 7.8
}

func (s *inserter) kind(k uint32) {
	t := &s.m.items
	s.e.tree(t.kind[t.kinds[0]][t.kinds[1]][:], k, 2)
}

func (s *inserter) raw(n int) int {
	s.kind(itemRaw)
	t := &s.m.items
	s.e.number(&t.rawRuns, int64(n/rawRun-1))
	for raw := s.buf[s.pos:][:n]; len(raw) > 0; raw = raw[2:] {
		s.e.direct(uint32(raw[0])<<8|uint32(raw[1]), 16)
	}
	t.remember(itemRaw)
	s.advance(n)
	return n
}

func (s *inserter) literal() int {
	s.kind(itemByte)
	t, v := &s.m.items, uint32(s.buf[s.pos])
	switch {
	case s.plain:
		s.e.plain(&t.plain, byte(v))
	case s.m.quick:
		s.e.single(t.byteA[s.at(1)][:], v, 8)
	default:
		a, b, c, w := t.byteRows(s.at(1), s.at(2), s.at(t.reps[0]))
		s.e.mixed(s.m.mixing, a, b, c, w[:], v, 8)
	}
	t.remember(itemByte)
	s.advance(1)
	return 1
}

// at returns the byte so many before the next one, 0 before the first.
func (s *inserter) at(back int64) byte {
	if int64(s.pos) < back {
		return 0
	}
	return s.buf[s.pos-int(back)]
}

func (s *inserter) match(f found) int {
	t := &s.m.items
	if f.rep >= 0 {
		s.kind(itemRepeat)
		s.e.tree(t.repeats[:], uint32(f.rep), 2)
		s.e.number(&t.length[1], int64(f.length-minMatch))
		t.use(f.rep)
		t.remember(itemRepeat)
	} else {
		s.kind(itemMatch)
		s.e.number(&t.length[0], int64(f.length-minMatch))
		s.e.number(&t.distance[min(f.length-minMatch, 3)], int64(f.dist-1))
		t.push(int64(f.dist))
		t.remember(itemMatch)
	}
	s.advance(f.length)
	return f.length
}

// advance goes on, and puts what is behind into the table.
func (s *inserter) advance(n int) {
	s.pos += n
	for ; s.hashed < s.pos && s.hashed+4 <= len(s.buf); s.hashed++ {
		h := s.hash(s.hashed)
		at := s.base + uint32(s.hashed)
		if n := len(s.prev); n < window && at >= uint32(n) {
			s.prev = append(s.prev, make([]uint32, max(n, 4<<10))...)
		}
		s.prev[at&uint32(len(s.prev)-1)] = s.head[h]
		s.head[h] = at + 1
	}
}

func (s *inserter) hash(i int) uint32 {
	return binary.LittleEndian.Uint32(s.buf[i:]) * 0x9e3779b1 >> (32 - hashBits)
}

// best returns the match at buf[i:] that saves most.
func (s *inserter) best(i int) (f found) {
	text := s.buf[i:min(len(s.buf), i+maxMatch)]
	for k, dist := range s.m.items.reps {
		if int(dist) > i {
			continue
		}
		if n := common(text, s.buf[i-int(dist):]); n >= minMatch {
			f.take(found{n, int(dist), k, 4*5*n - 4*(6+k)})
		}
	}
	if len(text) < 4 {
		return f
	}
	here := s.base + uint32(i)
	at := s.head[s.hash(i)]
	longest := 3
	for range chain {
		dist := here - (at - 1)
		if at == 0 || dist == 0 || dist > window-lookahead || int(dist) > i {
			break
		}
		c := s.buf[i-int(dist):]
		if longest < len(text) && c[longest] == text[longest] {
			if n := common(text, c); n > longest {
				longest = n
				f.take(found{n, int(dist), -1, 4*5*n - 4*(9+bits.Len32(dist))})
			}
		}
		at = s.prev[(at-1)&uint32(len(s.prev)-1)]
	}
	return f
}

func (f *found) take(g found) {
	if g.gain > f.gain {
		*f = g
	}
}
