package ota

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/pawl-ota/pawl/ota/release"
)

// form is a way in which blobs are brought from the repository.
type form int

const (
	byPieces form = iota // stored pieces, one for most blobs; some may be on the device
	bySplice             // an index, as a script over an earlier one
	byGroup              // many blobs, as patches to what is on the device
)

// item is one thing to be brought.
type item struct {
	form  form
	blob  release.Blob // zero for a group
	group int          // of the delta
	// wanted are the blobs of a group, sorted.
	wanted []release.Digest
	first  release.Place // where it begins: items are brought in that order
}

// contentPlan is how missing blobs are brought.
type contentPlan struct {
	items []item
	spans []span          // to be asked for, each with one request
	more  []release.Place // of them what is only kept
	// purposes are what the ranges are for.
	purposes []purpose
	// forms is what comes in each form, for a person.
	forms [byGroup + 1]PlanWay
	lent  int64 // bytes of blobs that come from pieces on the device
}

// also adds places to what is fetched.
func (p *contentPlan) also(places []release.Place) {
	p.more = places
	p.serve(forPatches, places...)
	all := slices.Clone(places)
	for _, s := range p.spans {
		all = append(all, release.Place{Pack: s.file, Offset: s.offset, Length: s.end - s.offset})
	}
	p.spans = spansOf(all)
}

// serve notes what places are for.
func (p *contentPlan) serve(why func(*Fetched) *int64, places ...release.Place) {
	for _, at := range places {
		p.purposes = append(p.purposes, purpose{span{at.Pack, at.Offset, at.Offset + at.Length}, why})
	}
}

// planner finds the cheapest way to each of some blobs.
type planner struct {
	c       *content
	ctx     context.Context
	plan    *contentPlan
	places  []release.Place
	rest    []release.Blob // no way was found yet
	patches map[int]*tally // groups that some of the blobs could come from
}

// tally is what a group of patches is good for.
type tally struct {
	cost  int64 // bytes that the source has to give
	blobs []release.Blob
}

// wanted returns the digests of the blobs, sorted.
func (t *tally) wanted() []release.Digest {
	var all []release.Digest
	for _, b := range t.blobs {
		all = append(all, b.Digest)
	}
	slices.SortFunc(all, compareDigests)
	return all
}

func compareDigests(a, b release.Digest) int { return bytes.Compare(a[:], b[:]) }

// plan says how to bring blobs that are not on the device. deltas is whether
// patches to what is there may be used.
func (c *content) plan(ctx context.Context, blobs []release.Blob, deltas bool) (*contentPlan, error) {
	if c.source == nil || c.locator == nil {
		return nil, fmt.Errorf("%s: %w", blobs[0].Digest.Short(), ErrNotLocal)
	}
	p := &planner{c: c, ctx: ctx, plan: &contentPlan{}, rest: blobs, patches: map[int]*tally{}}
	p.splices()
	if deltas {
		if err := p.tallyPatches(); err != nil {
			return nil, err
		}
	}
	if err := p.choose(); err != nil {
		return nil, err
	}
	slices.SortStableFunc(p.plan.items, func(a, b item) int {
		return cmp.Or(cmp.Compare(a.first.Pack, b.first.Pack), cmp.Compare(a.first.Offset, b.first.Offset))
	})
	p.plan.spans = spansOf(p.places)
	return p.plan, nil
}

// cost is how many bytes of a place the source has to give.
func (p *planner) cost(at release.Place) int64 {
	if p.c.spool == nil {
		return at.Length
	}
	return p.c.spool.missing(at.Pack, at.Offset, at.Length)
}

func (p *planner) add(it item, blobs []release.Blob, places ...release.Place) {
	p.plan.items = append(p.plan.items, it)
	f := &p.plan.forms[it.form]
	for _, b := range blobs {
		f.add(b)
	}
	for _, at := range places {
		f.Fetch += p.cost(at)
	}
	p.places = append(p.places, places...)
}

// splices takes the blobs out that come as a script over a blob that is here.
func (p *planner) splices() {
	if len(p.c.locator.Patches) == 0 {
		return
	}
	p.rest = slices.DeleteFunc(slices.Clone(p.rest), func(b release.Blob) bool {
		at, ok := p.c.splice(b)
		if ok {
			p.add(item{form: bySplice, blob: b, first: at}, []release.Blob{b}, at)
			p.plan.serve(forIndex, at)
		}
		return ok
	})
}

