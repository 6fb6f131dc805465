package ota

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"

	"github.com/pawl-ota/pawl/ota/release"
)

// local yields the places on the device that may hold b, each as a func that
// opens it.
func (c *content) local(ctx context.Context, b release.Blob) iter.Seq[func() (io.ReadCloser, bool)] {
	return func(yield func(func() (io.ReadCloser, bool)) bool) {
		if !yield(func() (io.ReadCloser, bool) {
			r, ok, err := c.u.store().open(b)
			return r, ok && err == nil
		}) {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(c.u.opts.Backends)) {
			seeder, ok := c.u.opts.Backends[name].(Seeder)
			if !ok {
				continue
			}
			if !yield(func() (io.ReadCloser, bool) {
				r, ok, err := seeder.Seed(ctx, name, b)
				return r, ok && err == nil
			}) {
				return
			}
		}
	}
}

// isLocal reports whether some place on the device seems to hold b.
func (c *content) isLocal(ctx context.Context, b release.Blob) bool {
	for place := range c.local(ctx, b) {
		if r, ok := place(); ok {
			return r.Close() == nil
		}
	}
	return false
}

// whole reads r to its end and reports whether it is b.
func (c *content) whole(r io.ReadCloser, b release.Blob) bool {
	v := newVerified(r, b)
	_, err := io.Copy(io.Discard, v)
	return errors.Join(err, r.Close()) == nil
}

// firstWhole returns how many places on the device come before the first one that
// holds b as it should be. It is not ok where none does.
func (c *content) firstWhole(ctx context.Context, b release.Blob) (n int, ok bool) {
	for place := range c.local(ctx, b) {
		if r, ok := place(); ok && c.whole(r, b) {
			return n, true
		}
		n++
	}
	return 0, false
}

// input is content of the device that is read in place, unverified.
type input struct {
	io.ReaderAt
	io.Closer
}

// input opens b where it can be read in place.
func (c *content) input(ctx context.Context, b release.Blob) (input, bool) {
	n := 0
	for place := range c.local(ctx, b) {
		if n++; n <= c.passed[b.Digest] {
			continue
		}
		r, ok := place()
		if !ok {
			continue
		}
		if at, ok := r.(io.ReaderAt); ok {
			return input{at, r}, true
		}
		_ = r.Close()
	}
	return input{}, false
}

// putLocals hands put what is on the device, and returns what is not, each blob
// once.
func (c *content) putLocals(ctx context.Context, blobs []release.Blob, put func(release.Blob, io.Reader) error) ([]release.Blob, error) {
	var missing []release.Blob
	seen := make(map[release.Digest]bool, len(blobs))
	for _, b := range blobs {
		if seen[b.Digest] {
			continue
		}
		seen[b.Digest] = true
		found, err := c.putLocal(ctx, b, put)
		if err == nil && !found && b.Size == 0 { // nothing to ask for
			v := newVerified(bytes.NewReader(nil), b)
			found, err = true, handed(b, v, put(b, v))
		}
		if err != nil {
			return nil, err
		}
		if !found {
			missing = append(missing, b)
		}
	}
	return missing, nil
}

// putLocal hands put the blob from the first place on the device that has it.
func (c *content) putLocal(ctx context.Context, b release.Blob, put func(release.Blob, io.Reader) error) (bool, error) {
	for place := range c.local(ctx, b) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		r, ok := place()
		if !ok {
			continue
		}
		v := newVerified(r, b)
		err := handed(b, v, put(b, v))
		_ = r.Close()
		if _, wrong := errors.AsType[*contentError](err); wrong {
			continue
		}
		return true, err
	}
	return false, nil
}

// hand gives a blob to put, and to the local copy where that keeps it.
func (c *content) hand(b release.Blob, v *verified, put func(release.Blob, io.Reader) error) error {
	if !c.keeps {
		return handed(b, v, put(b, v))
	}
	f, err := c.u.dir.Create(c.u.store().name(b.Digest))
	if err != nil {
		return fmt.Errorf("cannot keep %s: %w", b.Digest.Short(), err)
	}
	err = handed(b, v, put(b, io.TeeReader(v, f)))
	if err != nil {
		return errors.Join(err, f.Abort())
	}
	return c.u.place(f, b)
}

// handed checks what put did with the reader that it was given.
func handed(b release.Blob, v *verified, err error) error {
	switch {
	case v.bad():
		return &contentError{b, v.err}
	case err != nil:
		return err
	case !v.ok():
		return fmt.Errorf("%s was not read to its end", b.Digest.Short())
	}
	return nil
}

// contentError is what kept one blob from coming as it should be.
type contentError struct {
	blob release.Blob
	err  error
}

func (e *contentError) Error() string {
	return fmt.Sprintf("cannot get %s: %v", e.blob.Digest.Short(), e.err)
}

func (e *contentError) Unwrap() error { return e.err }
