//go:build linux

package model

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// State is a disk after a crash.
type State struct {
	// Op is how many calls had been made.
	Op int
	// Sum is the same for two states of one History that are the same.
	Sum uint64

	h     *History
	fates []fate
	names names
}

// state returns the disk after a crash with the given fates, one for each effect
// of the calls before op, 0 for those that are durable then.
func (h *History) state(op int, fates []fate) *State {
	whole := slices.IndexFunc(fates, func(f fate) bool { return f != kept })
	if whole < 0 {
		whole = len(fates)
	}
	all, n := h.keeps(whole)
	s := &State{Op: op, h: h, fates: fates, names: all}
	for ; n < len(fates); n++ {
		if e := h.effects[n]; fates[n] == kept && e.names != nil {
			s.names.apply(e.names)
		}
	}
	s.Sum = h.inodes[0].after(h.ops, fates).sum
	there := reach{s, map[int32]bool{0: true}}
	for slot, link := range s.names.at {
		if there.from(slot.dir()) {
			i := h.inodes[h.of[link]]
			s.Sum += mix(uint64(slot) ^ mix(i.after(h.ops, fates).sum))
		}
	}
	return s
}

// markEvery: after so many effects what they are together is remembered.
const markEvery = 16

// keeps returns the names after some of the first n effects, all kept, and how many
// they are.
func (h *History) keeps(n int) (names, int) {
	if h.marked != len(h.effects) {
		h.marks, h.marked = nil, len(h.effects)
	}
	if h.marks == nil {
		h.marks = []names{h.first.clone()}
	}
	for at := len(h.marks); at <= n/markEvery; at++ {
		next := h.marks[at-1].clone()
		for _, e := range h.effects[(at-1)*markEvery : at*markEvery] {
			next.apply(e.names)
		}
		h.marks = append(h.marks, next)
	}
	at := n / markEvery
	return h.marks[at].clone(), at * markEvery
}

// mix spreads the bits of x (the finalizer of SplitMix64: Steele, Lea, Flood,
// "Fast splittable pseudorandom number generators", OOPSLA 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// reach knows which folders can be reached from the root.
type reach struct {
	s    *State
	seen map[int32]bool
}

func (r *reach) from(dir int32) bool {
	if is, ok := r.seen[dir]; ok {
		return is
	}
	r.seen[dir] = false // two folders within each other are lost
	link := r.s.h.inodes[dir].link
	if link >= 0 {
		at := r.s.names.place[link]
		r.seen[dir] = at != nowhere && r.from(at.dir())
	}
	return r.seen[dir]
}

// Entries describes the disk, as Scan would.
func (s *State) Entries() []Entry {
	children := map[int32][]slot{}
	for slot := range s.names.at {
		children[slot.dir()] = append(children[slot.dir()], slot)
	}
	nodes := map[int32]*Node{}
	var all []Entry
	var add func(p string, id int32)
	add = func(p string, id int32) {
		if nodes[id] == nil {
			nodes[id] = &s.h.inodes[id].after(s.h.ops, s.fates).Node
		}
		all = append(all, Entry{p, nodes[id]})
		if !nodes[id].is(unix.S_IFDIR) {
			return
		}
		below := children[id]
		slices.SortFunc(below, func(a, b slot) int { return strings.Compare(s.h.text[a.name()], s.h.text[b.name()]) })
		for _, c := range below {
			name := s.h.text[c.name()]
			if p != "." {
				name = p + "/" + name
			}
			add(name, s.h.of[s.names.at[c]])
		}
	}
	add(".", 0)
	return all
}

// Facts returns what had been acknowledged, in order.
func (s *State) Facts() []string {
	var all []string
	for _, o := range s.h.ops[:s.Op] {
		if o.Kind == Fact {
			all = append(all, o.Text)
		}
	}
	return all
}

// Lost describes what of the effects is not as it was asked for, one line each.
func (s *State) Lost() []string {
	words := []string{"kept", "lost", "torn", "zeros", "garbage", "torn, zeros"}
	var all []string
	for n, f := range s.fates {
		if f != kept {
			e := s.h.effects[n]
			all = append(all, fmt.Sprintf("%s: call %d, %s", words[f], e.op+1, s.h.describe(e)))
		}
	}
	return all
}

func (h *History) describe(e *effect) string {
	return h.ops[e.op].String()
}

// End returns the disk after the last call, with everything kept.
func (h *History) End() *State {
	return h.state(len(h.ops), make([]fate, len(h.effects)))
}

// same reports how the disk differs from what is there.
func (s *State) same(there []Entry) error {
	model := s.Entries()
	for i := range max(len(model), len(there)) {
		switch {
		case i >= len(model) || i < len(there) && there[i].Path < model[i].Path:
			return fmt.Errorf("%s is not in the model", there[i].Path)
		case i >= len(there) || there[i].Path > model[i].Path:
			return fmt.Errorf("%s is in the model alone", model[i].Path)
		}
		if err := model[i].same(there[i].Node); err != nil {
			return fmt.Errorf("%s differs in the model: %w", model[i].Path, err)
		}
	}
	return nil
}
