// Package codec turns the stored bytes of a repository back into blobs, in
// bounded memory whatever the blob weighs.
package codec

import (
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/pawl-ota/pawl/ota/release"
)

// MaxWindow is the largest window of a Zstandard frame that a reader takes, in
// bytes. It bounds what a reader holds.
const MaxWindow = 4 << 20

// NewReader returns a reader of the blob that r holds in the codec c. from is
// the blob that [release.Splice] takes pieces of, and is not used otherwise.
// The bytes are not verified, and their number is not bounded: a caller reads
// no more than the length that was signed. Close lets go of memory; it does
// not close r. An unknown codec is an error that wraps [release.ErrFormat].
func NewReader(c release.Codec, r io.Reader, from []byte) (io.ReadCloser, error) {
	switch c {
	case release.Raw:
		return io.NopCloser(r), nil
	case release.Zstd:
		return newZstd(r)
	case release.Splice:
		script, err := newZstd(r)
		if err != nil {
			return nil, err
		}
		return newSplicer(script, from), nil
	}
	return nil, fmt.Errorf("cannot decode: %w: codec %.80q", release.ErrFormat, c)
}

func newZstd(r io.Reader) (io.ReadCloser, error) {
	dec, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(MaxWindow))
	if err != nil {
		return nil, fmt.Errorf("cannot decode: %w", err)
	}
	return dec.IOReadCloser(), nil
}