// splice returns where a script that makes b is, one that can be used here.
func (c *content) splice(b release.Blob) (release.Place, bool) {
	patch, ok := c.spliceOf(b)
	if !ok {
		return release.Place{}, false
	}
	at := c.locator.Place(patch)
	return at, c.gone[at.Pack] == nil
}

func (c *content) spliceOf(b release.Blob) (release.Patch, bool) {
	if c.avoid[b.Digest] {
		return release.Patch{}, false
	}
	return c.locator.Patch(b.Digest, func(d release.Digest) bool {
		_, err := c.u.store().get(d, maxDocument)
		return err == nil
	})
}

// tallyPatches adds up what each group of the delta is good for.
func (p *planner) tallyPatches() error {
	d, err := p.c.findDelta(p.ctx)
	if err != nil || d == nil {
		return err
	}
	p.rest = slices.DeleteFunc(slices.Clone(p.rest), func(b release.Blob) bool {
		at, ok := d.find(b)
		if !ok || p.c.avoid[b.Digest] || !p.c.hasInput(p.ctx, d, at) {
			return false
		}
		t := p.patches[at.group]
		if t == nil {
			t = &tally{cost: p.cost(d.place(at.group))}
			p.patches[at.group] = t
		}
		t.blobs = append(t.blobs, b)
		return true
	})
	return nil
}

// choose takes each group, or the pieces of what it would bring, and the pieces
// of the rest. The table, which has these, is read only if it may matter.
func (p *planner) choose() error {
	need := len(p.rest) > 0
	for _, t := range p.patches {
		need = need || t.cost > p.c.locator.Table.Size+likely(t.blobs)
	}
	if need {
		if err := p.c.readTable(p.ctx); err != nil && (len(p.rest) > 0 || p.ctx.Err() != nil) {
			return err
		}
	}
	for _, group := range slices.Sorted(maps.Keys(p.patches)) {
		t := p.patches[group]
		if p.c.table != nil && p.piecesAreCheaper(t) {
			p.rest = append(p.rest, t.blobs...)
			continue
		}
		at := p.c.delta.place(group)
		p.add(item{form: byGroup, group: group, first: at, wanted: t.wanted()}, t.blobs, at)
		p.plan.serve(forPatches, at)
	}
	for _, b := range p.rest {
		if err := p.pieces(b); err != nil {
			return err
		}
	}
	return nil
}

// likely is what blobs take at least when they are compressed, as far as one
// can tell beforehand.
func likely(blobs []release.Blob) (n int64) {
	for _, b := range blobs {
		n += b.Size / 8
	}
	return n
}

// piecesAreCheaper compares a group with the pieces of what it would bring.
func (p *planner) piecesAreCheaper(t *tally) bool {
	left := t.cost
	for _, b := range t.blobs {
		pieces, ok := p.c.table.Pieces(b)
		if !ok {
			return false
		}
		for _, piece := range pieces {
			if p.c.gone[piece.Pack] != nil {
				return false
			}
			left -= p.cost(piece.Place)
		}
		if left <= 0 {
			return false
		}
	}
	return true
}

// pieces plans a blob from its stored pieces and from what of them is on the
// device.
func (p *planner) pieces(b release.Blob) error {
	all, ok := p.c.table.Pieces(b)
	if !ok {
		return fmt.Errorf("%s: %w: the locator does not name it", b.Digest.Short(), ErrNotLocal)
	}
	p.c.borrow(p.ctx, b, all)
	it := item{form: byPieces, blob: b}
	var places []release.Place
	why := p.c.purposeOf(b, len(all))
	for _, piece := range all {
		p.plan.serve(why, piece.Place)
		if _, lent := p.c.lent[piece.Sum]; lent {
			p.plan.lent += piece.Size
			continue
		}
		if err := p.c.gone[piece.Pack]; err != nil {
			return err
		}
		if it.first.Pack == "" {
			it.first = piece.Place
		}
		places = append(places, piece.Place)
	}
	p.add(it, []release.Blob{b}, places...)
	return nil
}

// purposeOf says what the pieces of b are for.
func (c *content) purposeOf(b release.Blob, pieces int) func(*Fetched) *int64 {
	switch {
	case c.indexes[b.Digest]:
		return forIndex
	case pieces > 1:
		return forPieces
	}
	return forWhole
}
