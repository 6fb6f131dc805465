//go:build linux

package model

import (
	"iter"
	"math/rand/v2"
	"slices"
)

// maxWhole is of how many open effects all subsets are taken.
const maxWhole = 10

// Crashes returns at most max distinct states that a crash can leave, the same
// ones for the same seed. The first seed, 1 or 0, begins with those that are told
// off in order; all of any other are by chance. Facts count: two states that are
// the same but for what was acknowledged are both returned.
func (h *History) Crashes(max int, seed uint64) iter.Seq[*State] {
	return func(yield func(*State) bool) {
		g := newGallery(h, max, seed, yield)
		_ = (seed > 1 || g.prefixes() && g.subsets()) && g.samples()
	}
}

// After returns at most max distinct states of crashes of the process that came
// after one that was killed, while something that the killed one did was not
// durable; a few of the rest where there are too few of those.
func (h *History) After(max int, seed uint64) iter.Seq[*State] {
	killed := slices.IndexFunc(h.ops, func(o Op) bool { return o.Kind == Killed })
	return func(yield func(*State) bool) {
		g := newGallery(h, max, seed, yield)
		all := g.points
		g.points = nil
		for op := killed + 1; op <= len(h.ops); op++ {
			open := g.openAt(op)
			if len(open) > 0 && h.effects[open[0]].op < killed && (op == len(h.ops) || h.ops[op].matters() || h.ops[op-1].matters()) {
				g.points = append(g.points, point{op, open})
			}
		}
		if len(g.points) > 0 && !(g.ends() && g.samples()) {
			return
		}
		g.points = slices.DeleteFunc(all, func(p point) bool { return p.op <= killed })
		g.max = min(max, len(g.seen)+4)
		g.samples()
	}
}

func newGallery(h *History, max int, seed uint64, yield func(*State) bool) *gallery {
	g := &gallery{h: h, max: max, seen: map[uint64]bool{}, yield: yield, rand: rand.New(rand.NewPCG(seed, 5))}
	g.count()
	return g
}

// gallery hands out the states that were not handed out before.
type gallery struct {
	h     *History
	max   int
	seen  map[uint64]bool
	yield func(*State) bool
	rand  *rand.Rand

	before []int    // of each number of calls: how many effects they have
	facts  []uint64 // and how many facts
	points []point
}

// point is a place in the log at which the most is open: before a call that
// makes something durable, or the end.
type point struct {
	op   int
	open []int // effects
}

// count finds the points.
func (g *gallery) count() {
	effects, facts := 0, uint64(0)
	syncs := map[int]bool{len(g.h.ops): true}
	for _, e := range g.h.effects {
		syncs[e.durable] = true
	}
	for op := 0; op <= len(g.h.ops); op++ {
		for effects < len(g.h.effects) && g.h.effects[effects].op < op {
			effects++
		}
		g.before, g.facts = append(g.before, effects), append(g.facts, facts)
		if syncs[op] {
			g.points = append(g.points, point{op, g.openAt(op)})
		}
		if op < len(g.h.ops) && g.h.ops[op].Kind == Fact {
			facts++
		}
	}
}

func (g *gallery) openAt(op int) (open []int) {
	for n, e := range g.h.effects[:g.before[op]] {
		if e.durable >= op {
			open = append(open, n)
		}
	}
	return open
}

// show hands out the state with the fates of the open effects, and returns
// false when that is enough.
func (g *gallery) show(p point, fateOf func(k int) fate) bool {
	fates := make([]fate, g.before[p.op])
	for k, n := range p.open {
		fates[n] = fateOf(k)
	}
	s := g.h.state(p.op, fates)
	key := s.Sum ^ mix(g.facts[p.op])
	if g.seen[key] {
		return true
	}
	g.seen[key] = true
	return g.yield(s) && len(g.seen) < g.max
}

