package ota

import (
	"context"
	"fmt"

	"github.com/pawl-ota/pawl/ota/release"
)

// Plan is what it takes to bring a release onto the device: in bytes, but for
// what counts something else. It is made when the indexes are there and before
// anything else is fetched.
type Plan struct {
	To Installed `json:"to"`
	// Parts are the components that change.
	Parts []PlanPart `json:"parts"`
	// Fetch comes over the network, with Requests requests; the documents that
	// say what to fetch are not counted. Some of it, a few kB, may have come with
	// them.
	Fetch    int64 `json:"fetch"`
	Requests int   `json:"requests"`
	// Write is the content that is written for the components, Keep what the
	// local copy grows by, and Spool what is set aside until all is staged so
	// that nothing is fetched twice: 0 where there is no room for it.
	Write int64 `json:"write"`
	Keep  int64 `json:"keep"`
	Spool int64 `json:"spool"`
	// Memory is the most that the process is expected to hold, and FreeMemory
	// what it holds now with what the device has available.
	Memory     int64 `json:"memory"`
	FreeMemory int64 `json:"freeMemory"`
	// Space is what every file system that is written to has to give and has.
	Space []SpaceError `json:"space"`
}

// PlanPart is the plan of one component. The blobs in Here, Patched, Pieces and
// Whole come to all of it.
type PlanPart struct {
	Component string `json:"component"`
	// Here is on the device already.
	Here PlanWay `json:"here"`
	// Patched is made from what is on the device with patches.
	Patched PlanWay `json:"patched"`
	// Pieces is put together from stored pieces, of which Lent bytes are taken
	// from what is on the device.
	Pieces PlanWay `json:"pieces"`
	Lent   int64   `json:"lent,omitempty"`
}

// PlanWay is what comes in one way.
type PlanWay struct {
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"` // of the content
	Fetch int64 `json:"fetch"` // over the network
}

func (w *PlanWay) add(b release.Blob) {
	w.Blobs++
	w.Bytes += b.Size
}

// What a process holds, in bytes: without content, for decoding pieces, for
// applying patches, and for each blob of a component.
const (
	memoryIdle    = 16 << 20
	memoryPieces  = 6 << 20
	memoryPatches = 12 << 20
	memoryBlob    = 768
)

// planner fills in a Plan.
type planMaker struct {
	u     *Updater
	c     *content
	plan  *Plan
	needs []Need
	blobs int
	most  int64 // memory for decoding
}

// Plan tells what an update to r, a release from Check, would fetch, write and
// hold. It changes nothing on the device and keeps nothing of what it reads:
// indexes and what says how the rest is brought come from the source unless they
// are here. It does not refuse what does not fit: Stage does.
func (u *Updater) Plan(ctx context.Context, r *release.Release) (*Plan, error) {
	leave, err := u.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	c, err := u.looking(ctx, r)
	if err != nil {
		return nil, err
	}
	c.spool = &spool{dir: u.dir, known: map[string]*spoolShelf{}, full: true}
	parts, err := u.survey(ctx, r)
	if err != nil {
		return nil, err
	}
	m := u.newPlanMaker(c, Installed{ID: r.ID, Version: r.Version, Digest: r.Digest()})
	if err := m.all(ctx, parts, r); err != nil {
		return nil, fmt.Errorf("cannot plan %s: %w", r.Version, err)
	}
	return m.plan, m.finish(ctx, u.opts.Reserve)
}

// looking returns the content of a release that is only looked at.
func (u *Updater) looking(ctx context.Context, r *release.Release) (*content, error) {
	if u.opts.Source == nil {
		return nil, ErrNoSource
	}
	l, err := u.opts.Source.Locator(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("cannot find the content of %s: %w", r.Version, err)
	}
	if l.Release != r.Digest() {
		return nil, fmt.Errorf("cannot use the locator of %s: it is of another release: %w", r.Version, ErrDigest)
	}
	c := newContent(u)
	c.source, c.locator = u.opts.Source, l
	c.held = map[release.Digest][]byte{}
	for _, comp := range r.Components {
		c.held[comp.Index.Digest] = nil // when it comes
	}
	return c, nil
}

func (u *Updater) newPlanMaker(c *content, to Installed) *planMaker {
	return &planMaker{u: u, c: c, plan: &Plan{To: to, Parts: []PlanPart{}, Space: []SpaceError{}}}
}

