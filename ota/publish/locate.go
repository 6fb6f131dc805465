package publish

import (
	"slices"

	"github.com/pawl-ota/pawl/ota/release"
)

// locating makes the table of a release, and the packs of its locator.
type locating struct {
	known  map[release.Digest]spot
	number map[release.Digest]int // of packs
	used   map[release.Digest]bool
	whole  []release.Digest
	cut    map[release.Digest][]release.Digest
}

func newLocating(known map[release.Digest]spot) *locating {
	return &locating{known: known, number: map[release.Digest]int{}, used: map[release.Digest]bool{},
		cut: map[release.Digest][]release.Digest{}}
}

// want adds a blob; pieces is nil for one that is a piece itself.
func (l *locating) want(b release.Digest, pieces []release.Digest) {
	if pieces == nil {
		l.whole = append(l.whole, b)
		l.used[l.known[b].pack] = true
		return
	}
	l.cut[b] = pieces
	for _, p := range pieces {
		l.used[l.known[p].pack] = true
	}
}

// table fills in the packs of loc, out of those that there are and the one that
// was just made, if any, and returns the table.
func (l *locating) table(loc *release.Locator, packs []release.Pack, fresh release.Pack) ([]byte, error) {
	for _, p := range packs {
		if d, err := p.Digest(); err == nil && l.used[d] {
			l.number[d] = len(loc.Packs)
			loc.Packs = append(loc.Packs, p)
		}
	}
	if fresh.Name != "" {
		l.number[release.Digest{}] = len(loc.Packs)
		loc.Packs = append(loc.Packs, fresh)
	}
	rows := make([]release.TableRow, 0, len(l.whole))
	for _, d := range l.whole {
		rows = append(rows, l.row(d))
	}
	var cut []release.TableCut
	for d, pieces := range l.cut {
		c := release.TableCut{Digest: d}
		for _, p := range pieces {
			c.Pieces = append(c.Pieces, l.row(p))
		}
		cut = append(cut, c)
	}
	slices.SortFunc(cut, func(a, b release.TableCut) int { return slices.Compare(a.Digest[:], b.Digest[:]) })
	table, err := release.EncodeTable(rows, cut, len(loc.Packs))
	loc.Table = blobOf(table)
	return table, err
}

func (l *locating) row(d release.Digest) release.TableRow {
	s := l.known[d]
	return release.TableRow{Digest: d, Pack: l.number[s.pack], Offset: s.offset, Length: s.length, Codec: s.codec, Size: s.size}
}
