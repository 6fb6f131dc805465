package delta

// restorer reads inserted bytes.
type restorer struct {
	d     *decoder
	m     *model
	hist  []byte // the last bytes; a ring once it is as long as the window
	at    int64  // how many there were
	ahead int64  // bytes of the item that were not asked for
	kind  uint32
	plain bool // of this patch
}

// read fills p, which is never empty, with some of the next bytes.
func (s *restorer) read(p []byte) int {
	if s.ahead == 0 {
		if s.item(); s.ahead == 0 {
			return 0
		}
	}
	n := int(min(s.ahead, int64(len(p))))
	switch s.kind {
	case itemByte:
		p[0] = s.literal()
		s.m.items.remember(itemByte)
		s.put(p[0])
	case itemRaw:
		for i := range p[:n] {
			p[i] = s.back(s.ahead)
			s.ahead--
		}
		return n
	default:
		dist := s.m.items.reps[0]
		for i := range p[:n] {
			p[i] = s.back(dist)
			s.put(p[i])
		}
	}
	s.ahead -= int64(n)
	return n
}

func (s *restorer) item() {
	t := &s.m.items
	s.kind = s.d.tree(t.kind[t.kinds[0]][t.kinds[1]][:], 2)
	switch s.kind {
	case itemByte:
		s.ahead = 1
		return
	case itemRaw:
		s.raw((s.d.number(&t.rawRuns) + 1) * rawRun)
	case itemRepeat:
		i := s.d.tree(t.repeats[:], 2)
		s.ahead = s.d.number(&t.length[1]) + minMatch
		t.use(int(i))
	case itemMatch:
		s.ahead = s.d.number(&t.length[0]) + minMatch
		t.push(s.d.number(&t.distance[min(s.ahead-minMatch, 3)]) + 1)
	}
	t.remember(s.kind)
	if s.kind != itemRaw && (t.reps[0] > s.at || t.reps[0] > window) {
		s.d.fail("a match begins before the first byte")
	}
	if s.ahead <= 0 || s.ahead > maxSize || s.d.err != nil {
		s.d.fail("an item's length is out of range")
		s.ahead = 0
	}
}

// raw reads all bytes of the item: other things may follow in the group before
// the last of them is asked for.
func (s *restorer) raw(n int64) {
	if n > rawMax {
		n = 0
	}
	for range n / 2 {
		v := s.d.direct(16)
		s.put(byte(v >> 8))
		s.put(byte(v))
	}
	s.ahead = n
}

func (s *restorer) literal() byte {
	t := &s.m.items
	if s.plain {
		return s.d.plain(&t.plain)
	}
	if s.m.quick {
		return byte(s.d.single(t.byteA[s.back(1)][:], 8))
	}
	a, b, c, w := t.byteRows(s.back(1), s.back(2), s.back(t.reps[0]))
	return byte(s.d.mixed(s.m.mixing, a, b, c, w[:], 8))
}

// back returns the byte so many before the next one, 0 before the first.
func (s *restorer) back(n int64) byte {
	if n > s.at {
		return 0
	}
	return s.hist[int(s.at-n)&(len(s.hist)-1)]
}

func (s *restorer) put(b byte) {
	if s.at == int64(len(s.hist)) && s.at < window {
		hist := make([]byte, max(2*len(s.hist), 64<<10))
		copy(hist, s.hist)
		s.hist = hist
	}
	s.hist[int(s.at)&(len(s.hist)-1)] = b
	s.at++
}
