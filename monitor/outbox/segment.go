package outbox

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
	"time"
)

// A segment is one header line and blocks behind it:
//
//	pawl-outbox/0 CLASS TAG SECONDS TRUSTED SUM
//
// CLASS is r (results) or m (metrics). TAG is random: with the number of an event
// it is the event's id. SECONDS is the wall clock when the file was made, and
// TRUSTED is 1 where that could be trusted. SUM is the CRC-32C of the line before
// it, in hexadecimal.
//
// A block has a head of 32 bytes, little endian, and then stored bytes:
//
//	0  CRC-32C of the rest of the head      16  number of the first event
//	4  CRC-32C of the stored bytes          24  how many events
//	8  length of the stored bytes           28  codec: 0 as they are, 1 deflate
//	12 length before compression
//
// Before compression events lie one behind the other: length of the key, key,
// length of the data, data; lengths are varints. A block is written by one write
// and persisted before anything of it is sent.
const (
	magic     = "pawl-outbox/"
	format    = "0"
	tagLength = 16
	maxHeader = 96
	headSize  = 32

	maxBlock  = 1 << 20 // bytes of a block, stored and before compression
	maxData   = 256 << 10
	maxKey    = 256
	maxEvents = 1 << 16

	codecRaw     = 0
	codecDeflate = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errDamaged = errors.New("damaged")

// class tells results from metrics.
type class int

const (
	results class = iota
	metrics
	classes
)

func (c class) letter() string { return string("rm"[c]) }
func (c class) folder() string { return [classes]string{"results", "metrics"}[c] }

// header is the first line of a segment.
type header struct {
	class   class
	tag     string
	made    time.Time
	trusted bool
}

func (h header) encode() []byte {
	trusted := 0
	if h.trusted {
		trusted = 1
	}
	text := fmt.Sprintf("%s%s %s %s %d %d", magic, format, h.class.letter(), h.tag, h.made.Unix(), trusted)
	return fmt.Appendf(nil, "%s %08x\n", text, crc32.Checksum([]byte(text), castagnoli))
}

// decodeHeader returns the header and its length. The sum stands last in every
// format, so that a line of the future is told from a damaged one.
func decodeHeader(data []byte) (h header, n int, err error) {
	n = bytes.IndexByte(data[:min(len(data), maxHeader)], '\n') + 1
	if n == 0 {
		return h, 0, fmt.Errorf("%w: no header", errDamaged)
	}
	text := string(data[:n-1])
	at := strings.LastIndexByte(text, ' ')
	if at < 0 || !strings.HasPrefix(text, magic) || text[at+1:] != fmt.Sprintf("%08x", crc32.Checksum([]byte(text[:at]), castagnoli)) {
		return h, 0, fmt.Errorf("%w: the header has the wrong sum", errDamaged)
	}
	words := strings.Split(text[len(magic):at], " ")
	if words[0] != format {
		return h, 0, fmt.Errorf("%w: format %.20q", ErrFormat, words[0])
	}
	if len(words) != 5 {
		return h, 0, fmt.Errorf("%w: the header has %d words", errDamaged, len(words))
	}
	h.class = class(strings.Index("rm", words[1]))
	seconds, err := strconv.ParseInt(words[3], 10, 64)
	if err != nil || len(words[1]) != 1 || h.class < 0 || !isTag(words[2]) || words[4] != "0" && words[4] != "1" {
		return h, 0, fmt.Errorf("%w: the header %.80q", errDamaged, text)
	}
	h.tag, h.made, h.trusted = words[2], time.Unix(seconds, 0).UTC(), words[4] == "1"
	return h, n, nil
}

func isTag(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == tagLength
}

// record is one event as it is kept.
type record struct {
	key  string
	data []byte
}

func (r record) size() int { return len(r.key) + len(r.data) + 8 }

// encodeBlock makes a block of events, the first of which has the number first.
func encodeBlock(first uint64, events []record) ([]byte, error) {
	var raw []byte
	for _, r := range events {
		raw = binary.AppendUvarint(raw, uint64(len(r.key)))
		raw = append(raw, r.key...)
		raw = binary.AppendUvarint(raw, uint64(len(r.data)))
		raw = append(raw, r.data...)
	}
	if len(raw) > maxBlock || len(events) > maxEvents || len(events) == 0 {
		return nil, fmt.Errorf("a block of %d events and %d bytes", len(events), len(raw))
	}
	stored, codec, err := pack(raw)
	if err != nil {
		return nil, err
	}
	b := make([]byte, headSize, headSize+len(stored))
	le := binary.LittleEndian
	le.PutUint32(b[4:], crc32.Checksum(stored, castagnoli))
	le.PutUint32(b[8:], uint32(len(stored)))
	le.PutUint32(b[12:], uint32(len(raw)))
	le.PutUint64(b[16:], first)
	le.PutUint32(b[24:], uint32(len(events)))
	le.PutUint32(b[28:], codec)
	le.PutUint32(b, crc32.Checksum(b[4:headSize], castagnoli))
	return append(b, stored...), nil
}

// smallBlock is what compression gains nothing on.
const smallBlock = 1 << 10

func pack(raw []byte) (stored []byte, codec uint32, err error) {
	if len(raw) < smallBlock {
		return raw, codecRaw, nil
	}
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	if err == nil {
		_, err = w.Write(raw)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil || out.Len() >= len(raw) {
		return raw, codecRaw, err
	}
	return out.Bytes(), codecDeflate, nil
}

// block is the head of one.
type block struct {
	first  uint64
	count  uint64
	raw    int
	codec  uint32
	stored []byte
	whole  bool // the stored bytes have their sum
}

func (b *block) last() uint64 { return b.first + b.count - 1 }

// decodeBlock returns the block that data begins with, and its length.
func decodeBlock(data []byte) (b block, n int, err error) {
	if len(data) < headSize {
		return b, 0, fmt.Errorf("%w: half a head", errDamaged)
	}
	le := binary.LittleEndian
	if le.Uint32(data) != crc32.Checksum(data[4:headSize], castagnoli) {
		return b, 0, fmt.Errorf("%w: a head has the wrong sum", errDamaged)
	}
	size, raw := int64(le.Uint32(data[8:])), int64(le.Uint32(data[12:]))
	b = block{first: le.Uint64(data[16:]), count: uint64(le.Uint32(data[24:])), raw: int(raw), codec: le.Uint32(data[28:])}
	switch {
	case size > maxBlock || raw > maxBlock || b.count == 0 || b.count > maxEvents || b.first == 0 || b.last() < b.first || b.codec > codecDeflate:
		return b, 0, fmt.Errorf("%w: the head of a block is out of bounds", errDamaged)
	case int64(len(data)) < headSize+size:
		return b, 0, fmt.Errorf("%w: half a block", errDamaged)
	}
	b.stored = data[headSize : headSize+size]
	b.whole = le.Uint32(data[4:]) == crc32.Checksum(b.stored, castagnoli)
	return b, headSize + int(size), nil
}

// events returns what is in the block.
func (b *block) events() ([]record, error) {
	raw := b.stored
	if b.codec == codecDeflate {
		var err error
		raw, err = io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b.stored)), int64(b.raw)+1))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	if len(raw) != b.raw || !b.whole {
		return nil, fmt.Errorf("%w: a block has the wrong length or sum", errDamaged)
	}
	events := make([]record, 0, min(b.count, uint64(len(raw)/2+1)))
	for range b.count {
		key, rest, ok1 := field(raw, maxKey)
		data, rest, ok2 := field(rest, maxData)
		if !ok1 || !ok2 {
			return nil, fmt.Errorf("%w: half an event", errDamaged)
		}
		events, raw = append(events, record{string(key), data}), rest
	}
	if len(raw) > 0 {
		return nil, fmt.Errorf("%w: %d bytes after the last event", errDamaged, len(raw))
	}
	return events, nil
}

// field takes one length and its bytes off the front of data.
func field(data []byte, max uint64) (value, rest []byte, ok bool) {
	n, used := binary.Uvarint(data)
	if used <= 0 || n > max || n > uint64(len(data)-used) {
		return nil, nil, false
	}
	return data[used : used+int(n)], data[used+int(n):], true
}

// content is a segment as it was read.
type content struct {
	header
	blocks []block // in rising order; of one in the middle the bytes may be damaged
	good   int64   // length up to the end of the last whole block
}

// decodeSegment reads a whole file. What follows the last whole block is what a
// power cut left, or damage. An error says that nothing of it can be used.
func decodeSegment(data []byte) (*content, error) {
	h, at, err := decodeHeader(data)
	if err != nil {
		return nil, err
	}
	c := &content{header: h, good: int64(at)}
	whole := 0
	for last := uint64(0); ; {
		b, n, err := decodeBlock(data[at:])
		if err != nil || b.first <= last {
			break
		}
		at, last = at+n, b.last()
		c.blocks = append(c.blocks, b)
		if b.whole {
			whole, c.good = len(c.blocks), int64(at)
		}
	}
	c.blocks = c.blocks[:whole]
	return c, nil
}
