package ota

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	patches "github.com/pawl-ota/pawl/internal/delta"
	"github.com/pawl-ota/pawl/ota/release"
)

// delta is a stored way from a component that was installed here to the one
// that is being staged.
type delta struct {
	release.Delta
	pack       string
	dir        *release.DeltaDirectory
	news, olds []release.Blob
	at         map[release.Digest]patchAt // by what it makes
	broken     map[int]int                // how often a group came wrong
}

// patchAt is one patch.
type patchAt struct {
	group, old int // old is -1 for a patch of nothing
}

func (d *delta) find(b release.Blob) (patchAt, bool) {
	at, ok := d.at[b.Digest]
	return at, ok && d.broken[at.group] < maxWrong
}

func (d *delta) place(group int) release.Place {
	g := d.dir.Groups[group]
	return release.Place{Pack: d.pack, Offset: d.Start + g.Offset, Length: g.Length}
}

// deltaTo returns the delta to a component from what is on the device: the
// running one, or else a kept one.
func (c *content) deltaTo(part release.Component) (release.Delta, release.Component, bool) {
	if c.locator == nil || len(c.locator.Deltas) == 0 {
		return release.Delta{}, release.Component{}, false
	}
	for _, r := range c.u.rec.releases() {
		for _, p := range r.Parts {
			if p.Name != part.Name {
				continue
			}
			old, err := c.u.installedComponent(p)
			if err != nil {
				continue
			}
			if d, ok := c.locator.Delta(part.Name, part.Index.Digest, old.Index.Digest); ok {
				return d, old, true
			}
		}
	}
	return release.Delta{}, release.Component{}, false
}

// findDelta returns the delta to the component that is being staged, or nil.
// One that cannot be used is no error, unless its bytes did not come.
func (c *content) findDelta(ctx context.Context) (*delta, error) {
	if c.sought == c.part.Name {
		return c.delta, nil
	}
	c.delta = nil
	if _, lists := c.backend.(Lister); lists {
		d, err := c.readDelta(ctx)
		if err != nil && (isFetch(err) || ctx.Err() != nil) {
			return nil, err
		}
		c.delta = d
	}
	c.sought = c.part.Name
	return c.delta, nil
}

func (c *content) readDelta(ctx context.Context) (*delta, error) {
	stored, old, ok := c.deltaTo(c.part)
	if !ok || c.gone[c.locator.Packs[stored.Pack].Name] != nil {
		return nil, nil
	}
	d := &delta{Delta: stored, pack: c.locator.Packs[stored.Pack].Name, at: map[release.Digest]patchAt{}, broken: map[int]int{}}
	var err error
	if d.news, err = c.u.blobsOf(ctx, c, c.backend, c.part); err != nil {
		return nil, err
	}
	if d.olds, err = c.u.blobsOf(ctx, c.u.local(), c.backend, old); err != nil {
		return nil, err
	}
	data, err := c.fetchWhole(ctx, d.pack, d.Offset, release.Blob{Digest: d.Directory, Size: d.Length}, forPatches)
	if err != nil {
		return nil, err
	}
	if d.dir, err = release.ParseDelta(data, stored, len(d.olds), len(d.news)); err != nil {
		return nil, err
	}
	for i, g := range d.dir.Groups {
		for _, p := range g.Patches {
			d.at[d.news[p.To].Digest] = patchAt{i, p.From}
		}
	}
	return d, nil
}

// hasInput reports whether what a patch starts from seems to be here.
func (c *content) hasInput(ctx context.Context, d *delta, at patchAt) bool {
	if at.old < 0 {
		return true
	}
	in, ok := c.input(ctx, d.olds[at.old])
	if ok {
		_ = in.Close()
	}
	return ok
}

// bringGroup hands put what is wanted of a group of patches. What comes wrong is
// left for another way.
func (c *content) bringGroup(ctx context.Context, in *intake, it *item, put func(release.Blob, io.Reader) error) error {
	d, at := c.delta, it.first
	stored := in.read(ctx, at.Pack, at.Offset, at.Length)
	defer func() { _ = stored.Close() }()
	r, err := patches.NewReader(stored)
	if err == nil {
		g := groupReader{c: c, ctx: ctx, d: d, r: r, put: put, wanted: it.wanted}
		err = errors.Join(g.all(d.dir.Groups[it.group].Patches), r.Close())
	}
	switch {
	case err == nil || errors.Is(err, errAgain):
		return nil
	case stored.err != nil: // what kept the bytes from coming
		return stored.err
	case ctx.Err() != nil:
		return ctx.Err()
	case !isDamage(err):
		return err
	}
	d.broken[it.group]++
	in.forget(stored.all)
	return nil
}

