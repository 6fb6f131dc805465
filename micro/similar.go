//go:build linux

package micro

import (
	"context"
	"path"
	"slices"

	"github.com/pawl-ota/pawl/internal/chunk"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// maxSimilar bounds how many files are named for one blob.
const maxSimilar = 4

// similar knows which installed files the long files of a release are like. It
// holds no index.
type similar struct {
	of   release.Digest // the component
	like map[release.Digest][]release.Blob
}

func newSimilar(c release.Component, next, old *release.Index) *similar {
	byName := map[string][]*release.Entry{}
	for i := range old.Entries {
		if e := &old.Entries[i]; isLong(e) {
			byName[path.Base(e.Path)] = append(byName[path.Base(e.Path)], e)
		}
	}
	s := &similar{of: c.Digest(), like: map[release.Digest][]release.Blob{}}
	for i := range next.Entries {
		e := &next.Entries[i]
		if !isLong(e) {
			continue
		}
		if o := old.Find(e.Path); o != nil && isLong(o) {
			s.add(e, o)
		}
		for _, o := range byName[path.Base(e.Path)] {
			s.add(e, o)
		}
	}
	return s
}

// isLong reports whether e is a file that is stored in pieces.
func isLong(e *release.Entry) bool { return e.Type == release.File && e.Size >= chunk.Whole }

func (s *similar) add(e, old *release.Entry) {
	all := s.like[e.Digest]
	if len(all) < maxSimilar && !slices.Contains(all, old.Blob) {
		s.like[e.Digest] = append(all, old.Blob)
	}
}

// Similar names installed files with the path, or else the name, that the
// content b has in c.
func (f *treeFiles) Similar(ctx context.Context, c release.Component, b release.Blob, content ota.Content) ([]release.Blob, error) {
	return f.similar(ctx, c, b, content, func() (known, error) {
		root, err := f.root()
		if err != nil {
			return known{}, err
		}
		plans, err := f.plans()
		k, _ := f.identify(root, plans)
		return k, err
	})
}

// Similar names installed files with the path, or else the name, that the
// content b has in c.
func (f *inPlaceFiles) Similar(ctx context.Context, c release.Component, b release.Blob, content ota.Content) ([]release.Blob, error) {
	return f.similar(ctx, c, b, content, func() (known, error) {
		was, _, err := f.current()
		return known{Digest: was.Digest, Index: was.Index}, err
	})
}

// similar keeps what it found out for the next question about c.
func (f *base) similar(ctx context.Context, c release.Component, b release.Blob, content ota.Content, installed func() (known, error)) ([]release.Blob, error) {
	if s := f.like; s != nil && s.of == c.Digest() {
		return s.like[b.Digest], nil
	}
	k, err := installed()
	if err != nil || k.Digest.IsZero() {
		return nil, err
	}
	old := f.oldIndex(ctx, k, content)
	next, err := f.index(ctx, c.Digest(), c.Index, content)
	if err != nil || old == nil {
		return nil, err
	}
	f.like = newSimilar(c, next, old)
	return f.like.like[b.Digest], nil
}
