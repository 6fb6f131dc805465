package ota

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"

	"github.com/pawl-ota/pawl/internal/codec"
	"github.com/pawl-ota/pawl/ota/release"
)

// mergeGap is how many bytes between two wanted pieces of a pack are fetched
// rather than asked around: about what a round trip costs on a slow link.
const mergeGap = 32 << 10

// content is where the bytes of one release come from: the local copy, what
// is installed, and last the source.
type content struct {
	u       *Updater
	source  Source           // nil: no network may be used
	locator *release.Locator // nil without a source
	table   *release.Table   // read when the first blob is fetched
	// keeps reports whether what is fetched goes to the local copy too.
	keeps bool
	// again is set where an earlier Stage of the transaction may have been cut
	// short.
	again bool
	// progress is told how many stored bytes were fetched, of how many.
	progress func(done, total int64)

	total, brought, told int64 // stored bytes: of what Each was asked for so far
}

var _ Content = (*content)(nil)

// Open implements Content.
func (c *content) Open(ctx context.Context, b release.Blob) (io.ReadCloser, error) {
	for place := range c.local(ctx, b) {
		if r, ok := place(); ok && c.whole(r, b) {
			if r, ok := place(); ok {
				return closing{newVerified(r, b), r}, nil
			}
		}
	}
	return c.openRemote(ctx, b)
}

// whole reads r to its end and reports whether it is b.
func (c *content) whole(r io.ReadCloser, b release.Blob) bool {
	v := newVerified(r, b)
	_, err := io.Copy(io.Discard, v)
	return errors.Join(err, r.Close()) == nil
}

// closing is a reader with the Close of what is below it.
type closing struct {
	io.Reader
	io.Closer
}

// local yields the places on the device that may hold b, each as a func that
// opens it.
func (c *content) local(ctx context.Context, b release.Blob) iter.Seq[func() (io.ReadCloser, bool)] {
	return func(yield func(func() (io.ReadCloser, bool)) bool) {
		if !yield(func() (io.ReadCloser, bool) {
			r, ok, err := c.u.store().open(b)
			return r, ok && err == nil
		}) {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(c.u.opts.Backends)) {
			seeder, ok := c.u.opts.Backends[name].(Seeder)
			if !ok {
				continue
			}
			if !yield(func() (io.ReadCloser, bool) {
				r, ok, err := seeder.Seed(ctx, name, b)
				return r, ok && err == nil
			}) {
				return
			}
		}
	}
}

// isLocal reports whether some place on the device seems to hold b.
func (c *content) isLocal(ctx context.Context, b release.Blob) bool {
	for place := range c.local(ctx, b) {
		if r, ok := place(); ok {
			return r.Close() == nil
		}
	}
	return false
}

// openRemote opens b in the repository, as a patch to what is here where there
// is one.
func (c *content) openRemote(ctx context.Context, b release.Blob) (io.ReadCloser, error) {
	if b.Size == 0 {
		return io.NopCloser(newVerified(bytes.NewReader(nil), b)), nil
	}
	place, from, err := c.find(ctx, b)
	if err != nil {
		return nil, err
	}
	return c.openPlace(ctx, b, place, from)
}

func (c *content) openPlace(ctx context.Context, b release.Blob, place release.Place, from []byte) (io.ReadCloser, error) {
	raw, err := c.source.Open(ctx, place.Pack, place.Offset, place.Length)
	if err != nil {
		return nil, fmt.Errorf("cannot fetch %s: %w", b.Digest.Short(), err)
	}
	decoded, err := codec.NewReader(place.Codec, c.counted(raw), from)
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return closing{newVerified(decoded, b), closers{decoded, raw}}, nil
}

type closers []io.Closer

func (cs closers) Close() error {
	var err error
	for _, c := range cs {
		err = errors.Join(err, c.Close())
	}
	return err
}

// find returns the cheapest stored form of b and, for a patch, the blob that
// it starts from.
func (c *content) find(ctx context.Context, b release.Blob) (release.Place, []byte, error) {
	if c.source == nil || c.locator == nil {
		return release.Place{}, nil, fmt.Errorf("%s: %w", b.Digest.Short(), ErrNotLocal)
	}
	var from []byte
	patch, ok := c.locator.Patch(b.Digest, func(d release.Digest) bool {
		data, err := c.u.store().get(d, maxDocument)
		if err == nil {
			from = data
		}
		return err == nil
	})
	if ok && release.Sum(from) != patch.From {
		var err error
		if from, err = c.u.store().get(patch.From, maxDocument); err != nil {
			ok = false
		}
	}
	if ok {
		return c.locator.Place(patch), from, nil
	}
	if err := c.readTable(ctx); err != nil {
		return release.Place{}, nil, err
	}
	place, ok := c.table.Find(b)
	if !ok {
		return release.Place{}, nil, fmt.Errorf("%s: %w: the locator does not name it", b.Digest.Short(), ErrNotLocal)
	}
	return place, nil, nil
}

// readTable fetches the table of the locator, or takes it from the local copy.
func (c *content) readTable(ctx context.Context) error {
	if c.table != nil {
		return nil
	}
	want := c.locator.Table
	stored, err := c.u.store().get(want.Digest, want.Size)
	if err != nil {
		if stored, err = c.fetchTable(ctx, want); err != nil {
			return fmt.Errorf("cannot read the table of %s: %w", c.locator.Release.Short(), err)
		}
		if err := c.u.keepData(stored); err != nil {
			return err
		}
	}
	c.table, err = release.ParseTable(stored, c.locator)
	return err
}

func (c *content) fetchTable(ctx context.Context, want release.Blob) ([]byte, error) {
	r, err := c.source.Open(ctx, release.TableName(want.Digest), 0, want.Size)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(newVerified(c.counted(r), want))
	return data, errors.Join(err, r.Close())
}