// prefixes shows every call as the last one: with everything kept, with
// nothing that was not durable, and with the last write torn in every way.
// Where they would be too many, they are half of all.
func (g *gallery) prefixes() bool {
	step := 1 + 4*len(g.h.ops)/g.max
	for op := 0; op <= len(g.h.ops); op += step {
		p := point{op, g.openAt(op)}
		if !g.show(p, func(int) fate { return kept }) || !g.show(p, func(int) fate { return lost }) {
			return false
		}
		if len(p.open) == 0 {
			continue
		}
		last := len(p.open) - 1
		for f := torn; int(f) < g.h.effects[p.open[last]].fates; f++ {
			ok := g.show(p, func(k int) fate {
				if k == last {
					return f
				}
				return kept
			})
			if !ok {
				return false
			}
		}
	}
	return true
}

// ends shows each point with everything kept, and with all that was not durable
// lost.
func (g *gallery) ends() bool {
	for _, p := range g.points {
		if !g.show(p, func(int) fate { return kept }) || !g.show(p, func(int) fate { return lost }) {
			return false
		}
	}
	return true
}

// subsets shows all subsets of the open effects of each point, or of the newest
// ones, with the older ones kept and lost. When all points together have more than
// is wanted, each gets its share, of subsets by chance.
func (g *gallery) subsets() bool {
	share := 1 + g.max/len(g.points)
	for _, p := range g.points {
		for _, old := range []fate{kept, lost} {
			whole := min(len(p.open), maxWhole)
			if old == lost && whole == len(p.open) {
				continue
			}
			for mask := range g.some(1<<whole, share) {
				ok := g.show(p, func(k int) fate {
					if k -= len(p.open) - whole; k < 0 {
						return old
					}
					return fate(mask >> k & 1)
				})
				if !ok {
					return false
				}
			}
		}
	}
	return true
}

// some returns all numbers below n, or share of them.
func (g *gallery) some(n, share int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range min(n, share) {
			if n > share {
				i = g.rand.IntN(n)
			}
			if !yield(i) {
				return
			}
		}
	}
}

// samples goes round the points and shows states by chance, until many rounds
// showed nothing new.
func (g *gallery) samples() bool {
	for dry := 0; dry < 20; dry++ {
		before := len(g.seen)
		for _, p := range g.points {
			for range 8 {
				if len(p.open) > 0 && !g.show(p, g.draw(p)) {
					return false
				}
			}
		}
		if len(g.seen) > before {
			dry = 0
		}
	}
	return true
}

// draw decides by chance what becomes of each open effect: how likely one is to
// be kept, up to which one all are, whether those of one inode go together, and
// whether writes tear.
func (g *gallery) draw(p point) func(int) fate {
	likely := []float64{0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98}[g.rand.IntN(7)]
	sure := 0
	if g.rand.IntN(2) == 0 {
		sure = g.rand.IntN(len(p.open))
	}
	together, tears := g.rand.IntN(3) == 0, g.rand.IntN(2) == 0
	groups := map[*inode]fate{}
	fates := make([]fate, len(p.open))
	for k, n := range p.open {
		e := g.h.effects[n]
		f := kept
		if k >= sure && g.rand.Float64() > likely {
			f = lost
		}
		if together && e.inode != nil && e.names == nil {
			if was, ok := groups[e.inode]; ok {
				f = was
			}
			groups[e.inode] = f
		}
		if tears && f == lost && e.fates > 2 {
			f = fate(1 + g.rand.IntN(e.fates-1))
		}
		fates[k] = f
	}
	return func(k int) fate { return fates[k] }
}

// smaller keeps one lost effect after the other, as long as bad still holds for
// what is left: the fewest that are needed are told to a person.
func (s *State) smaller(bad func(*State) bool) *State {
	for n := range s.fates {
		if s.fates[n] == kept {
			continue
		}
		fates := slices.Clone(s.fates)
		fates[n] = kept
		if t := s.h.state(s.Op, fates); bad(t) {
			s = t
		}
	}
	return s
}