// all plans every component that changes.
func (m *planMaker) all(ctx context.Context, parts []txPart, r *release.Release) error {
	m.need(m.u.scriptNeed(r))
	for _, p := range parts {
		b, comp, err := m.u.component(r, p.Name)
		if err != nil {
			return err
		}
		n, err := m.u.keepNeed(ctx, m.c, b, comp)
		if err != nil {
			return err
		}
		m.plan.Keep += n.Bytes
		m.need(n)
		if p.Same {
			continue
		}
		if err := m.one(ctx, b, comp); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	m.plan.Memory = memoryIdle + m.most + int64(m.blobs)*memoryBlob
	if m.c.table != nil {
		m.plan.Memory += int64(m.c.table.Len()) * memoryBlob / 8
	}
	return nil
}

func (m *planMaker) need(n ...Need) { m.needs = append(m.needs, n...) }

// one plans one component that changes.
func (m *planMaker) one(ctx context.Context, b Backend, comp release.Component) error {
	if budgeter, ok := b.(Budgeter); ok {
		n, err := budgeter.Budget(ctx, comp, m.c)
		if err != nil {
			return fmt.Errorf("cannot tell what it needs: %w", err)
		}
		m.need(n...)
	}
	part := PlanPart{Component: comp.Name}
	if _, ok := b.(Lister); ok {
		missing, err := m.missing(ctx, b, comp, &part)
		if err == nil && len(missing) > 0 && m.c.source != nil {
			err = m.bring(ctx, b, comp, missing, &part)
		}
		if err != nil {
			return err
		}
	}
	m.plan.Parts = append(m.plan.Parts, part)
	return nil
}

// missing returns the blobs that are not on the device.
func (m *planMaker) missing(ctx context.Context, b Backend, comp release.Component, part *PlanPart) ([]release.Blob, error) {
	blobs, err := m.u.blobsOf(ctx, m.c, b, comp)
	if err != nil {
		return nil, err
	}
	m.blobs += len(blobs)
	here := m.u.here(ctx, m.c, b, comp.Name)
	var missing []release.Blob
	for _, blob := range blobs {
		if blob.Size == 0 || here(blob) {
			part.Here.add(blob)
			continue
		}
		missing = append(missing, blob)
		m.plan.Write += blob.Size
	}
	return missing, nil
}

// bring plans how missing blobs come.
func (m *planMaker) bring(ctx context.Context, b Backend, comp release.Component, missing []release.Blob, part *PlanPart) error {
	m.c.stages(comp, b)
	p, err := m.c.plan(ctx, missing, true)
	for err != nil {
		if err = m.c.missed(ctx, err); err != nil {
			return err
		}
		p, err = m.c.plan(ctx, missing, true)
	}
	in := m.c.intake(p)
	for _, s := range p.spans {
		n, requests := in.missing(s)
		m.plan.Fetch += n
		m.plan.Requests += requests
	}
	part.Patched, part.Pieces = p.forms[byGroup], p.forms[byPieces]
	part.Lent = p.lent
	if part.Patched.Blobs > 0 {
		m.most = max(m.most, memoryPatches)
	}
	if part.Pieces.Blobs > 0 {
		m.most = max(m.most, memoryPieces)
	}
	return nil
}

// finish compares what is needed with what there is. Where there is room for
// all but the spool, there is none.
func (m *planMaker) finish(ctx context.Context, reserve int64) (err error) {
	held, free, err := m.u.host.Memory()
	if err != nil {
		return err
	}
	m.plan.FreeMemory = held + free
	m.plan.Spool = m.plan.Fetch + m.plan.Fetch/1000
	with := append(m.needs[:len(m.needs):len(m.needs)], Need{Path: m.u.opts.Dir, Bytes: m.plan.Spool, Inodes: 1})
	if m.plan.Space, err = m.u.sums(with, reserve); err != nil || m.plan.fits() == nil {
		return err
	}
	without, err := m.u.sums(m.needs, reserve)
	if err != nil {
		return err
	}
	if (&Plan{Space: without}).fits() == nil {
		m.plan.Space, m.plan.Spool = without, 0
	}
	return ctx.Err()
}

// fits returns a *SpaceError for the first file system that has not enough.
func (p *Plan) fits() error {
	for i := range p.Space {
		if s := &p.Space[i]; s.NeedBytes+s.Reserve > s.FreeBytes || s.NeedInodes > s.FreeInodes {
			return s
		}
	}
	return nil
}

// Check returns why Stage would refuse the plan: an error that wraps ErrNoSpace
// or ErrNoMemory and holds the numbers, or nil.
func (p *Plan) Check() error {
	if err := p.fits(); err != nil {
		return err
	}
	if p.Memory > p.FreeMemory {
		return &MemoryError{Need: p.Memory, Free: p.FreeMemory}
	}
	return nil
}
