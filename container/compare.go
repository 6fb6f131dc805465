package container

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/pawl-ota/pawl/ota/release"
)

// compareImage reads an image as the engine gives it out, and returns what is
// wrong with it, or nothing. The configuration and every layer have to be among
// the files of the archive by their digests. An error is that the engine could
// not be asked.
func (c *Compose) compareImage(ctx context.Context, ref string, config release.Digest, layers []release.Digest) (wrong string, err error) {
	r, err := c.engine.Save(ctx, ref)
	switch {
	case errors.Is(err, errMissing):
		return "it is not there", nil
	case errors.Is(err, ErrEngine) || err != nil && ctx.Err() != nil:
		return "", err
	case err != nil:
		return err.Error(), nil
	}
	found, err := digests(r)
	if closing := r.Close(); err == nil {
		err = closing
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "the engine cannot read it: " + err.Error(), nil
	}
	if !found[config] {
		return "its configuration is another one", nil
	}
	for n, l := range layers {
		if !found[l] {
			return fmt.Sprintf("layer %d of %d is another one", n+1, len(layers)), nil
		}
	}
	return "", nil
}

// digests returns the digests of all files of an archive; of those that are
// compressed also the digest of what is in them.
func digests(archive io.Reader) (map[release.Digest]bool, error) {
	found := map[release.Digest]bool{}
	for r := tar.NewReader(archive); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := addDigests(found, r); err != nil {
			return nil, fmt.Errorf("%.80q: %w", h.Name, err)
		}
	}
}

func addDigests(found map[release.Digest]bool, r io.Reader) error {
	outer := sha256.New()
	in := bufio.NewReader(io.TeeReader(r, outer))
	if head, _ := in.Peek(2); len(head) == 2 && head[0] == 0x1f && head[1] == 0x8b {
		if z, err := gzip.NewReader(in); err == nil {
			inner := sha256.New()
			if _, err := io.Copy(inner, z); err == nil {
				found[release.Digest(inner.Sum(nil))] = true
			}
		}
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	found[release.Digest(outer.Sum(nil))] = true
	return nil
}
