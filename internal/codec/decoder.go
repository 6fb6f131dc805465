package codec

import (
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/pawl-ota/pawl/ota/release"
)

// Decoder decodes one stored form after the other and keeps its memory between
// them: for many small ones. Its zero value is ready. It is for one goroutine.
type Decoder struct{ dec *zstd.Decoder }

// Reader is [NewReader] without [release.Splice]. What it returns is valid until
// it is called again, and has no Close.
func (d *Decoder) Reader(c release.Codec, r io.Reader) (io.Reader, error) {
	switch {
	case c == release.Raw:
		return r, nil
	case c != release.Zstd:
		return nil, fmt.Errorf("cannot decode: %w: codec %.80q", release.ErrFormat, c)
	case d.dec != nil:
		return d.dec, d.dec.Reset(r)
	}
	dec, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(MaxWindow))
	if err != nil {
		return nil, fmt.Errorf("cannot decode: %w", err)
	}
	d.dec = dec
	return dec, nil
}
