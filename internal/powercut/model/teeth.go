//go:build linux && (amd64 || arm64)

package model

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	"github.com/pawl-ota/pawl/internal/powercut/site"
)

// A recording with the site of each durable step shows what a sync is good for:
// without it, what the program asked of the kernel is the same but for this one
// call, and more can be lost by a crash. If none of the states that come to that
// breaks a promise, then nothing in the tests would notice the loss of the
// sync, or nothing needs it.

// Site is a place in the code that makes something durable.
type Site string

// ofTests reports a place that no device has.
func (s Site) ofTests() bool {
	words := strings.Fields(string(s))
	return len(words) > 1 && strings.HasPrefix(words[1], "internal/powercut/")
}

// ofSpool reports a sync of bytes kept from the network: without it they are
// fetched again, which no state of a disk shows. TestPowerCutInDownload of
// package ota counts them.
func (s Site) ofSpool() bool {
	words := strings.Fields(string(s))
	return len(words) > 1 && strings.HasPrefix(words[1], "ota/spool.go:")
}

// ofLocator reports a sync of what says where content is: without it the source is
// asked once more.
func (s Site) ofLocator() bool {
	words := strings.Fields(string(s))
	return len(words) > 2 && strings.HasPrefix(words[2], "ota/locate.go:")
}

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
			s.sites = append(s.sites, Site(site.Key(strings.Fields(at))))
		} else {
			s.sites = append(s.sites, "")
		}
		at = ""
	}
	var err error
	s.base, err = h.replay(s.ops)
	return s, err
}

// replay is the history of the same disk, on several file systems, with other
// calls.
func (h *History) replay(ops []Op) (*History, error) {
	n, err := NewHistory(h.start, h.numbers)
	if err != nil {
		return nil, err
	}
	n.volume = volumeOf
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

// late returns the history in which the syncs of a site come behind the next
// call that an order is about.
func (s *sited) late(site Site, orders []Order) (*History, error) {
	var ops, waiting []Op
	for n, o := range s.ops {
		if s.sites[n] == site {
			waiting = append(waiting, o)
			continue
		}
		ops = append(ops, o)
		if len(waiting) > 0 && slices.ContainsFunc(orders, func(r Order) bool { return r.At(&o) }) {
			ops, waiting = append(ops, waiting...), nil
		}
	}
	return s.base.replay(append(ops, waiting...))
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

// only returns the states that a crash can leave for want of the syncs of a
// site, those first that lose the most of it.
func (s *sited) only(h *History, index []int) iter.Seq[*State] {
	return func(yield func(*State) bool) {
		seen := map[uint64]bool{}
		show := func(st *State) bool {
			if seen[st.Sum] {
				return true
			}
			seen[st.Sum] = true
			return yield(st)
		}
		groups := s.groups(h, index)
		_ = showLast(h, groups, show) && showEach(h, groups, show)
	}
}

// showLast loses the last few groups together, at each end of the last of them.
func showLast(h *History, groups []*group, show func(*State) bool) bool {
	for last := range slices.Backward(groups) {
		for n := 1; n <= last+1; n *= 2 {
			var these []int
			for _, g := range groups[last+1-n : last+1] {
				these = append(these, g.effects...)
			}
			for _, p := range few(groups[last].ends(h)) {
				if !show(h.losing(p, kept, these, lost)) {
					return false
				}
			}
		}
	}
	return true
}

// few returns the first, the middle and the last.
func few(all []int) []int {
	return slices.Compact([]int{all[0], all[len(all)/2], all[len(all)-1]})
}

// maxSingly is how many effects of a group are lost one by one.
const maxSingly = 12

// showEach loses of each group all, with all else kept or lost too, and each
// effect by itself, or a part of it; the groups in turn, at one end after
// the other, so that the first few states are of all.
func showEach(h *History, groups []*group, show func(*State) bool) bool {
	for round, more := 0, true; more; round++ {
		more = false
		for _, g := range groups {
			ends := g.ends(h)
			if round >= len(ends) {
				continue
			}
			more = true
			p := ends[round]
			if !show(h.losing(p, kept, g.effects, lost)) || !show(h.losing(p, lost, g.effects, lost)) {
				return false
			}
			for _, e := range g.effects[:min(len(g.effects), maxSingly)] {
				for f := lost; int(f) < h.effects[e].fates; f++ {
					if !show(h.losing(p, kept, []int{e}, f)) {
						return false
					}
				}
			}
		}
	}
	return true
}

// losing is the state of a crash after p calls in which these effects have the
// fate f, and all others that are open have rest.
func (h *History) losing(p int, rest fate, these []int, f fate) *State {
	n := 0
	for n < len(h.effects) && h.effects[n].op < p {
		n++
	}
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
