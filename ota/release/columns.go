package release

import "encoding/binary"

// columns reads the numbers of a table or a delta. After the first that is not
// there all are zero, and bad is set.
type columns struct {
	data []byte
	bad  bool
}

func (c *columns) take(n int) []byte {
	if c.bad || n > len(c.data) {
		c.bad = true
		return nil
	}
	b := c.data[:n]
	c.data = c.data[n:]
	return b
}

func (c *columns) octet() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

// big reads a number of so many bytes, at most 8.
func (c *columns) big(width int) uint64 {
	var b [8]byte
	copy(b[8-width:], c.take(width))
	return binary.BigEndian.Uint64(b[:])
}

// number reads a varint from 0 to limit.
func (c *columns) number(limit int64) int64 {
	v, n := binary.Uvarint(c.data)
	if c.bad || n <= 0 || v > uint64(limit) {
		c.bad = true
		return 0
	}
	c.data = c.data[n:]
	return int64(v)
}

// difference reads a varint that may be negative.
func (c *columns) difference() int64 {
	v, n := binary.Varint(c.data)
	if c.bad || n <= 0 || v > 1<<32 || v < -1<<32 {
		c.bad = true
		return 0
	}
	c.data = c.data[n:]
	return v
}
