package publish

import (
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/pawl-ota/pawl/ota/release"
)

// packUse is a pack, and what of it is needed.
type packUse struct {
	release.Pack
	digest release.Digest
	pieces []shelved // in their order
	at     map[int64]int
	used   int64 // bytes
	list   int64 // bytes of its list
	pinned bool  // a release that uses it cannot be signed here
	moved  map[stretch]int64
}

// stretch is a part of a pack that is no piece.
type stretch struct{ offset, length int64 }

// dead reports whether a pack is to be rewritten: more than a third of it is
// needed by nobody. So all packs together are at most half as long again as what
// is needed.
func (u *packUse) dead() bool { return !u.pinned && 3*(u.Size-u.list-u.used) > u.Size }

// survey finds out what each pack is needed for. A piece that lies in several
// packs is taken from the one that the newest release takes it from.
func (p *pruning) survey() error {
	p.packs, p.lies = map[string]*packUse{}, map[release.Digest]spot{}
	for _, l := range p.list {
		for _, pack := range l.locator.Packs {
			if err := p.open(pack); err != nil {
				return err
			}
			if !p.signs(l.role) {
				p.packs[pack.Name].pinned = true
			}
		}
		if err := p.count(l); err != nil {
			return fmt.Errorf("%s seq %d: %w", l.Variant, l.Seq, err)
		}
	}
	return nil
}

// open reads the list of a pack, once.
func (p *pruning) open(pack release.Pack) error {
	if p.packs[pack.Name] != nil {
		return nil
	}
	u := &packUse{Pack: pack, at: map[int64]int{}, moved: map[stretch]int64{}}
	var err error
	if u.digest, err = pack.Digest(); err != nil {
		return err
	}
	err = p.r.disk.readPack(pack, func(d release.Digest, s spot) {
		u.at[s.offset] = len(u.pieces)
		u.pieces = append(u.pieces, shelved{release.Blob{Digest: d, Size: s.size}, s})
	})
	if err != nil {
		return err
	}
	list, err := p.r.disk.readPackList(pack)
	u.list = int64(len(list)) + packTail
	p.packs[pack.Name] = u
	p.order = append(p.order, u)
	return err
}

// count counts what a release needs.
func (p *pruning) count(l *listed) error {
	table, err := p.r.disk.table(l.locator)
	if err != nil {
		return err
	}
	whole, cut := table.Contents()
	for _, c := range cut {
		whole = append(whole, c.Pieces...)
	}
	for _, row := range whole {
		it, err := p.piece(l.locator, row)
		if err != nil {
			return err
		}
		if _, ok := p.lies[it.Digest]; !ok {
			p.lies[it.Digest] = it.spot
			p.packs[release.PackName(it.pack)].used += it.length
		}
	}
	for _, patch := range l.locator.Patches {
		p.packs[l.locator.Packs[patch.Pack].Name].use(stretch{patch.Offset, patch.Length})
	}
	for _, d := range l.locator.Deltas {
		if p.deltas[l] {
			u := p.packs[l.locator.Packs[d.Pack].Name]
			u.use(stretch{d.Offset, d.Length})
			u.use(stretch{d.Start, d.Groups})
		}
	}
	return nil
}

// use counts a stretch, once.
func (u *packUse) use(s stretch) {
	if _, ok := u.moved[s]; !ok {
		u.moved[s] = -1
		u.used += s.length
	}
}

// piece returns the piece of a pack that a row of a table is.
func (p *pruning) piece(l *release.Locator, row release.TableRow) (shelved, error) {
	u := p.packs[l.Packs[row.Pack].Name]
	i, ok := u.at[row.Offset]
	if !ok || u.pieces[i].length != row.Length {
		return shelved{}, fmt.Errorf("%w: %s has no piece of %d bytes at %d", errPack, u.Name, row.Length, row.Offset)
	}
	return u.pieces[i], nil
}

// repack moves what is needed out of the packs that hold little else, and signs
// where it lies.
func (p *pruning) repack() error {
	var dead []*packUse
	for _, u := range p.order {
		if u.dead() {
			dead = append(dead, u)
			p.done.Rewritten = append(p.done.Rewritten, u.Name)
		}
	}
	if len(dead) == 0 {
		return nil
	}
	fresh, err := p.move(dead)
	if err != nil {
		return err
	}
	for _, l := range p.list {
		if !slices.ContainsFunc(l.locator.Packs, func(pack release.Pack) bool { return p.packs[pack.Name].dead() }) {
			continue
		}
		if err := p.relocate(l, fresh); err != nil {
			return fmt.Errorf("%s seq %d: %w", l.Variant, l.Seq, err)
		}
	}
	return nil
}

// move writes what is needed of the packs into a new one, and notes where.
func (p *pruning) move(dead []*packUse) (release.Pack, error) {
	f, err := p.r.disk.createTemp()
	if err != nil {
		return release.Pack{}, err
	}
	defer p.r.disk.drop(f)
	to := newPacker(f)
	for _, part := range []func(*packUse, *os.File, *packer) error{p.movePatches, p.moveDeltas, p.movePieces} {
		for _, u := range dead {
			if err := p.movePart(u, to, part); err != nil {
				return release.Pack{}, fmt.Errorf("cannot rewrite %s: %w", u.Name, err)
			}
		}
	}
	if to.n == 0 {
		return release.Pack{}, nil
	}
	b, err := to.finish()
	if err != nil {
		return release.Pack{}, err
	}
	fresh := release.Pack{Name: release.PackName(b.Digest), Size: b.Size}
	p.done.Packs = append(p.done.Packs, fresh.Name)
	return fresh, p.r.disk.place(f, fresh.Name)
}

