package block

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
)

// State is one disk that a power cut could have left: everything before the
// flush at Floor, and of what came after it the Writes.
type State struct {
	Floor  int   // entries of the log that are there for certain
	Writes []int // positions in the log of what else is there, ascending
	Torn   int64 // bytes of the last of Writes that are there; 0: all of them
	Marks  int   // how many of the log's marks must hold
	Prefix bool  // Writes are all those after Floor up to some moment
}

// String names the state as a position in its log.
func (s State) String() string {
	text := fmt.Sprintf("flushed to %d, then %v", s.Floor, s.Writes)
	if s.Torn > 0 {
		text += fmt.Sprintf(" (the last one torn after %d bytes)", s.Torn)
	}
	return text
}

// Choice says which states are taken.
type Choice struct {
	Seed   uint64
	Sector int // the unit that the disk writes whole or not at all, in bytes
	// All is the number of writes between two flushes up to which each of their
	// subsets is taken; above it are all prefixes, each write left out or alone,
	// and 2^All subsets by chance.
	All int
	// Most is how many states are taken: each prefix, and of the others a sample
	// that fills it up. 0: all.
	Most int
}

// epoch is what lies between two flushes.
type epoch struct {
	floor  int // the first position after the flush
	writes []int
	marks  int // marks that hold when the power goes right before the next flush
}

func (l *Log) epochs() []epoch {
	var all []epoch
	now := epoch{}
	end := func(pos int) {
		now.marks, _ = slices.BinarySearchFunc(l.Marks, pos, func(m Mark, pos int) int { return cmp.Compare(m.Pos, pos+1) })
		all = append(all, now)
		now = epoch{floor: pos + 1}
	}
	for i, e := range l.Entries {
		if e.Op == Flush {
			end(i)
		} else {
			now.writes = append(now.writes, i)
		}
	}
	end(len(l.Entries))
	return all
}

// States returns the states that a power cut during the log could have left,
// each content once, in the order of the log, and how many were found in all.
// A content that can come from several moments has to keep the marks of the
// last of them.
func States(l *Log, c Choice) (taken []State, found int) {
	e := &enumeration{log: l, choice: c, random: rand.New(rand.NewPCG(c.Seed, 0)), seen: map[uint64]int{}}
	e.hashes = newHashes(l)
	for _, ep := range l.epochs() {
		e.epoch(ep)
		e.hashes.advance(ep)
	}
	return e.choose(), len(e.states)
}

type enumeration struct {
	log    *Log
	choice Choice
	random *rand.Rand
	hashes *hashes
	seen   map[uint64]int
	states []State
}

func (e *enumeration) epoch(ep epoch) {
	n := len(ep.writes)
	for k := range n + 1 {
		e.add(ep, State{Writes: ep.writes[:k], Prefix: true})
	}
	for k := range n {
		for _, cut := range e.tears(e.log.Entries[ep.writes[k]]) {
			e.add(ep, State{Writes: ep.writes[:k+1], Torn: cut})
		}
	}
	if n <= e.choice.All {
		for set := range 1 << n {
			e.add(ep, State{Writes: pick(ep.writes, func(i int) bool { return set&(1<<i) != 0 })})
		}
		return
	}
	for k := range n {
		e.add(ep, State{Writes: pick(ep.writes, func(i int) bool { return i != k })})
		e.add(ep, State{Writes: ep.writes[k : k+1]})
	}
	for range 1 << e.choice.All {
		share := e.random.Float64()
		e.add(ep, State{Writes: pick(ep.writes, func(int) bool { return e.random.Float64() < share })})
	}
}

func pick(from []int, keep func(i int) bool) []int {
	var picked []int
	for i, w := range from {
		if keep(i) {
			picked = append(picked, w)
		}
	}
	return picked
}

// tears returns where a request can be cut in two: between all sectors of a
// page, and at eight places by chance in what is longer.
func (e *enumeration) tears(entry Entry) []int64 {
	sector := int64(e.choice.Sector)
	var cuts []int64
	for cut := sector; cut < entry.Length; cut += sector {
		cuts = append(cuts, cut)
	}
	const most = 8
	if len(cuts) > most {
		e.random.Shuffle(len(cuts), func(i, j int) { cuts[i], cuts[j] = cuts[j], cuts[i] })
		cuts = cuts[:most]
	}
	return cuts
}

// add takes a state whose content is new, and else raises what the one with
// that content has to keep.
func (e *enumeration) add(ep epoch, s State) {
	s.Floor, s.Marks = ep.floor, ep.marks
	content := e.hashes.of(s)
	i, known := e.seen[content]
	if !known {
		e.seen[content] = len(e.states)
		e.states = append(e.states, s)
		return
	}
	e.states[i].Marks = max(e.states[i].Marks, s.Marks)
	e.states[i].Prefix = e.states[i].Prefix || s.Prefix
}

// choose thins the states to what was asked for.
func (e *enumeration) choose() []State {
	most := e.choice.Most
	if most == 0 || len(e.states) <= most {
		return e.states
	}
	order := e.random.Perm(len(e.states))
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(rank(e.states[a]), rank(e.states[b])) })
	taken := order[:most]
	slices.Sort(taken)
	states := make([]State, most)
	for i, at := range taken {
		states[i] = e.states[at]
	}
	return states
}

func rank(s State) int {
	if s.Prefix {
		return 0
	}
	return 1
}

// Builder makes the images of states of one log. It is quick for states in the
// order of the log.
type Builder struct {
	log  *Log
	now  *Image
	done int
}

// NewBuilder returns a builder for the states of l.
func NewBuilder(l *Log) *Builder { return &Builder{log: l, now: l.Base.Clone()} }

// Build returns the content of the disk in the state s.
func (b *Builder) Build(s State) *Image {
	if s.Floor < b.done {
		b.now, b.done = b.log.Base.Clone(), 0
	}
	for ; b.done < s.Floor; b.done++ {
		e := b.log.Entries[b.done]
		e.apply(b.now, e.Length)
	}
	m := b.now.Clone()
	for i, w := range s.Writes {
		e := b.log.Entries[w]
		if length := e.Length; s.Torn > 0 && i == len(s.Writes)-1 {
			e.apply(m, s.Torn)
		} else {
			e.apply(m, length)
		}
	}
	return m
}
