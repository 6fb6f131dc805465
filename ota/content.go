package ota

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/pawl-ota/pawl/ota/release"
)

// content is where the bytes of one release come from: what is on the device
// first, then the source. content_local.go has the former, content_plan.go says
// how the rest is brought, content_pieces.go and content_delta.go do it by way
// of intake.go and spool.go.
type content struct {
	u       *Updater
	source  Source           // nil: no network may be used
	locator *release.Locator // nil without a source
	table   *release.Table   // read when it is needed
	spool   *spool           // nil: nothing of what comes is kept
	// part is the component that is being staged; its name is empty outside of
	// that.
	part    release.Component
	backend Backend
	delta   *delta // of part, nil when there is none
	sought  string // for which part delta was looked for
	// keeps reports whether what is fetched goes to the local copy too.
	keeps bool
	// atOnce is whether the calls of put may overlap.
	atOnce bool
	// held are blobs to be held in memory once they came, nil before: where
	// nothing is kept.
	held map[release.Digest][]byte
	// again is set where an earlier Stage of the transaction may have been cut
	// short.
	again bool
	// relocate asks the source anew where the content is; nil where that cannot
	// be done, or was.
	relocate func(context.Context) (*release.Locator, error)
	gone     map[string]error        // files that the source does not have
	avoid    map[release.Digest]bool // blobs whose patch gave something else
	indexes  map[release.Digest]bool // blobs that are indexes
	twice    []span                  // that came, and are to come again
	passed   map[release.Digest]int  // places that come before one with the right bytes
	tried    map[release.Digest]int  // how often a blob came wrong
	lent     map[release.PieceSum]lent
	cut      map[release.Digest]bool // blobs whose pieces are in lent
	decoder  decoder

	// progress is told how many stored bytes were fetched, of how many.
	progress func(done, total int64)

	total, brought, told int64 // stored bytes: of what Each was asked for so far
}

var _ Content = (*content)(nil)

func newContent(u *Updater) *content {
	return &content{
		u: u, gone: map[string]error{}, avoid: map[release.Digest]bool{}, passed: map[release.Digest]int{}, tried: map[release.Digest]int{},
		lent: map[release.PieceSum]lent{}, cut: map[release.Digest]bool{},
	}
}

// stages says which component is being staged, from whose earlier releases
// there may be deltas.
func (c *content) stages(part release.Component, b Backend) {
	c.part, c.backend = part, b
}

// Open implements Content. It uses no delta: those are for many blobs.
func (c *content) Open(ctx context.Context, b release.Blob) (io.ReadCloser, error) {
	for place := range c.local(ctx, b) {
		if r, ok := place(); ok && c.whole(r, b) {
			if r, ok := place(); ok {
				return closing{newVerified(r, b), r}, nil
			}
		}
	}
	if _, hold := c.held[b.Digest]; hold {
		return c.openHeld(ctx, b)
	}
	if b.Size == 0 {
		return io.NopCloser(newVerified(bytes.NewReader(nil), b)), nil
	}
	for {
		r, err := c.openRemote(ctx, b)
		if err == nil || c.missed(ctx, err) != nil {
			return r, err
		}
	}
}

