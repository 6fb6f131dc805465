package publish

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/pawl-ota/pawl/ota/release"
)

// Fetch is what a device fetches to get to a release, metadata and documents
// apart.
type Fetch struct {
	To   release.ID `json:"to"`
	From uint64     `json:"from"` // the release that the device runs; 0 for one with nothing
	// Bytes are those of all that follows: of indexes or patches of them, of the
	// table where one is needed, of deltas, and of pieces.
	Bytes   int64 `json:"bytes"`
	Indexes int64 `json:"indexes"`
	Table   int64 `json:"table"`
	Deltas  int64 `json:"deltas"`
	Pieces  int64 `json:"pieces"`
	Packs   int   `json:"packs"` // that hold some of it
}

// Fetches returns what each device fetches to get to the newest release of each
// variant, or to every release where all is set: one with nothing, and those that
// run an earlier release, exactly and as a whole.
func (r *Repository) Fetches(ctx context.Context, all bool) ([]Fetch, error) {
	t, err := r.disk.load(nil, time.Time{})
	if err != nil {
		return nil, fmt.Errorf("cannot tell what devices fetch: %w", err)
	}
	list, err := r.disk.listed(t)
	if err != nil {
		return nil, fmt.Errorf("cannot tell what devices fetch: %w", err)
	}
	var out []Fetch
	var states []*state // of the variant until now
	for i, l := range list {
		if i > 0 && list[i-1].Variant != l.Variant {
			states = nil
		}
		s, err := r.disk.state(l)
		if err == nil && (all || i+1 == len(list) || list[i+1].Variant != l.Variant) {
			for _, from := range append([]*state{{}}, states...) {
				var f Fetch
				if f, err = r.disk.fetch(s, from); err != nil {
					break
				}
				out = append(out, f)
			}
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, fmt.Errorf("cannot tell what devices fetch: %s seq %d: %w", l.Variant, l.Seq, err)
		}
		states = append(states, s.installed())
	}
	return out, nil
}

// state is what a device has that runs a release, by the first bytes of digests.
type state struct {
	*listed
	table   *release.Table
	parts   []*predecessor // by component
	indexes map[release.Digest]int
	blobs   map[release.Digest]bool
	pieces  map[release.PieceSum]bool
}

func (d *disk) state(l *listed) (*state, error) {
	s := &state{listed: l, indexes: map[release.Digest]int{}, blobs: map[release.Digest]bool{}, pieces: map[release.PieceSum]bool{}}
	var err error
	if s.table, err = d.table(l.locator); err != nil {
		return nil, err
	}
	add := func(b release.Blob) {
		s.blobs[b.Digest] = true
		pieces, _ := s.table.Pieces(b)
		for _, p := range pieces {
			s.pieces[p.Sum] = true
		}
	}
	for _, b := range l.release.ScriptBlobs() {
		add(b)
	}
	for _, c := range l.release.Components {
		p := &predecessor{seq: l.Seq, kind: c.Kind, index: c.Index, table: s.table}
		if err := p.read(d); err != nil {
			return nil, fmt.Errorf("component %q: %w", c.Name, err)
		}
		s.parts = append(s.parts, p)
		s.indexes[c.Index.Digest] = len(p.blobs)
		for _, b := range p.blobs {
			add(b)
		}
	}
	return s, nil
}

// installed drops what is not needed of a state that a device comes from.
func (s *state) installed() *state {
	return &state{listed: s.listed, indexes: s.indexes, blobs: s.blobs, pieces: s.pieces}
}

// fetching adds up what is fetched.
type fetching struct {
	Fetch
	to, from *state
	packs    map[string]bool
	seen     map[release.PieceSum]bool
}

func (d *disk) fetch(to, from *state) (Fetch, error) {
	f := &fetching{Fetch: Fetch{To: to.id()}, to: to, from: from, packs: map[string]bool{}, seen: map[release.PieceSum]bool{}}
	if from.listed != nil {
		f.From = from.Seq
	}
	f.take(to.release.ScriptBlobs(), nil)
	for i, c := range to.release.Components {
		f.index(c.Index)
		if err := f.component(d, c, to.parts[i].listing.blobs); err != nil {
			return Fetch{}, err
		}
	}
	if f.Pieces > 0 || f.Table > 0 {
		f.Table = to.locator.Table.Size
	}
	f.Bytes = f.Indexes + f.Table + f.Deltas + f.Pieces
	f.Fetch.Packs = len(f.packs)
	return f.Fetch, nil
}

// index adds an index, or a patch of it.
func (f *fetching) index(b release.Blob) {
	if _, ok := f.from.indexes[b.Digest]; ok {
		return
	}
	patch, ok := f.to.locator.Patch(b.Digest, func(d release.Digest) bool { _, ok := f.from.indexes[d]; return ok })
	if ok {
		f.packs[f.to.locator.Packs[patch.Pack].Name] = true
		f.Indexes += patch.Length
		return
	}
	at, _ := f.to.table.Find(b)
	f.packs[at.Pack] = true
	f.Indexes += at.Length
	f.Table = 1 // one is needed
}

// component adds the content of one, by a delta where there is one and that is
// less.
func (f *fetching) component(d *disk, c release.Component, news []release.Blob) error {
	plain := f.fork()
	plain.take(news, nil)
	for from, n := range f.from.indexes {
		x, ok := f.to.locator.Delta(c.Name, c.Index.Digest, from)
		if !ok {
			continue
		}
		made, err := d.made(x, f.to.locator, n, news)
		if err != nil {
			return err
		}
		by := f.fork()
		by.packs[f.to.locator.Packs[x.Pack].Name] = true
		by.Deltas += x.Length + x.Groups
		by.take(news, made)
		if by.cost() < plain.cost() {
			plain = by
		}
	}
	*f = *plain
	return nil
}

func (f *fetching) fork() *fetching {
	other := *f
	other.packs, other.seen = map[string]bool{}, map[release.PieceSum]bool{}
	for k := range f.packs {
		other.packs[k] = true
	}
	for k := range f.seen {
		other.seen[k] = true
	}
	return &other
}

// cost is what a device would compare.
func (f *fetching) cost() int64 {
	if f.Pieces > 0 {
		return f.Deltas + f.Pieces + f.to.locator.Table.Size
	}
	return f.Deltas
}

// take adds the pieces of blobs that are neither there nor made by a delta.
func (f *fetching) take(blobs []release.Blob, made map[release.Digest]bool) {
	for _, b := range blobs {
		if f.from.blobs[b.Digest] || made[b.Digest] || b.Size == 0 {
			continue
		}
		pieces, _ := f.to.table.Pieces(b)
		for _, p := range pieces {
			if !f.from.pieces[p.Sum] && !f.seen[p.Sum] {
				f.seen[p.Sum] = true
				f.packs[p.Pack] = true
				f.Pieces += p.Length
			}
		}
	}
}

// made returns the blobs that a delta makes.
func (d *disk) made(x release.Delta, l *release.Locator, from int, news []release.Blob) (map[release.Digest]bool, error) {
	f, err := os.Open(d.path(l.Packs[x.Pack].Name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	stored, err := io.ReadAll(io.NewSectionReader(f, x.Offset, x.Length))
	if err != nil {
		return nil, err
	}
	dir, err := release.ParseDelta(stored, x, from, len(news))
	if err != nil {
		return nil, err
	}
	made := map[release.Digest]bool{}
	for _, g := range dir.Groups {
		for _, p := range g.Patches {
			made[news[p.To].Digest] = true
		}
	}
	return made, nil
}