var (
	// errGroup is the end of a group that makes something other than it should.
	errGroup = errors.New("a patch made something else of the right blob")
	// errAgain is the end of a group that cannot be read on after an input that
	// was damaged: what is left of it is read from the start again.
	errAgain = errors.New("a patch could not be read to its end")
)

// isDamage reports whether the stored bytes of a group are to blame.
func isDamage(err error) bool {
	return errors.Is(err, patches.ErrDamaged) || errors.Is(err, errGroup)
}

// groupReader goes through the patches of one group.
type groupReader struct {
	c      *content
	ctx    context.Context
	d      *delta
	r      *patches.Reader
	put    func(release.Blob, io.Reader) error
	wanted []release.Digest // sorted
}

func (g *groupReader) all(list []release.DeltaPatch) error {
	left := len(g.wanted)
	for _, p := range list {
		if left == 0 {
			return nil
		}
		if err := g.ctx.Err(); err != nil {
			return err
		}
		b := g.d.news[p.To]
		if _, ok := slices.BinarySearchFunc(g.wanted, b.Digest, compareDigests); !ok {
			if err := g.r.Skip(b.Size); err != nil {
				return damaged(err)
			}
			continue
		}
		left--
		if err := g.one(b, p.From); err != nil {
			return err
		}
	}
	return nil
}

// one hands on the blob of the next patch. Where the old one is missing or damaged
// another way is left to be found.
func (g *groupReader) one(b release.Blob, from int) error {
	var old input
	var size int64
	if from >= 0 {
		var ok bool
		if old, ok = g.c.input(g.ctx, g.d.olds[from]); !ok {
			g.c.avoid[b.Digest] = true
			return damaged(g.r.Skip(b.Size))
		}
		defer func() { _ = old.Close() }()
		size = g.d.olds[from].Size
	}
	r, err := g.r.Next(old.ReaderAt, size, b.Size)
	if errors.Is(err, patches.ErrOld) {
		return g.doubt(b, from)
	}
	if err != nil {
		return damaged(err)
	}
	err = g.c.hand(b, newVerified(r, b), g.put)
	if _, wrong := errors.AsType[*contentError](err); !wrong {
		return err
	}
	if doubt := g.doubt(b, from); doubt != nil || errors.Is(err, ErrDigest) {
		return doubt // a blob of the right length: the next patch follows
	}
	return errAgain
}

// doubt finds out whether the old blob is to blame for a wrong new one, or the
// group. Where another place has the old one as it should be, the patch is tried
// again from there; where none has, another way is left to be found.
func (g *groupReader) doubt(b release.Blob, from int) error {
	if from < 0 {
		return errGroup
	}
	old := g.d.olds[from]
	n, ok := g.c.firstWhole(g.ctx, old)
	switch {
	case !ok:
		g.c.avoid[b.Digest] = true
	case n > g.c.passed[old.Digest]:
		g.c.passed[old.Digest] = n
	default:
		return errGroup
	}
	return nil
}

// damaged makes an end that came too early one of a damaged group.
func damaged(err error) error {
	if err == nil || errors.Is(err, patches.ErrDamaged) {
		return err
	}
	return fmt.Errorf("%w: %w", patches.ErrDamaged, err)
}

// deltaPlaces returns what of the delta to a component is worth to come with its
// index: the directory, and the groups where they are short and lie beside it.
func (c *content) deltaPlaces(part release.Component) []release.Place {
	d, _, ok := c.deltaTo(part)
	if !ok {
		return nil
	}
	pack := c.locator.Packs[d.Pack].Name
	places := []release.Place{{Pack: pack, Offset: d.Offset, Length: d.Length}}
	gap := d.Start - (d.Offset + d.Length)
	if gap >= 0 && gap <= mergeGap && d.Groups <= mergeGap {
		places = append(places, release.Place{Pack: pack, Offset: d.Start, Length: d.Groups})
	}
	return places
}
