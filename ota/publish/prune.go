package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pawl-ota/pawl/ota/release"
)

// PruneOptions say what Prune may let go of.
type PruneOptions struct {
	// Variant is the one whose releases are dropped; empty means all.
	Variant string
	// Keep is how many of the newest releases of a variant stay; 0 means all.
	Keep int
	// Deltas is how many of the newest releases of a variant keep their deltas
	// when the pack that holds them is rewritten; 0 means 3, and less than 0
	// none. Devices go to the newest release: the deltas to others serve nobody
	// until that is withdrawn.
	Deltas int
	// Grace is for how long a file that nothing refers to stays, since a Prune
	// first found it so: devices may be fetching it. 0 means 14 days, and less
	// than 0 not at all.
	Grace time.Duration
}

// Pruned is what Prune did.
type Pruned struct {
	Dropped []release.ID `json:"dropped,omitempty"`
	// Rewritten are packs of which less than two thirds were needed. What was
	// is in Packs now.
	Rewritten []string `json:"rewritten,omitempty"`
	Packs     []string `json:"packs,omitempty"`
	// Lost are the deltas that went.
	Lost    []LostDelta `json:"lost,omitempty"`
	Removed []string    `json:"removed,omitempty"`
	Freed   int64       `json:"freed"` // bytes of Removed
	// Resting are files that nothing refers to, of RestingSize bytes, which a
	// later Prune removes.
	Resting     []string `json:"resting,omitempty"`
	RestingSize int64    `json:"restingSize"`
}

// LostDelta is a delta that is there no more: devices on From fetch pieces to get
// to the release.
type LostDelta struct {
	release.ID
	Component string `json:"component"`
	// From are the releases that have what the delta starts from, as far as the
	// repository lists them; Index is that.
	From  []uint64       `json:"from,omitempty"`
	Index release.Digest `json:"index"`
}

// Prune makes the repository small: it drops old releases, moves what is needed
// out of packs that hold little else, and removes files that nothing has referred
// to for a while. The releases themselves stay as they are; where their content
// lies is signed anew. What is signed by a role whose keys are not here stays
// where it is.
//
// All that it drops is out of use before it is removed: cut anywhere, it leaves a
// repository that clients can use, and the next Prune carries on. A device in the
// middle of a download finds what it needs for as long as Grace says, and then
// by asking for the place again.
func (r *Repository) Prune(ctx context.Context, o PruneOptions) (Pruned, error) {
	unlock, err := r.disk.lock()
	if err != nil {
		return Pruned{}, fmt.Errorf("cannot prune: %w", err)
	}
	defer unlock()
	o.Deltas = defaulted(o.Deltas, 3)
	if o.Grace == 0 {
		o.Grace = 14 * day
	}
	p := &pruning{ctx: ctx, r: r, o: o, now: r.now()}
	if err := p.run(); err != nil {
		if errors.Is(err, ErrWaiting) {
			return p.done, fmt.Errorf("cannot publish what prune did: %w", err)
		}
		return Pruned{}, fmt.Errorf("cannot prune: %w", err)
	}
	return p.done, nil
}

// pruning is one run of Prune.
type pruning struct {
	ctx  context.Context
	r    *Repository
	o    PruneOptions
	now  time.Time
	t    *trusted
	edit *edit
	done Pruned

	all   []*listed // before anything is dropped
	list  []*listed // that stay, newest first
	packs map[string]*packUse
	order []*packUse
	// lies is where each piece is to be taken from.
	lies map[release.Digest]spot
	// deltas are releases that keep them.
	deltas map[*listed]bool
}

func (p *pruning) run() (err error) {
	if p.t, err = p.r.disk.load(nil, time.Time{}); err != nil {
		return err
	}
	if p.all, err = p.r.disk.listed(p.t); err != nil {
		return err
	}
	if p.edit, err = p.r.begin(p.t, "prune", p.roles()...); err != nil {
		return err
	}
	p.drop()
	if err := p.survey(); err != nil {
		return err
	}
	if err := p.repack(); err != nil {
		return err
	}
	if err := p.ctx.Err(); err != nil {
		return err
	}
	if len(p.edit.drafts) > 0 {
		p.r.opts.Progress(Progress{Step: "sign"})
		if err := p.r.finish(p.t, p.edit); err != nil {
			return err
		}
	}
	return p.sweep()
}

// roles returns the roles that releases are signed by and whose keys are here.
func (p *pruning) roles() (list []Role) {
	for _, l := range p.all {
		if !slices.Contains(list, l.role) && p.signs(l.role) {
			list = append(list, l.role)
		}
	}
	return list
}

// signs reports whether the documents of a role may change.
func (p *pruning) signs(role Role) bool {
	q := rootQuorum(p.t.Root, Targets)
	if role != Targets {
		q = delegateQuorum(targetsOf(p.t), role)
	}
	return p.r.opts.Wait || q.here(p.r.opts.Keys[role]) >= q.threshold
}

// drop lists old releases no more.
func (p *pruning) drop() {
	byAge := slices.Clone(p.all)
	slices.SortStableFunc(byAge, func(a, b *listed) int {
		return cmp.Or(b.release.Issued.Compare(a.release.Issued), cmp.Compare(a.Variant, b.Variant), compareSeq(b.Seq, a.Seq))
	})
	p.deltas = map[*listed]bool{}
	for i, n := range newerThan(byAge) {
		l := byAge[i]
		p.deltas[l] = n < p.o.Deltas
		if p.o.Keep == 0 || n < p.o.Keep || p.o.Variant != "" && l.Variant != p.o.Variant || !p.signs(l.role) {
			p.list = append(p.list, l)
			continue
		}
		p.unlist(l)
		p.done.Dropped = append(p.done.Dropped, l.id())
	}
}

// newerThan returns of how many releases of its variant each is older.
func newerThan(list []*listed) []int {
	n := make([]int, len(list))
	for i, l := range list {
		for _, other := range list {
			if other.Product == l.Product && other.Variant == l.Variant && other.Seq > l.Seq {
				n[i]++
			}
		}
	}
	return n
}

func (p *pruning) unlist(l *listed) {
	meta := p.edit.bump(p.t, l.role, p.r.expires(p.now, l.role))
	note := oursOf(meta)
	note.remember(l.Variant, l.Seq)
	note.set(meta)
	for _, kind := range []string{kindRelease, kindLocator} {
		t := l.target
		t.Kind = kind
		delete(meta.Signed.Targets, t.name())
	}
}

// lost notes a delta that goes.
func (p *pruning) lost(l *listed, d release.Delta) {
	out := LostDelta{ID: l.id(), Component: d.Component, Index: d.From}
	for _, other := range p.all {
		c, ok := other.release.Component(d.Component)
		if ok && c.Index.Digest == d.From && other.Variant == l.Variant && other.Product == l.Product {
			out.From = append(out.From, other.Seq)
		}
	}
	p.done.Lost = append(p.done.Lost, out)
}
