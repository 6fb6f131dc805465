package publish

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/pawl-ota/pawl/ota/release"
)

// How patches are put into groups. What is in one group is compressed together
// and fetched as one.
const (
	groupSize = 16 << 20 // bytes of new blobs from which on a group is full
	groupOwn  = 1 << 20  // bytes of a new blob that gets a group of its own
)

// making is a delta that is made for the new release.
type making struct {
	release.Delta
	part      *part
	from      *predecessor
	rank      int // of from, 0 for the newest
	groups    []*group
	directory []byte
}

// group is a group of patches of one delta or several.
type group struct {
	part   *part
	from   *predecessor
	pairs  []pair
	offset int64 // in the scratch file, when it was made
	length int64
	like   *group // that is the same, for another delta
}

// pair is a blob and what a patch makes it from.
type pair struct {
	release.DeltaPatch
	to, from release.Blob // from is zero for a blob that is made of nothing
	at       namedBlob    // the new blob
}

// makeDeltas makes the groups of all deltas, writes them to f, and keeps the
// deltas that are worth it: which need fewer bytes than the pieces that a device
// would fetch instead.
func (a *adding) makeDeltas(f *os.File) (err error) {
	var list []*making
	for i := range a.parts {
		p := &a.parts[i]
		if p.from, err = a.predecessors(p); err != nil {
			return fmt.Errorf("component %q: %w", p.Name, err)
		}
		for rank, from := range p.from {
			m := &making{part: p, from: from, rank: rank}
			m.Component, m.From, m.To = p.Name, from.index.Digest, p.blob.Digest
			if m.groups, err = a.plan(p, from); err != nil {
				return fmt.Errorf("component %q: release %d: %w", p.Name, from.seq, err)
			}
			if len(m.groups) > 0 {
				list = append(list, m)
			}
		}
	}
	slices.SortStableFunc(list, func(x, y *making) int { return x.rank - y.rank })
	if err := a.makeGroups(list, f); err != nil {
		return err
	}
	for _, m := range list {
		if err := a.weigh(m); err != nil {
			return err
		}
	}
	a.deltas, a.groups = slices.DeleteFunc(list, func(m *making) bool { return m.directory == nil }), f
	return nil
}

// plan says which blobs a delta makes, and from what, and puts them into groups:
// what is made of nothing apart from what is made of old blobs.
func (a *adding) plan(p *part, from *predecessor) ([]*group, error) {
	pairs, err := a.match(p, from)
	if err != nil {
		return nil, err
	}
	var list []*group
	for _, made := range []bool{true, false} {
		var open *group
		size := int64(0)
		for _, pr := range pairs {
			if (pr.From >= 0) != made {
				continue
			}
			if pr.to.Size >= groupOwn {
				list = append(list, &group{part: p, from: from, pairs: []pair{pr}})
				continue
			}
			if open == nil || size+pr.to.Size > groupSize {
				open, size = &group{part: p, from: from}, 0
				list = append(list, open)
			}
			open.pairs = append(open.pairs, pr)
			size += pr.to.Size
		}
	}
	return list, nil
}

// weigh drops the groups of m that are not smaller than the pieces that a device
// would fetch instead, and makes the directory of m if anything is gained by all
// the others.
func (a *adding) weigh(m *making) error {
	have := m.from.sums()
	kept := m.groups[:0]
	gained, dir := int64(0), release.DeltaDirectory{}
	for _, g := range m.groups {
		if g.like != nil {
			g.offset, g.length = g.like.offset, g.like.length
		}
		instead := int64(0)
		seen := map[release.Digest]bool{}
		for _, p := range g.pairs {
			instead += a.missing(p.to.Digest, have, seen)
		}
		// A little is not worth that the repository holds it twice.
		if g.length+g.length/32 >= instead {
			continue
		}
		gained += instead - g.length
		kept = append(kept, g)
		patches := make([]release.DeltaPatch, len(g.pairs))
		for i, p := range g.pairs {
			patches[i] = p.DeltaPatch
		}
		dir.Groups = append(dir.Groups, release.DeltaGroup{Length: g.length, Patches: patches})
		m.Groups += g.length
	}
	m.groups = kept
	stored, err := release.EncodeDelta(&dir)
	if err != nil || gained <= int64(len(stored)) {
		return err
	}
	m.directory, m.Length, m.Directory = stored, int64(len(stored)), release.Sum(stored)
	return nil
}

// missing returns the stored bytes of the pieces of a blob that are not in have
// and not in seen, to which it adds them.
func (a *adding) missing(b release.Digest, have map[release.PieceSum]bool, seen map[release.Digest]bool) (n int64) {
	pieces := a.want[b]
	if pieces == nil {
		pieces = []release.Digest{b}
	}
	for _, d := range pieces {
		if !seen[d] && !have[release.PieceSum(d[:16])] {
			seen[d] = true
			n += a.stored(d)
		}
	}
	return n
}

// stored returns the stored length of a piece.
func (a *adding) stored(d release.Digest) int64 {
	if i, ok := a.shelf.at[d]; ok {
		return a.shelf.items[i].length
	}
	return a.known[d].length
}

// sums returns the pieces of all files of an earlier release.
func (p *predecessor) sums() map[release.PieceSum]bool {
	all := map[release.PieceSum]bool{}
	for _, b := range p.blobs {
		pieces, _ := p.table.Pieces(b)
		for _, piece := range pieces {
			all[piece.Sum] = true
		}
	}
	return all
}

// packDirectory writes the directory of the delta from one to another.
func (a *adding) packDirectory(p *packer, part *part, from *predecessor) (err error) {
	for _, m := range a.deltas {
		if m.part == part && m.from == from {
			m.Offset, _, err = p.other(bytes.NewReader(m.directory))
		}
	}
	return err
}

// packGroups writes the groups of all deltas, those from the newest release
// first.
func (a *adding) packGroups(p *packer) error {
	for _, m := range a.deltas {
		m.Start = p.n
		for _, g := range m.groups {
			if _, _, err := p.other(io.NewSectionReader(a.groups, g.offset, g.length)); err != nil {
				return fmt.Errorf("cannot write content: %w", err)
			}
		}
	}
	return nil
}
