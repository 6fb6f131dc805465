// Package chunk cuts blobs into pieces at places that their content chooses, so
// that a change in a blob changes the pieces around it and no others. Publisher
// and device cut alike: the places are part of the format of a repository and
// never change.
//
// The method is FastCDC (Xia and others, "FastCDC: a Fast and Efficient
// Content-Defined Chunking Approach for Data Deduplication", 2016): a rolling
// sum of a random number for each byte (a gear), of which some bits are zero
// where a piece ends, more of them before the usual length and fewer behind it.
package chunk

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
)

// The lengths of pieces in bytes. No piece is longer than Max, and only the
// last one of a blob is shorter than Min. Most are near Normal. A blob shorter
// than Whole is one piece.
const (
	Min    = 16 << 10
	Normal = 64 << 10
	Max    = 256 << 10
	Whole  = 128 << 10
)

// The bits of the sum that are zero where a piece ends: two more than what
// cuts at Normal on average before it, two fewer behind it. They are the upper
// ones, which every one of the last 46 bytes and more had its part in.
const (
	before = uint64(1<<18-1) << 46
	behind = uint64(1<<14-1) << 50
)

// Cutter cuts what it reads into pieces. It holds Max bytes and the gear, and
// is for one goroutine.
type Cutter struct {
	r        io.Reader
	buf      []byte // what was read and not cut off is buf[from:to]
	from, to int
	started  bool
	err      error // of the reader, io.EOF too
	gear     [256]uint64
}

// NewCutter returns a Cutter of the blob that r reads.
func NewCutter(r io.Reader) *Cutter {
	return &Cutter{r: r, gear: gear()}
}

// Reset begins with another blob, and keeps the memory.
func (c *Cutter) Reset(r io.Reader) {
	c.r, c.from, c.to, c.started, c.err = r, 0, 0, false, nil
}

// gear gives the number of each byte: eight bytes, big endian, of the SHA-256
// sums of the numbers from 0 to 63, each written as one byte.
func gear() (g [256]uint64) {
	for i := range 64 {
		sum := sha256.Sum256([]byte{byte(i)})
		for j := range 4 {
			g[4*i+j] = binary.BigEndian.Uint64(sum[8*j:])
		}
	}
	return g
}

// Next returns the next piece, which is valid until Next is called again, and
// io.EOF after the last one. An empty blob has no piece. Any other error is the
// reader's.
func (c *Cutter) Next() ([]byte, error) {
	if err := c.fill(); err != nil {
		return nil, err
	}
	rest := c.buf[c.from:c.to]
	if len(rest) == 0 {
		return nil, io.EOF
	}
	n := len(rest)
	if c.started || n >= Whole {
		n = c.cut(rest)
	}
	c.started = true
	c.from += n
	return rest[:n:n], nil
}

// fill reads until a whole piece is there.
func (c *Cutter) fill() error {
	if c.buf == nil {
		c.buf = make([]byte, 2*Max)
	}
	if c.to-c.from >= Max || c.err == io.EOF {
		return nil
	}
	if c.err != nil {
		return c.err
	}
	c.to = copy(c.buf, c.buf[c.from:c.to])
	c.from = 0
	for idle := 0; c.to < Max && c.err == nil; {
		n, err := c.r.Read(c.buf[c.to:])
		c.to, c.err = c.to+n, err
		if idle++; n > 0 {
			idle = 0
		}
		if idle > 100 {
			c.err = io.ErrNoProgress
		}
	}
	if c.err == io.EOF {
		return nil
	}
	return c.err
}

// cut returns the length of the first piece of data.
func (c *Cutter) cut(data []byte) int {
	if len(data) <= Min {
		return len(data)
	}
	data = data[:min(len(data), Max)]
	normal := min(len(data), Normal)
	var sum uint64
	gear := &c.gear
	for i, b := range data[Min:normal] {
		sum = sum<<1 + gear[b]
		if sum&before == 0 {
			return Min + i + 1
		}
	}
	for i, b := range data[normal:] {
		sum = sum<<1 + gear[b]
		if sum&behind == 0 {
			return normal + i + 1
		}
	}
	return len(data)
}
