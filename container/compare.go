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
	info, err := c.engine.Info(ctx)
	if err != nil {
		return "", err
	}
	r, err := c.engine.Save(ctx, ref)
	switch {
	case errors.Is(err, errMissing):
		return "it is not there", nil
	case errors.Is(err, ErrEngine) || err != nil && ctx.Err() != nil:
		return "", err
	case err != nil:
		return err.Error(), nil
	}
	found, err := digests(r, info.Snapshots)
	// Behind the archive's end there is padding, and behind that the end of the call. An
	// engine with the containerd store holds on to the image for good, by a lease, where
	// it is cut off before that: a repair could not bring it anew.
	_, behind := io.Copy(io.Discard, r)
	if closing := errors.Join(behind, r.Close()); err == nil {
		err = closing
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "the engine cannot read it: " + err.Error(), nil
	}
	if _, ok := found[config]; !ok {
		return "its configuration is another one", nil
	}
	for n, l := range layers {
		if _, ok := found[l]; !ok {
			return fmt.Sprintf("layer %d of %d is another one", n+1, len(layers)), nil
		}
	}
	if !info.Snapshots || len(layers) == 0 {
		return "", nil
	}
	return c.compareFiles(ctx, ref, layers, found)
}

// digests returns the digests of all files of an archive; of those that are
// compressed the digest of what is in them too. With trees it says what is in
// those that are archives themselves.
func digests(archive io.Reader, trees bool) (map[release.Digest]tree, error) {
	found := map[release.Digest]tree{}
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
		if err := addDigests(found, r, trees); err != nil {
			return nil, fmt.Errorf("%.80q: %w", h.Name, err)
		}
	}
}

func addDigests(found map[release.Digest]tree, r io.Reader, trees bool) error {
	outer := sha256.New()
	in := bufio.NewReader(io.TeeReader(r, outer))
	if head, _ := in.Peek(2); len(head) == 2 && head[0] == 0x1f && head[1] == 0x8b {
		if z, err := gzip.NewReader(in); err == nil {
			if sum, t, err := digest(z, trees); err == nil {
				found[sum] = t
			}
		}
	}
	_, t, err := digest(in, trees)
	if err != nil {
		return err
	}
	found[release.Digest(outer.Sum(nil))] = t
	return nil
}

// digest reads r to its end.
func digest(r io.Reader, trees bool) (sum release.Digest, t tree, err error) {
	h := sha256.New()
	in := io.TeeReader(r, h)
	if trees {
		t, _ = readTree(in) // most is no archive
	}
	_, err = io.Copy(io.Discard, in)
	return release.Digest(h.Sum(nil)), t, err
}