// counted adds what is read from the source to the transaction's bytes.
func (c *content) counted(r io.Reader) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		c.u.fetched += int64(n)
		c.came(int64(n))
		return n, err
	})
}

// came tells progress of n bytes more, some hundred times in all.
func (c *content) came(n int64) {
	c.brought += n
	if c.progress == nil || c.total == 0 || c.brought-c.told < c.total/256 && c.brought < c.total {
		return
	}
	c.told = c.brought
	c.progress(min(c.brought, c.total), c.total)
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// Each implements Content: first what is on the device, then the rest in the
// order in which it lies in the packs.
func (c *content) Each(ctx context.Context, blobs []release.Blob, put func(release.Blob, io.Reader) error) error {
	var missing []piece
	seen := make(map[release.Digest]bool, len(blobs))
	for _, b := range blobs {
		if seen[b.Digest] {
			continue
		}
		seen[b.Digest] = true
		found, err := c.putLocal(ctx, b, put)
		if err != nil {
			return err
		}
		if found {
			continue
		}
		if b.Size == 0 { // nothing to ask for
			v := newVerified(bytes.NewReader(nil), b)
			if err := c.handed(b, v, put(b, v)); err != nil {
				return err
			}
			continue
		}
		place, from, err := c.find(ctx, b)
		if err != nil {
			return err
		}
		missing = append(missing, piece{b, place, from})
	}
	runs := merge(missing)
	c.brought, c.told, c.total = 0, 0, 0
	for _, run := range runs {
		c.total += span(run)
	}
	for _, run := range runs {
		if err := c.putRun(ctx, run, put); err != nil {
			return err
		}
	}
	return nil
}

// putLocal hands put the blob from the first place on the device that has it.
func (c *content) putLocal(ctx context.Context, b release.Blob, put func(release.Blob, io.Reader) error) (bool, error) {
	for place := range c.local(ctx, b) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		r, ok := place()
		if !ok {
			continue
		}
		v := newVerified(r, b)
		err := put(b, v)
		_ = r.Close()
		if v.bad() {
			continue
		}
		if err == nil && !v.ok() {
			err = fmt.Errorf("%s was not read to its end", b.Digest.Short())
		}
		return true, err
	}
	return false, nil
}

// piece is one wanted blob and where its stored form lies.
type piece struct {
	blob  release.Blob
	place release.Place
	from  []byte
}

func (p piece) end() int64 { return p.place.Offset + p.place.Length }

// merge sorts the pieces into runs that are fetched with one request each.
func merge(pieces []piece) [][]piece {
	slices.SortFunc(pieces, func(a, b piece) int {
		return cmp.Or(cmp.Compare(a.place.Pack, b.place.Pack), cmp.Compare(a.place.Offset, b.place.Offset))
	})
	var runs [][]piece
	for i, p := range pieces {
		if i > 0 {
			last := runs[len(runs)-1]
			prev := last[len(last)-1]
			gap := p.place.Offset - prev.end()
			if p.place.Pack == prev.place.Pack && gap >= 0 && gap <= mergeGap {
				runs[len(runs)-1] = append(last, p)
				continue
			}
		}
		runs = append(runs, []piece{p})
	}
	return runs
}

// span is how many bytes are fetched for a run.
func span(run []piece) int64 { return run[len(run)-1].end() - run[0].place.Offset }

// putRun fetches one run and hands its blobs to put as they come.
func (c *content) putRun(ctx context.Context, run []piece, put func(release.Blob, io.Reader) error) error {
	start := run[0].place.Offset
	raw, err := c.source.Open(ctx, run[0].place.Pack, start, span(run))
	if err != nil {
		return fmt.Errorf("cannot fetch %s: %w", run[0].place.Pack, err)
	}
	err = c.putPieces(ctx, c.counted(raw), start, run, put)
	return errors.Join(err, raw.Close())
}

func (c *content) putPieces(ctx context.Context, raw io.Reader, at int64, run []piece, put func(release.Blob, io.Reader) error) error {
	for _, p := range run {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, raw, p.place.Offset-at); err != nil {
			return fmt.Errorf("cannot fetch %s: %w", p.place.Pack, noEOF(err))
		}
		stored := &io.LimitedReader{R: raw, N: p.place.Length}
		if err := c.putPiece(p, stored, put); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, stored); err != nil {
			return fmt.Errorf("cannot fetch %s: %w", p.place.Pack, noEOF(err))
		}
		at = p.end()
	}
	return nil
}

// putPiece decodes and verifies one blob on its way to put, and to the local
// copy where that keeps it.
func (c *content) putPiece(p piece, stored io.Reader, put func(release.Blob, io.Reader) error) error {
	decoded, err := codec.NewReader(p.place.Codec, stored, p.from)
	if err != nil {
		return err
	}
	defer func() { _ = decoded.Close() }()
	v := newVerified(decoded, p.blob)
	if !c.keeps {
		return c.handed(p.blob, v, put(p.blob, v))
	}
	f, err := c.u.dir.Create(c.u.store().name(p.blob.Digest))
	if err != nil {
		return fmt.Errorf("cannot keep %s: %w", p.blob.Digest.Short(), err)
	}
	err = c.handed(p.blob, v, put(p.blob, io.TeeReader(v, f)))
	if err != nil {
		return errors.Join(err, f.Abort())
	}
	return c.u.place(f, p.blob)
}

// handed checks what put did with the reader that it was given.
func (c *content) handed(b release.Blob, v *verified, err error) error {
	switch {
	case v.bad():
		return fmt.Errorf("cannot fetch: %w", v.err)
	case err != nil:
		return err
	case !v.ok():
		return fmt.Errorf("%s was not read to its end", b.Digest.Short())
	}
	return nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
