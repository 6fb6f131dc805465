package ota

import (
	"errors"
	"fmt"
	"io"

	"github.com/pawl-ota/pawl/internal/codec"
	"github.com/pawl-ota/pawl/ota/release"
)

// decoder decodes short pieces whole, into memory that it keeps.
type decoder struct {
	codec codec.Decoder
	buf   []byte
}

// room returns n bytes, valid until it is called again.
func (d *decoder) room(n int64) []byte {
	if int64(cap(d.buf)) < n {
		d.buf = make([]byte, n)
	}
	return d.buf[:n]
}

// whole returns the size bytes that stored holds, valid until the next call of
// a method. Why stored ended too early goes before what the decoder makes of
// that.
func (d *decoder) whole(stored *intakeReader, c release.Codec, size int64) ([]byte, error) {
	defer func() { _ = stored.Close() }()
	r, err := d.codec.Reader(c, stored)
	if err != nil {
		return nil, err
	}
	data := d.room(size + 1)
	n, err := io.ReadFull(r, data)
	switch {
	case stored.err != nil && !errors.Is(stored.err, io.EOF):
		return nil, stored.err
	case err == nil || int64(n) != size:
		return nil, fmt.Errorf("a piece: %w: %d of %d bytes", ErrLength, n, size)
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, err
	}
	return data[:size], nil
}
