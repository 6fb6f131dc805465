package release

import (
	"encoding/hex"
	"math"
)

// plainLine reads a line that is one of nearly all: canonical, of texts that
// need no escapes, without extended attributes. It reports whether the line is
// such a one; any other has to be read the long way, which takes ten times as
// long and refuses what is not canonical.
func (e *Entry) plainLine(line []byte) bool {
	s := scanner{rest: line}
	*e = Entry{}
	s.take(`{"p":"`)
	e.Path = s.text()
	s.take(`","t":"`)
	e.Type = EntryType(s.text()).intern()
	s.take(`"`)
	if s.has(`,"m":"`) {
		e.Mode = uint32(s.number(8, 0o7777))
		s.take(`"`)
	}
	if s.has(`,"u":`) {
		e.UID = uint32(s.number(10, math.MaxUint32))
	}
	if s.has(`,"g":`) {
		e.GID = uint32(s.number(10, math.MaxUint32))
	}
	if s.has(`,"d":"`) {
		s.digest(&e.Digest)
		s.take(`"`)
	}
	if s.has(`,"s":`) {
		e.Size = int64(s.number(10, math.MaxInt64))
	}
	if s.has(`,"l":"`) {
		if e.Target = s.text(); e.Target == "" {
			return false // left out in the canonical form
		}
		s.take(`"`)
	}
	s.take("}\n")
	return !s.bad && len(s.rest) == 0
}

// scanner takes a line apart. After the first thing that is not as expected
// all that it returns is zero, and bad is set.
type scanner struct {
	rest []byte
	bad  bool
}

func (s *scanner) has(word string) bool {
	if s.bad || len(s.rest) < len(word) || string(s.rest[:len(word)]) != word {
		return false
	}
	s.rest = s.rest[len(word):]
	return true
}

func (s *scanner) take(word string) {
	if !s.has(word) {
		s.bad = true
	}
}

// text takes what stands before the next quotation mark. It has to be ASCII
// that no JSON writer escapes.
func (s *scanner) text() string {
	for i, c := range s.rest {
		switch {
		case s.bad:
			return ""
		case c == '"':
			t := string(s.rest[:i])
			s.rest = s.rest[i:]
			return t
		case c < ' ' || c > '~' || c == '\\' || c == '<' || c == '>' || c == '&':
			s.bad = true
		}
	}
	s.bad = true
	return ""
}

// number takes a number from 1 to limit as it is written canonically.
func (s *scanner) number(base, limit uint64) uint64 {
	n, i := uint64(0), 0
	for ; i < len(s.rest); i++ {
		d := uint64(s.rest[i] - '0')
		if d >= base {
			break
		}
		if i == 0 && d == 0 || n > (limit-d)/base {
			s.bad = true
			return 0
		}
		n = n*base + d
	}
	s.bad = s.bad || i == 0
	s.rest = s.rest[i:]
	return n
}

// digest takes a digest that is not zero.
func (s *scanner) digest(d *Digest) {
	const n = 2 * len(Digest{})
	if s.bad || len(s.rest) < n {
		s.bad = true
		return
	}
	text := s.rest[:n]
	for _, c := range text {
		if c >= 'A' && c <= 'F' {
			s.bad = true
		}
	}
	_, err := hex.Decode(d[:], text)
	s.bad = s.bad || err != nil || d.IsZero()
	s.rest = s.rest[n:]
}
