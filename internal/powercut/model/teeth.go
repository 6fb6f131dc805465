//go:build linux && (amd64 || arm64)

package model

import (
	"cmp"
	"iter"
	"slices"
	"strings"
)

// A recording with the site of each durable step shows what a sync is good for:
// without it, what the program asked of the kernel is the same but for this one
// call, and more can be lost by a crash. If none of the states that come to that
// breaks a promise, then nothing in the tests would notice the loss of the
// sync, or nothing needs it.

// Site is a place in the code that makes something durable.
type Site string

// isSync reports whether the op makes something durable.
func (o *Op) isSync() bool { return o.Kind == Fsync || o.Kind == Datasync || o.Kind == SyncAll }

// sited is a recording with the sites of its syncs.
type sited struct {
	base  *History
	ops   []Op
	sites []Site // of each op; empty where it is no sync of a durable step
}

// newSited takes the sites out of what watchSites left in a recording.
func newSited(h *History) (*sited, error) {
	s := &sited{}
	at := ""
	for _, o := range h.ops {
		if text, ok := strings.CutPrefix(o.Text, sitePrefix); ok && o.Kind == Fact {
			at = text
			continue
		}
		s.ops = append(s.ops, o)
		if o.isSync() && at != "" {
			s.sites = append(s.sites, siteKey(at))
		} else {
			s.sites = append(s.sites, "")
		}
		at = ""
	}
	var err error
	s.base, err = h.replay(s.ops)
	return s, err
}

// siteKey shortens a stack to the kind of sync and the two places outside of
// package durable that led to it. What package durable does by itself it has
// tests of its own for.
func siteKey(stack string) Site {
	words := strings.Fields(stack)
	key := words[:1:1]
	for _, w := range words[1:] {
		if len(key) < 3 && !strings.HasPrefix(w, "ota/durable/") {
			key = append(key, w)
		}
	}
	return Site(strings.Join(key, " "))
}

// replay is the history of the same disk with other calls.
func (h *History) replay(ops []Op) (*History, error) {
	n, err := NewHistory(h.start, h.numbers)
	if err != nil {
		return nil, err
	}
	for _, o := range ops {
		if err := n.Add(o); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// all returns the sites, in the order of their first syncs.
func (s *sited) all() (list []Site) {
	for _, site := range s.sites {
		if site != "" && !slices.Contains(list, site) {
			list = append(list, site)
		}
	}
	return list
}

// without returns the history without the syncs of a site, and of each of its
// calls the index in s.
func (s *sited) without(site Site) (h *History, index []int, err error) {
	var ops []Op
	for n, o := range s.ops {
		if s.sites[n] != site {
			ops, index = append(ops, o), append(index, n)
		}
	}
	h, err = s.base.replay(ops)
	return h, index, err
}

// group are effects that one sync would have made durable.
type group struct {
	effects  []int
	from, to int // they are open after so many calls, and until
}

// groups returns what the lost syncs leave open for longer.
func (s *sited) groups(h *History, index []int) (all []*group) {
	bySync := map[int]*group{}
	for n, e := range h.effects {
		was := s.base.effects[n].durable
		if was == never || e.durable != never && index[e.durable] == was {
			continue
		}
		g := bySync[was]
		if g == nil {
			from, _ := slices.BinarySearch(index, was)
			g = &group{from: from + 1, to: min(e.durable, len(h.ops))}
			bySync[was] = g
		}
		g.effects = append(g.effects, n)
		g.to = max(g.to, min(e.durable, len(h.ops)))
	}
	for _, g := range bySync {
		if g.from <= g.to {
			all = append(all, g)
		}
	}
	slices.SortFunc(all, func(a, b *group) int { return cmp.Compare(a.from, b.from) })
	return all
}

// ends are the places at which the crash may come: after calls that other
// things depend on, the latest first.
func (g *group) ends(h *History) (ends []int) {
	for p := g.to; p >= g.from; p-- {
		if p == g.to || p == g.from || p > 0 && h.ops[p-1].matters() {
			ends = append(ends, p)
		}
	}
	return ends
}

// matters reports a call that others are ordered by.
func (o *Op) matters() bool {
	return o.isSync() || o.Kind == Fact || o.Kind == Rename || o.Kind == Exchange || o.Kind == Unlink
}

// maxSingly is how many effects of a group are lost one by one.
const maxSingly = 12

// only returns the states that a crash can leave for want of the syncs of a
// site: each end of each group in turn, so that the first few are of all.
func (s *sited) only(h *History, index []int) iter.Seq[*State] {
	return func(yield func(*State) bool) {
		seen := map[uint64]bool{}
		groups := s.groups(h, index)
		for round := 0; ; round++ {
			more := false
			for _, g := range groups {
				ends := g.ends(h)
				if round >= len(ends) {
					continue
				}
				more = true
				for st := range g.states(h, ends[round]) {
					if !seen[st.Sum] && !yield(st) {
						return
					}
					seen[st.Sum] = true
				}
			}
			if !more {
				return
			}
		}
	}
}

// states are those of a crash after p calls in which something of the group is
// lost: all of it, with all else kept or lost; each effect; and half of each.
func (g *group) states(h *History, p int) iter.Seq[*State] {
	return func(yield func(*State) bool) {
		n := 0
		for n < len(h.effects) && h.effects[n].op < p {
			n++
		}
		state := func(rest fate, these []int, f fate) *State {
			fates := make([]fate, n)
			for k := range fates {
				if h.effects[k].durable >= p {
					fates[k] = rest
				}
			}
			for _, k := range these {
				if k < n && h.effects[k].durable >= p {
					fates[k] = f
				}
			}
			return h.state(p, fates)
		}
		if !yield(state(kept, g.effects, lost)) || !yield(state(lost, g.effects, lost)) {
			return
		}
		for i, e := range g.effects {
			if i == maxSingly {
				return
			}
			for f := lost; int(f) < h.effects[e].fates; f++ {
				if !yield(state(kept, []int{e}, f)) {
					return
				}
			}
		}
	}
}