func (p *pruning) movePart(u *packUse, to *packer, part func(*packUse, *os.File, *packer) error) error {
	f, err := os.Open(p.r.disk.path(u.Name))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := part(u, f, to); err != nil {
		return err
	}
	p.r.opts.Progress(Progress{Step: "prune", Name: u.Name, Done: to.n})
	return p.ctx.Err()
}

// eachUse calls patch and delta for those of the releases that are in u.
func (p *pruning) eachUse(u *packUse, patch func(release.Patch) error, delta func(release.Delta) error) error {
	for _, l := range p.list {
		for _, x := range l.locator.Patches {
			if l.locator.Packs[x.Pack].Name == u.Name {
				if err := patch(x); err != nil {
					return err
				}
			}
		}
		for _, x := range l.locator.Deltas {
			if p.deltas[l] && l.locator.Packs[x.Pack].Name == u.Name {
				if err := delta(x); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// movePatches moves the patches and the directories of deltas.
func (p *pruning) movePatches(u *packUse, f *os.File, to *packer) error {
	return p.eachUse(u, func(x release.Patch) error { return u.move(stretch{x.Offset, x.Length}, f, to) },
		func(x release.Delta) error { return u.move(stretch{x.Offset, x.Length}, f, to) })
}

// moveDeltas moves the groups of deltas.
func (p *pruning) moveDeltas(u *packUse, f *os.File, to *packer) error {
	return p.eachUse(u, func(release.Patch) error { return nil },
		func(x release.Delta) error { return u.move(stretch{x.Start, x.Groups}, f, to) })
}

// movePieces moves the pieces that are taken from u.
func (p *pruning) movePieces(u *packUse, f *os.File, to *packer) error {
	for _, it := range u.pieces {
		if p.lies[it.Digest] != it.spot {
			continue
		}
		at, err := to.piece(it.Blob, it.codec, io.NewSectionReader(f, it.offset, it.length))
		if err != nil {
			return err
		}
		p.lies[it.Digest] = at // of the pack without a name as yet
	}
	return nil
}

// move moves a stretch, once.
func (u *packUse) move(s stretch, f *os.File, to *packer) error {
	if u.moved[s] >= 0 {
		return nil
	}
	at, _, err := to.other(io.NewSectionReader(f, s.offset, s.length))
	u.moved[s] = at
	return err
}

// relocate gives a release a locator for where its content lies now.
func (p *pruning) relocate(l *listed, fresh release.Pack) error {
	table, err := p.r.disk.table(l.locator)
	if err != nil {
		return err
	}
	to := &relocating{p: p, l: l.locator, fresh: fresh, number: map[string]int{}}
	whole, cut := table.Contents()
	for i := range whole {
		if err := to.row(&whole[i]); err != nil {
			return err
		}
	}
	for _, c := range cut {
		for i := range c.Pieces {
			if err := to.row(&c.Pieces[i]); err != nil {
				return err
			}
		}
	}
	loc := *l.locator
	loc.Patches, loc.Deltas = slices.Clone(loc.Patches), nil
	for i := range loc.Patches {
		x := &loc.Patches[i]
		x.Pack, x.Offset = to.stretch(x.Pack, stretch{x.Offset, x.Length})
	}
	for _, x := range l.locator.Deltas {
		if p.packs[l.locator.Packs[x.Pack].Name].dead() && !p.deltas[l] {
			p.lost(l, x)
			continue
		}
		pack := x.Pack
		x.Pack, x.Offset = to.stretch(pack, stretch{x.Offset, x.Length})
		_, x.Start = to.stretch(pack, stretch{x.Start, x.Groups})
		loc.Deltas = append(loc.Deltas, x)
	}
	loc.Packs = to.packs
	stored, err := release.EncodeTable(whole, cut, len(loc.Packs))
	if err != nil {
		return err
	}
	loc.Table = blobOf(stored)
	if err := p.r.disk.writeFile(release.TableName(loc.Table.Digest), stored); err != nil {
		return err
	}
	_, err = p.r.addDocuments(p.edit.bump(p.t, l.role, p.r.expires(p.now, l.role)), l.release, &loc)
	return err
}

// relocating numbers the packs of a release anew.
type relocating struct {
	p      *pruning
	l      *release.Locator
	fresh  release.Pack
	packs  []release.Pack
	number map[string]int
}

func (to *relocating) pack(pack release.Pack) int {
	n, ok := to.number[pack.Name]
	if !ok {
		n = len(to.packs)
		to.number[pack.Name] = n
		to.packs = append(to.packs, pack)
	}
	return n
}

// row says where a piece lies: where it was, unless that pack goes.
func (to *relocating) row(row *release.TableRow) error {
	u := to.p.packs[to.l.Packs[row.Pack].Name]
	if !u.dead() {
		row.Pack = to.pack(u.Pack)
		return nil
	}
	it, err := to.p.piece(to.l, *row)
	if err != nil {
		return err
	}
	at := to.p.lies[it.Digest]
	row.Offset, row.Length, row.Codec = at.offset, at.length, at.codec
	if at.pack.IsZero() {
		row.Pack = to.pack(to.fresh)
	} else {
		row.Pack = to.pack(to.p.packs[release.PackName(at.pack)].Pack)
	}
	return nil
}

// stretch says where a stretch lies.
func (to *relocating) stretch(pack int, s stretch) (int, int64) {
	u := to.p.packs[to.l.Packs[pack].Name]
	if !u.dead() {
		return to.pack(u.Pack), s.offset
	}
	return to.pack(to.fresh), u.moved[s]
}
