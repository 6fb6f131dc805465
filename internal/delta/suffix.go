package delta

// symbol is what a text is made of: bytes, and inside the sort names of parts.
type symbol interface{ byte | int32 }

// sortSuffixes fills sa with the places of the suffixes of text in their order.
// The symbols are below k. It is SA-IS of Nong, Zhang and Chan ("Two Efficient
// Algorithms for Linear Time Suffix Array Construction", 2011): the suffixes
// that begin a valley of the text are sorted first, by sorting a shorter text
// of their names, and all others follow from them. Besides sa it takes one bit
// per symbol, and four bytes per name.
func sortSuffixes[T symbol](text []T, sa []int32, k int) {
	n := len(text)
	if n <= 1 {
		clear(sa)
		return
	}
	s := sorter[T]{text: text, sa: sa, valley: make([]uint64, n/64+1), bucket: make([]int32, k)}
	m := s.findValleys()
	s.placeValleys()
	s.induce()
	names := s.name(m)
	reduced := sa[n-m:]
	if names < m {
		sortSuffixes(reduced, sa[:m], names)
	} else {
		for i, name := range reduced {
			sa[name] = int32(i)
		}
	}
	s.spread(m)
	s.induce()
}

type sorter[T symbol] struct {
	text   []T
	sa     []int32
	valley []uint64 // a bit for each place where a valley begins
	bucket []int32
}

func (s *sorter[T]) isValley(i int32) bool { return s.valley[i>>6]>>(i&63)&1 != 0 }

// findValleys marks the places whose suffix is smaller than the one behind it
// while the one before it is not, and returns their number.
func (s *sorter[T]) findValleys() int {
	m, rising := 0, false
	for i := len(s.text) - 2; i >= 0; i-- {
		a, b := s.text[i], s.text[i+1]
		switch {
		case a < b:
			rising = true
		case a > b && rising:
			rising = false
			s.valley[(i+1)>>6] |= 1 << ((i + 1) & 63)
			m++
		}
	}
	return m
}

// starts and ends set the buckets to the first place of each symbol, and to the
// one behind the last.
func (s *sorter[T]) starts() {
	s.count()
	sum := int32(0)
	for i, n := range s.bucket {
		s.bucket[i] = sum
		sum += n
	}
}

func (s *sorter[T]) ends() {
	s.count()
	sum := int32(0)
	for i, n := range s.bucket {
		sum += n
		s.bucket[i] = sum
	}
}

func (s *sorter[T]) count() {
	clear(s.bucket)
	for _, c := range s.text {
		s.bucket[c]++
	}
}

// placeValleys puts the valleys at the ends of their symbols' buckets, unsorted.
func (s *sorter[T]) placeValleys() {
	for i := range s.sa {
		s.sa[i] = -1
	}
	s.ends()
	for i := len(s.text) - 1; i > 0; i-- {
		if s.isValley(int32(i)) {
			s.put(int32(i))
		}
	}
}

func (s *sorter[T]) put(i int32) {
	c := s.text[i]
	s.bucket[c]--
	s.sa[s.bucket[c]] = i
}

// induce sorts all suffixes by the valleys that are in their places: those that
// are larger than the one behind them from the front, the others from the back.
func (s *sorter[T]) induce() {
	text, sa, bucket := s.text, s.sa, s.bucket
	s.starts()
	last := int32(len(text) - 1)
	sa[bucket[text[last]]] = last
	bucket[text[last]]++
	for i := range sa {
		j := sa[i] - 1
		if j >= 0 && text[j] >= text[j+1] {
			c := text[j]
			sa[bucket[c]] = j
			bucket[c]++
		}
	}
	s.ends()
	for i := len(sa) - 1; i >= 0; i-- {
		j := sa[i] - 1
		if j < 0 {
			continue
		}
		c, d := text[j], text[j+1]
		if c < d || c == d && int32(i) >= bucket[c] {
			bucket[c]--
			sa[bucket[c]] = j
		}
	}
}

// name gives equal valleys equal names, in their order, and leaves the names in
// the order of the text at the end of sa. It returns how many there are.
func (s *sorter[T]) name(m int) int {
	n, k := len(s.sa), 0
	for _, j := range s.sa {
		if s.isValley(j) {
			s.sa[k] = j
			k++
		}
	}
	rest := s.sa[m:]
	for i := range rest {
		rest[i] = -1
	}
	names := int32(-1)
	for i, j := range s.sa[:m] {
		if i == 0 || !s.same(s.sa[i-1], j) {
			names++
		}
		rest[j/2] = names
	}
	at := n
	for i := len(rest) - 1; i >= 0; i-- {
		if rest[i] >= 0 {
			at--
			s.sa[at] = rest[i]
		}
	}
	return int(names + 1)
}

// same reports whether the parts from a and from b to the valleys behind them
// are equal.
func (s *sorter[T]) same(a, b int32) bool {
	n := int32(len(s.text))
	for i := int32(0); ; i++ {
		if a+i >= n || b+i >= n || s.text[a+i] != s.text[b+i] {
			return false
		}
		if i > 0 && (s.isValley(a+i) || s.isValley(b+i)) {
			return s.isValley(a+i) && s.isValley(b+i)
		}
	}
}

// spread turns the order of the names at the front of sa into valleys in their
// places, now sorted.
func (s *sorter[T]) spread(m int) {
	n := len(s.sa)
	places, k := s.sa[n-m:], 0
	for i := range int32(n) {
		if s.isValley(i) {
			places[k] = i
			k++
		}
	}
	for i := range m {
		s.sa[i] = places[s.sa[i]]
	}
	rest := s.sa[m:]
	for i := range rest {
		rest[i] = -1
	}
	s.ends()
	for i := m - 1; i >= 0; i-- {
		j := s.sa[i]
		s.sa[i] = -1
		s.put(j)
	}
}
