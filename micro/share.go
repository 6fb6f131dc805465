//go:build linux

package micro

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash"
	"io"
	"iter"
	"slices"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota/release"
)

// source is a tree on the device that may hold content: the root or a kept
// tree.
type source struct {
	tree *at.Tree
	ix   *release.Index // nil where it is not known
	live bool           // it is the root
	of   release.Digest // the component that ix is of, where that is known
	// byBlob are the files of ix, sorted by digest.
	byBlob []int32
	// seen is what the files were when they were known to be right, by their
	// places in ix; nil where nothing is known.
	seen []seenFile
}

func newSource(path string, ix *release.Index, live bool) (*source, error) {
	tree, err := at.Open(path)
	if err != nil {
		return nil, err
	}
	return &source{tree: tree, ix: ix, live: live, byBlob: sortByBlob(ix)}, nil
}

// sortByBlob returns the files of an index in the order of their digests.
func sortByBlob(ix *release.Index) []int32 {
	if ix == nil {
		return nil
	}
	type file struct {
		first uint64 // bytes of the digest, which nearly always decide
		i     int32
	}
	files := make([]file, 0, len(ix.Entries))
	for i := range ix.Entries {
		if e := &ix.Entries[i]; e.Type == release.File {
			files = append(files, file{binary.BigEndian.Uint64(e.Digest[:8]), int32(i)})
		}
	}
	slices.SortFunc(files, func(a, b file) int {
		if a.first != b.first {
			return cmp.Compare(a.first, b.first)
		}
		return cmp.Or(compareDigest(ix.Entries[a.i].Digest, ix.Entries[b.i].Digest), cmp.Compare(a.i, b.i))
	})
	sorted := make([]int32, len(files))
	for n, f := range files {
		sorted[n] = f.i
	}
	return sorted
}

func compareDigest(a, b release.Digest) int { return bytes.Compare(a[:], b[:]) }

// withBlob returns those of files, sorted by digest, that have the content b.
func withBlob(ix *release.Index, files []int32, b release.Blob) []int32 {
	first, _ := slices.BinarySearchFunc(files, b.Digest, func(i int32, d release.Digest) int {
		return compareDigest(ix.Entries[i].Digest, d)
	})
	end := first
	for end < len(files) && ix.Entries[files[end]].Digest == b.Digest {
		end++
	}
	return files[first:end]
}

// maxPlaces bounds how many files of one tree are tried for one blob.
const maxPlaces = 4

// places returns where the tree may hold b, at path first, with the places of
// these files in ix. Where there is none that place means nothing.
func (s *source) places(path string, b release.Blob) iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		if s.ix == nil {
			yield(path, 0)
			return
		}
		n := 0
		if i, ok := s.ix.Search(path); ok && s.ix.Entries[i].Type == release.File && s.ix.Entries[i].Blob == b {
			if n++; !yield(path, i) {
				return
			}
		}
		for _, i := range withBlob(s.ix, s.byBlob, b) {
			p := s.ix.Entries[i].Path
			if p == path {
				continue
			}
			if n++; n > maxPlaces || !yield(p, int(i)) {
				return
			}
		}
	}
}

// sources opens the root and the kept trees. Those that cannot be read are
// left out: they only save work.
func (f *treeFiles) sources(old *release.Index) []*source {
	var all []*source
	if s, err := newSource(f.opts.Root, old, true); err == nil {
		all = append(all, s)
	}
	for _, k := range f.readState().Trees {
		if k.Digest.IsZero() {
			continue
		}
		ix, err := f.storedIndex(k.Digest, k.Index)
		if err != nil {
			continue
		}
		if s, err := newSource(f.keptPath(k.Digest), ix, false); err == nil {
			s.of = k.Digest
			all = append(all, s)
		}
	}
	return all
}

// lenders are the sources of a new tree, with what is known of their files: the
// root, which holds was, and the kept trees.
func (f *treeFiles) lenders(was known, old *release.Index) []*source {
	all := f.sources(old)
	for _, s := range all {
		if s.live {
			s.of = was.Digest
		}
		s.seen = f.readSeen(s.of, s.ix)
	}
	return all
}

func closeSources(all []*source) {
	for _, s := range all {
		_ = s.tree.Close()
	}
}

// hashing hashes and counts what is read through it.
type hashing struct {
	h hash.Hash
	r io.Reader
	n int64
}

func (h *hashing) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.h.Write(p[:n])
	h.n += int64(n)
	return n, err
}

func (h *hashing) blob() release.Blob {
	return release.Blob{Digest: release.Digest(h.h.Sum(nil)), Size: h.n}
}

// holds reports whether an opened file is b, reading at most one byte more.
func (w *worker) holds(file io.Reader, b release.Blob) (bool, error) {
	return holds(w.hash, w.buf, file, b, b.Size+1)
}

// holds reports whether the first limit bytes of file are b.
func holds(sum hash.Hash, buf []byte, file io.Reader, b release.Blob, limit int64) (bool, error) {
	sum.Reset()
	h := &hashing{h: sum, r: io.LimitReader(file, limit)}
	if _, err := at.CopyTo(io.Discard, h, buf); err != nil {
		return false, err
	}
	return h.blob() == b, nil
}
