package ota

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"slices"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/ota/release"
)

const (
	blobFolder = "blobs"
	// maxDocument bounds what is read into memory whole: documents, tables,
	// and indexes that a patch is applied to.
	maxDocument = 64 << 20
)

// store is the local copy: blobs by digest. Whatever is read from it is
// verified, so that it may hold anything after a power cut.
type store struct{ dir seam.Dir }

func (u *Updater) store() store { return store{u.dir} }

func (s store) name(d release.Digest) string { return blobFolder + "/" + d.String() }

// put stores data and returns its digest. It is durable but where it was there
// before: whoever put it there may have been killed. That does for what can be
// fetched again.
func (s store) put(data []byte) (release.Digest, error) {
	d := release.Sum(data)
	if s.holds(d, data) {
		return d, nil
	}
	if err := s.dir.WriteFile(s.name(d), data); err != nil {
		return d, fmt.Errorf("cannot store %s: %w", d.Short(), err)
	}
	return d, nil
}

func (s store) holds(d release.Digest, data []byte) bool {
	old, err := s.get(d, int64(len(data)))
	return err == nil && bytes.Equal(old, data)
}

// putDocument makes data durable, for a record to name it.
func (s store) putDocument(data []byte) (release.Digest, error) {
	if d := release.Sum(data); s.holds(d, data) {
		if err := s.dir.SyncNames(blobFolder); err != nil {
			return d, fmt.Errorf("cannot store %s: %w", d.Short(), err)
		}
		return d, nil
	}
	return s.put(data)
}

// get returns a blob of at most max bytes, verified.
func (s store) get(d release.Digest, max int64) ([]byte, error) {
	data, err := s.dir.ReadFile(s.name(d), max)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s from the local copy: %w", d.Short(), err)
	}
	if release.Sum(data) != d {
		return nil, fmt.Errorf("%s in the local copy: %w", d.Short(), ErrDigest)
	}
	return data, nil
}

// has reports whether the blob seems to be there: its length is right.
func (s store) has(b release.Blob) bool {
	n, err := s.dir.Size(s.name(b.Digest))
	return err == nil && n == b.Size
}

// open returns a blob, unverified.
func (s store) open(b release.Blob) (io.ReadCloser, bool, error) {
	if !s.has(b) {
		return nil, false, nil
	}
	r, err := s.dir.Open(s.name(b.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	return r, err == nil, err
}

// verified returns what opens b from the local copy, verified as it is read.
func (s store) verified(b release.Blob) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		r, ok, err := s.open(b)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("%s is not in the local copy: %w", b.Digest.Short(), ErrNotLocal)
		}
		return closing{newVerified(r, b), r}, nil
	}
}

// document returns a stored release document.
func (u *Updater) document(d release.Digest) (*release.Release, error) {
	data, err := u.store().get(d, release.MaxRelease)
	if err != nil {
		return nil, fmt.Errorf("cannot read the release document: %w", err)
	}
	return release.Parse(data)
}

// Document returns the release document of what is committed, out of the local
// copy. It returns ErrNoRelease where nothing is. It may be called at any time.
func (u *Updater) Document() (*release.Release, error) {
	runs := u.Status().Running
	if runs.Seq == 0 {
		return nil, ErrNoRelease
	}
	return u.document(runs.Digest)
}

// installedComponent returns the component that p is.
func (u *Updater) installedComponent(p part) (release.Component, error) {
	r, err := u.document(p.Release)
	if err != nil {
		return release.Component{}, err
	}
	c, ok := r.Component(p.Name)
	if !ok {
		return c, fmt.Errorf("%w: %q in %s", ErrComponent, p.Name, r.Version)
	}
	return c, nil
}

type document struct {
	digest release.Digest
	rel    *release.Release
}

// documents returns all stored release documents of this product and variant,
// the newest first.
func (u *Updater) documents() ([]document, error) {
	names, err := u.dir.List(blobFolder)
	if err != nil {
		return nil, err
	}
	var docs []document
	for _, name := range names {
		d, err := release.ParseDigest(name)
		if err != nil {
			continue
		}
		if n, err := u.dir.Size(u.store().name(d)); err != nil || n > release.MaxRelease {
			continue
		}
		if r, err := u.document(d); err == nil && u.fits(r) == nil {
			docs = append(docs, document{d, r})
		}
	}
	slices.SortFunc(docs, func(a, b document) int { return cmp.Compare(b.rel.Seq, a.rel.Seq) })
	return docs, nil
}

// verified gives out the bytes of one blob, and io.EOF only when they were the
// right ones.
type verified struct {
	r    io.Reader
	want release.Blob
	hash hash.Hash // nil for one that was verified before
	n    int64
	err  error // the end, once it was reached
}

func newVerified(r io.Reader, want release.Blob) *verified {
	return &verified{r: r, want: want, hash: sha256.New()}
}

func (v *verified) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.r.Read(p)
	v.n += int64(n)
	if v.hash != nil {
		v.hash.Write(p[:n])
	}
	switch {
	case v.n > v.want.Size:
		v.err = fmt.Errorf("%s: %w: more than %d bytes", v.want.Digest.Short(), ErrLength, v.want.Size)
		return 0, v.err
	case err == nil:
		return n, nil
	case !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		v.err = err
	case v.n < v.want.Size:
		v.err = fmt.Errorf("%s: %w: %d of %d bytes", v.want.Digest.Short(), ErrLength, v.n, v.want.Size)
	case v.hash != nil && release.Digest(v.hash.Sum(nil)) != v.want.Digest:
		v.err = fmt.Errorf("%s: %w", v.want.Digest.Short(), ErrDigest)
	default:
		v.err = io.EOF
	}
	return n, v.err
}

// ok reports whether all bytes were read and right.
func (v *verified) ok() bool { return v.err == io.EOF }

// bad reports whether the bytes, not their reader, were the failure.
func (v *verified) bad() bool { return v.err != nil && v.err != io.EOF }

// newProven returns a reader of a blob that was verified whole.
func newProven(data []byte, want release.Blob) *verified {
	return &verified{r: bytes.NewReader(data), want: want}
}
