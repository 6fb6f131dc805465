//go:build linux

package micro

import (
	"bytes"
	"hash"
	"io"
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
	// byBlob are the files of ix, sorted by digest.
	byBlob []int32
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
	var files []int32
	for i := range ix.Entries {
		if ix.Entries[i].Type == release.File {
			files = append(files, int32(i))
		}
	}
	slices.SortStableFunc(files, func(a, b int32) int { return compareDigest(ix.Entries[a].Digest, ix.Entries[b].Digest) })
	return files
}

func compareDigest(a, b release.Digest) int { return bytes.Compare(a[:], b[:]) }

// withBlob returns those of files, sorted by digest, that have the content b.
func withBlob(ix *release.Index, files []int32, b release.Blob) []int32 {
	first := func(after bool) int {
		n, _ := slices.BinarySearchFunc(files, b.Digest, func(i int32, d release.Digest) int {
			if c := compareDigest(ix.Entries[i].Digest, d); c != 0 || !after {
				return c
			}
			return -1
		})
		return n
	}
	return files[first(false):first(true)]
}

// maxPlaces bounds how many files of one tree are tried for one blob.
const maxPlaces = 4

// places returns where the tree may hold b: at path first.
func (s *source) places(path string, b release.Blob) []string {
	if s.ix == nil {
		return []string{path}
	}
	var all []string
	if e := s.ix.Find(path); e != nil && e.Type == release.File && e.Blob == b {
		all = append(all, path)
	}
	for _, i := range withBlob(s.ix, s.byBlob, b) {
		if len(all) == maxPlaces {
			break
		}
		if p := s.ix.Entries[i].Path; p != path {
			all = append(all, p)
		}
	}
	return all
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
			all = append(all, s)
		}
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
