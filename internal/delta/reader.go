package delta

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Reader reads a group. It is for one goroutine.
type Reader struct {
	dec   *zstd.Decoder
	r     *bufio.Reader
	rest  io.Reader
	extra int64
}

// NewReader returns a Reader of the group that r holds.
func NewReader(r io.Reader) (*Reader, error) {
	dec, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(4<<20))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return &Reader{dec: dec, r: bufio.NewReader(dec)}, nil
}

// Next returns a reader of the next patch's blob and the blob's length. The
// blob before it need not have been read to its end. old is the blob that the
// patch was made from, and is read in place; it may be nil where oldSize is 0.
// What is read is not verified: a caller compares its digest. After ErrOld the
// patch is behind: the next call is about the one after it. After the last
// patch Next returns io.EOF.
func (d *Reader) Next(old io.ReaderAt, oldSize int64) (io.Reader, int64, error) {
	return d.next(old, oldSize, false)
}

func (d *Reader) next(old io.ReaderAt, oldSize int64, skip bool) (io.Reader, int64, error) {
	if err := d.skipRest(); err != nil {
		return nil, 0, err
	}
	var h [3]uint64
	for i := range h {
		var err error
		if h[i], err = binary.ReadUvarint(d.r); err != nil {
			if i == 0 && err == io.EOF {
				return nil, 0, io.EOF
			}
			return nil, 0, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	d.extra = int64(h[2])
	if skip {
		return nil, 0, nil
	}
	if h[0] != uint64(oldSize) {
		return nil, 0, ErrOld
	}
	lr := io.LimitReader(d.r, d.extra)
	d.rest = lr
	return io.MultiReader(io.NewSectionReader(old, 0, int64(h[1])), lr), int64(h[1] + h[2]), nil
}

func (d *Reader) skipRest() error {
	if d.rest != nil {
		_, err := io.Copy(io.Discard, d.rest)
		d.rest = nil
		return err
	}
	return nil
}

// Skip goes past the next patch, without its old blob.
func (d *Reader) Skip() error {
	if _, _, err := d.next(nil, 0, true); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, d.r, d.extra)
	return err
}

// Close lets go of memory.
func (d *Reader) Close() error { d.dec.Close(); return nil }
