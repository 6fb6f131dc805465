//go:build linux

package micro

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
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
func (w *worker) holds(file *os.File, b release.Blob) (bool, error) {
	w.hash.Reset()
	h := &hashing{h: w.hash, r: io.LimitReader(file, b.Size+1)}
	if _, err := at.CopyTo(io.Discard, h, w.buf); err != nil {
		return false, err
	}
	return h.blob() == b, nil
}

// shared is a file of the new tree that is the same inode as a file of the
// root or of a kept tree, and what that inode was then.
type shared struct {
	New   string `json:"n"`
	Old   string `json:"o,omitempty"` // in the root; empty where it is of a kept tree
	Ino   uint64 `json:"i"`
	Size  int64  `json:"s"`
	Mtime int64  `json:"m"`
	Ctime int64  `json:"c"`
}

// is reports whether the inode was not touched since.
func (s *shared) is(info at.Info) bool {
	return info.IsFile() && s.Ino == info.Ino && s.Size == info.Size && s.Mtime == info.Mtime && s.Ctime == info.Ctime
}

// sharedLog writes the shared files of a tree down, one line each and a last
// one without a path. It becomes durable with the tree.
type sharedLog struct {
	file *os.File
	buf  *bufio.Writer
}

func createSharedLog(path string) (*sharedLog, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &sharedLog{file, bufio.NewWriter(file)}, nil
}

func (l *sharedLog) add(s shared) error {
	line, err := json.Marshal(s)
	if err == nil {
		_, err = l.buf.Write(append(line, '\n'))
	}
	return err
}

func (l *sharedLog) close() error {
	return cmp.Or(l.add(shared{}), l.buf.Flush(), l.file.Close())
}

// eachShared calls use for every shared file that Stage wrote down.
func eachShared(path string, use func(*shared) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bufio.NewReader(file))
	for {
		var s shared
		if err = dec.Decode(&s); err != nil {
			err = fmt.Errorf("cannot read %s: %w: %w", path, errDamaged, err)
			break
		}
		if s.New == "" {
			break
		}
		if err = use(&s); err != nil {
			break
		}
	}
	return errors.Join(err, file.Close())
}