// openHeld opens a blob that is held in memory.
func (c *content) openHeld(ctx context.Context, b release.Blob) (io.ReadCloser, error) {
	if c.held[b.Digest] == nil && b.Size <= maxDocument {
		err := c.Each(ctx, []release.Blob{b}, func(_ release.Blob, r io.Reader) (err error) {
			c.held[b.Digest], err = io.ReadAll(r)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return io.NopCloser(newVerified(bytes.NewReader(c.held[b.Digest]), b)), nil
}

// openRemote opens b in the repository. The first bytes have come when it
// returns.
func (c *content) openRemote(ctx context.Context, b release.Blob) (io.ReadCloser, error) {
	p, err := c.plan(ctx, []release.Blob{b}, false)
	if err != nil {
		return nil, err
	}
	in := c.intake(p)
	r, err := c.open(ctx, in, &p.items[0])
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	head := make([]byte, min(b.Size, 512))
	n, err := io.ReadFull(r, head)
	if _, lost := errors.AsType[*fetchError](err); lost {
		return nil, errors.Join(err, r.Close(), in.Close())
	}
	rest := io.Reader(r)
	if err != nil {
		rest = failed{err}
	}
	return closing{newVerified(io.MultiReader(bytes.NewReader(head[:n]), rest), b), closers{r, in}}, nil
}

// failed is a reader with nothing but an error.
type failed struct{ err error }

func (f failed) Read([]byte) (int, error) { return 0, f.err }

// closing is a reader with the Close of what is below it.
type closing struct {
	io.Reader
	io.Closer
}

type closers []io.Closer

func (cs closers) Close() error {
	var err error
	for _, c := range cs {
		err = errors.Join(err, c.Close())
	}
	return err
}

// Each implements Content: first what is on the device, then the rest in the
// order in which it lies in the packs. What turns out wrong or missing on the
// way is planned anew without it, until there is no other way.
func (c *content) Each(ctx context.Context, blobs []release.Blob, put func(release.Blob, io.Reader) error) error {
	return c.each(ctx, blobs, put, nil)
}

// each is Each with further places to be fetched into the spool.
func (c *content) each(ctx context.Context, blobs []release.Blob, put func(release.Blob, io.Reader) error, also []release.Place) error {
	missing, err := c.putLocals(ctx, blobs, put)
	for err == nil && len(missing) > 0 {
		missing, err = c.round(ctx, missing, put, also)
		if err != nil {
			err = c.missed(ctx, err)
		}
	}
	return err
}

// round plans how to bring what is missing, does it, and returns what is missing
// still.
func (c *content) round(ctx context.Context, missing []release.Blob, put func(release.Blob, io.Reader) error, also []release.Place) ([]release.Blob, error) {
	p, err := c.plan(ctx, missing, true)
	if err != nil {
		return missing, err
	}
	if c.spool != nil && !c.spool.full {
		p.also(also)
	}
	return c.carryOut(ctx, p, missing, put)
}

// carryOut brings what p says, and returns what it could not bring, to be
// planned anew.
func (c *content) carryOut(ctx context.Context, p *contentPlan, missing []release.Blob, put func(release.Blob, io.Reader) error) ([]release.Blob, error) {
	in := c.intake(p)
	c.brought, c.told, c.total = 0, 0, 0
	for _, s := range p.spans {
		n, _ := in.missing(s)
		c.total += n
	}
	done := make(map[release.Digest]bool, len(missing))
	var mu sync.Mutex
	mark := func(b release.Blob, r io.Reader) error {
		err := put(b, r)
		mu.Lock()
		defer mu.Unlock()
		done[b.Digest] = err == nil
		return err
	}
	err := c.bringAll(ctx, in, p, mark)
	if err == nil {
		err = in.fill(ctx, p.more)
	}
	var left []release.Blob
	for _, b := range missing {
		if !done[b.Digest] {
			left = append(left, b)
		}
	}
	return left, errors.Join(err, in.Close())
}

func (c *content) bringAll(ctx context.Context, in *intake, p *contentPlan, put func(release.Blob, io.Reader) error) error {
	for items := p.items; len(items) > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := c.bringGroups(ctx, in, items, put)
		if n == 0 {
			bring := c.bringBlob
			if items[0].form == byGroup {
				bring = c.bringGroup
			}
			n, err = 1, bring(ctx, in, &items[0], put)
		}
		if err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}

// intake returns the way to the stored bytes that p wants.
func (c *content) intake(p *contentPlan) *intake {
	sortPurposes(p.purposes)
	return c.intakeOf(p.spans, p.purposes)
}

func (c *content) intakeOf(spans []span, purposes []purpose) *intake {
	return &intake{
		source: c.source, spool: c.spool, spans: spans,
		count:  func(s span) { c.came(s, purposes) },
		forgot: func(s span) { c.twice = append(c.twice, s) },
	}
}

// missed sees to a file that the source does not have: it asks where the
// content is now, or else goes on without the file. Any other error comes
// back.
func (c *content) missed(ctx context.Context, err error) error {
	lost, ok := errors.AsType[*fetchError](err)
	if !ok || !errors.Is(err, fs.ErrNotExist) || c.gone[lost.file] != nil {
		return err
	}
	if again := c.relocate; again != nil {
		c.relocate = nil
		if l, err := again(ctx); err == nil && l != nil {
			c.locator, c.table, c.delta, c.sought = l, nil, nil, ""
			return nil
		}
	}
	c.gone[lost.file] = err
	if c.delta != nil && c.delta.pack == lost.file {
		c.delta = nil
	}
	return nil
}

// readTable fetches the table of the locator, or takes it from the local copy.
func (c *content) readTable(ctx context.Context) error {
	if c.table != nil {
		return nil
	}
	want := c.locator.Table
	stored, err := c.u.store().get(want.Digest, want.Size)
	if err != nil {
		if stored, err = c.fetchWhole(ctx, release.TableName(want.Digest), 0, want, forTable); err != nil {
			return fmt.Errorf("cannot read the table of %s: %w", c.locator.Release.Short(), err)
		}
		if c.held == nil { // else nothing is to be kept
			if err := c.u.keepFrom(want, bytes.NewReader(stored)); err != nil {
				return err
			}
		}
	}
	c.table, err = release.ParseTable(stored, c.locator)
	return err
}

// fetchWhole reads stored bytes that are a blob of their own. Wrong ones that
// were kept are fetched again, once.
func (c *content) fetchWhole(ctx context.Context, file string, offset int64, want release.Blob, why func(*Fetched) *int64) ([]byte, error) {
	s := span{file, offset, offset + want.Size}
	in := c.intakeOf([]span{s}, []purpose{{s, why}})
	var data []byte
	var err error
	for range 2 {
		r := in.read(ctx, file, offset, want.Size)
		data, err = io.ReadAll(newVerified(r, want))
		_ = r.Close()
		if err == nil || isFetch(err) || ctx.Err() != nil {
			break
		}
		in.forget(r.all)
	}
	return data, errors.Join(err, in.Close())
}

// isFetch reports whether bytes did not come, rather than were wrong.
func isFetch(err error) bool {
	_, lost := errors.AsType[*fetchError](err)
	return lost || errors.Is(err, errSpoolSync)
}

// came counts what is read from the source, and tells progress of it, some
// hundred times in all.
func (c *content) came(s span, purposes []purpose) {
	n := s.end - s.offset
	c.u.causes.charge(s, purposes, c.twice)
	c.u.fetched += n
	c.brought += n
	if c.progress == nil || c.total == 0 || c.brought-c.told < c.total/256 && c.brought < c.total {
		return
	}
	c.told = c.brought
	c.progress(min(c.brought, c.total), c.total)
}
