package publish

import (
	"errors"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/pawl-ota/pawl/ota/release"
)

// match pairs each blob that an earlier release does not have with one that it
// has: the file at the same path, else one that is there no more and has the
// same name, the same path but for numbers, or some of the same content. What
// drifts goes by content first, and by its path where nothing is like it. What is
// like nothing is made of nothing.
func (a *adding) match(p *part, from *predecessor) ([]pair, error) {
	olds := from.blobs
	m := &matching{olds: olds, at: map[release.Digest]int{}, byPath: map[string]int{},
		byName: map[string][]gone{}, byShape: map[string][]gone{}}
	for i, b := range olds {
		m.at[b.Digest] = i
	}
	news := map[release.Digest]bool{}
	for _, b := range p.blobs {
		news[b.Digest] = true
	}
	m.index(from.listing, news)
	var pairs []pair
	var open []int // of pairs
	for i, b := range p.distinct() {
		if _, same := m.at[b.Digest]; same || b.Size == 0 {
			continue
		}
		pr := pair{DeltaPatch: release.DeltaPatch{To: i, From: -1}, to: b.Blob, at: b}
		if !b.drifts {
			pr.From = m.named(b.path)
		}
		if pr.From < 0 {
			open = append(open, len(pairs))
		}
		pairs = append(pairs, pr)
	}
	if err := a.matchContent(p, from, m, pairs, open); err != nil {
		return nil, err
	}
	for i := range pairs {
		if b := pairs[i].at; b.drifts && pairs[i].From < 0 {
			pairs[i].From = m.named(b.path)
		}
		if pairs[i].From >= 0 {
			pairs[i].from = olds[pairs[i].From]
		}
	}
	// To make a layer of nothing takes long, and saves little over its pieces.
	return slices.DeleteFunc(pairs, func(p pair) bool { return p.at.drifts && p.From < 0 && p.to.Size >= groupOwn }), nil
}

// gone is a file whose content the new release does not have.
type gone struct {
	path string
	blob int // which of the old ones
}

// matching knows the old files.
type matching struct {
	olds            []release.Blob
	at              map[release.Digest]int
	byPath          map[string]int
	byName, byShape map[string][]gone
	gone            []int
}

func (m *matching) index(old *listing, news map[release.Digest]bool) {
	listed := map[int]bool{}
	for _, e := range old.named {
		if e.Size == 0 {
			continue
		}
		g := gone{e.path, m.at[e.Digest]}
		m.byPath[e.path] = g.blob
		if news[e.Digest] {
			continue
		}
		name, shape := path.Base(e.path), shapeOf(e.path)
		m.byName[name] = append(m.byName[name], g)
		m.byShape[shape] = append(m.byShape[shape], g)
		if !listed[g.blob] {
			listed[g.blob] = true
			m.gone = append(m.gone, g.blob)
		}
	}
}

var (
	hexRun   = regexp.MustCompile(`[0-9a-f]*[0-9][0-9a-f]*`)
	digitRun = regexp.MustCompile(`[0-9]+`)
)

// shapeOf returns a path without what versions and digests change in it.
func shapeOf(p string) string {
	p = hexRun.ReplaceAllStringFunc(p, func(s string) string {
		if len(s) >= 6 {
			return "#"
		}
		return s
	})
	return digitRun.ReplaceAllString(p, "#")
}

// named returns the old blob for the file at p, -1 for none.
func (m *matching) named(p string) int {
	if i, ok := m.byPath[p]; ok {
		return i
	}
	best, score, twice := -1, 0, false
	for _, g := range m.byName[path.Base(p)] {
		if n := alike(g.path, p); n > score {
			best, score, twice = g.blob, n, false
		} else if n == score && g.blob != best {
			twice = true
		}
	}
	if best >= 0 && !twice {
		return best
	}
	if list := m.byShape[shapeOf(p)]; len(list) == 1 {
		return list[0].blob
	}
	return -1
}

// alike counts the names that two paths end with in common, then those that they
// begin with.
func alike(a, b string) int {
	as, bs := strings.Split(a, "/"), strings.Split(b, "/")
	head, tail := 0, 0
	for head < min(len(as), len(bs)) && as[head] == bs[head] {
		head++
	}
	for tail < min(len(as), len(bs)) && as[len(as)-1-tail] == bs[len(bs)-1-tail] {
		tail++
	}
	return tail<<16 + head
}

// matchContent pairs what no name paired.
func (a *adding) matchContent(p *part, from *predecessor, m *matching, pairs []pair, open []int) error {
	if len(open) == 0 || len(m.gone) == 0 {
		return nil
	}
	by := map[uint64][]int{}
	for _, i := range m.gone {
		r, err := a.r.disk.openBlob(m.olds[i], from.table)
		if err != nil {
			return err
		}
		s, err := sketch(r)
		if err := errors.Join(err, r.Close(), a.ctx.Err()); err != nil {
			return err
		}
		for _, v := range s {
			by[v] = append(by[v], i)
		}
	}
	for _, i := range open {
		f, err := p.source.open(pairs[i].at)
		if err != nil {
			return err
		}
		s, err := sketch(f)
		if err := errors.Join(err, f.Close(), a.ctx.Err()); err != nil {
			return err
		}
		pairs[i].From = mostAlike(by, s)
	}
	return nil
}

// mostAlike returns the blob with which s has most in common, -1 where that is
// next to nothing.
func mostAlike(by map[uint64][]int, s []uint64) int {
	votes := map[int]int{}
	for _, v := range s {
		for _, i := range by[v] {
			votes[i]++
		}
	}
	best, most := -1, max(1, len(s)/16)
	for i, n := range votes {
		if n > most || n == most && (best < 0 || i < best) {
			best, most = i, n
		}
	}
	return best
}

// sketchSize is how many sums of a blob stand for its content.
const sketchSize = 64

// sketch returns the smallest sums of stretches of 64 bytes that begin where
// their content says. Blobs that have much in common have sums in common
// (Broder, "On the resemblance and containment of documents", 1997).
func sketch(r io.Reader) ([]uint64, error) {
	var sum uint64
	s := make([]uint64, 0, 2*sketchSize)
	limit := ^uint64(0)
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		for _, b := range buf[:n] {
			sum = sum<<1 + mix(uint64(b)+1)
			if sum>>59 != 0 {
				continue
			}
			if v := mix(sum); v < limit {
				if s = append(s, v); len(s) == cap(s) {
					s = smallest(s)
					limit = s[len(s)-1]
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return smallest(s), nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// smallest returns the smallest distinct sums, sorted.
func smallest(s []uint64) []uint64 {
	slices.Sort(s)
	s = slices.Compact(s)
	return s[:min(len(s), sketchSize)]
}

// mix spreads a number over all bits (the finalizer of SplitMix64).
func mix(v uint64) uint64 {
	v += 0x9e3779b97f4a7c15
	v = (v ^ v>>30) * 0xbf58476d1ce4e5b9
	v = (v ^ v>>27) * 0x94d049bb133111eb
	return v ^ v>>31
}
