package release

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// Limits of a table.
const (
	MaxTable     = 32 << 20  // bytes of the stored file
	MaxTableRows = 2_000_000 // blobs
	maxTableOpen = 64 << 20  // bytes, uncompressed
	minKeyWidth  = 4
	maxKeyWidth  = 8
)

// tableMagic starts an uncompressed table.
const tableMagic = "pawl-table/0\n"

// Table knows the place of every blob of a release.
//
// Its file is one Zstandard frame. In it, after the magic: the number of rows
// as a varint, the width of a key as a byte, and the number of rows in each pack
// of the locator as varints. Then come columns over all rows, which are in the
// order of packs and offsets: codecs (a byte each), gaps to the end of the row
// before (varints), lengths (varints), keys (the first bytes of the blob's
// digest, as many as it takes to tell the rows apart, 4 to 8). Columns of like
// values are what the compression finds most in; keys are what it finds nothing
// in, hence their width.
type Table struct {
	rows  []tableRow // sorted by key
	width int
	packs []Pack
}

type tableRow struct {
	key            uint64
	offset, length int64
	pack           uint16
	codec          uint8
}

// tableCodecs gives the codecs their bytes in a table.
var tableCodecs = [...]Codec{Raw, Zstd}

// TableRow is one blob for [EncodeTable].
type TableRow struct {
	Digest         Digest
	Pack           int // which of the packs
	Offset, Length int64
	Codec          Codec
}

// key returns the first width bytes of d as a number.
func key(d Digest, width int) uint64 {
	return binary.BigEndian.Uint64(d[:8]) >> (8 * (8 - width))
}

// Find returns the place of b. For a blob that is not of the release it may
// return the place of another.
func (t *Table) Find(b Blob) (Place, bool) {
	i, ok := slices.BinarySearchFunc(t.rows, key(b.Digest, t.width), func(r tableRow, k uint64) int {
		return cmp.Compare(r.key, k)
	})
	if !ok {
		return Place{}, false
	}
	r := t.rows[i]
	return Place{Pack: t.packs[r.pack].Name, Offset: r.offset, Length: r.length, Codec: tableCodecs[r.codec]}, true
}

// Len returns the number of blobs.
func (t *Table) Len() int { return len(t.rows) }

// ParseTable reads the stored table file of l, after comparing it with the
// digest that l has of it. Every place is inside its pack. Errors wrap
// [ErrInvalid] or [ErrFormat].
func ParseTable(stored []byte, l *Locator) (*Table, error) {
	if int64(len(stored)) != l.Table.Size || Sum(stored) != l.Table.Digest {
		return nil, fmt.Errorf("cannot read table: %w: %d bytes with digest %s, not %d with %s", ErrInvalid,
			len(stored), Sum(stored).Short(), l.Table.Size, l.Table.Digest.Short())
	}
	data, err := inflate(stored)
	if err != nil {
		return nil, fmt.Errorf("cannot read table: %w: %w", ErrInvalid, err)
	}
	t, err := parseTable(data, l.Packs)
	if err != nil {
		return nil, fmt.Errorf("cannot read table: %w", err)
	}
	return t, nil
}

func inflate(stored []byte) ([]byte, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxTableOpen))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	return dec.DecodeAll(stored, nil)
}

func parseTable(data []byte, packs []Pack) (*Table, error) {
	c := columns{data: data}
	if string(c.take(len(tableMagic))) != tableMagic {
		return nil, fmt.Errorf("%w: not a %q", ErrFormat, tableMagic[:len(tableMagic)-1])
	}
	n, width := c.number(MaxTableRows), int(c.octet())
	if c.bad || width < minKeyWidth || width > maxKeyWidth || n > int64(len(c.data)) {
		return nil, fmt.Errorf("%w: %d rows with keys of %d bytes", ErrInvalid, n, width)
	}
	t := &Table{rows: make([]tableRow, n), width: width, packs: packs}
	if err := t.readPlaces(&c); err != nil {
		return nil, err
	}
	for i := range t.rows {
		var b [8]byte
		copy(b[8-width:], c.take(width))
		t.rows[i].key = binary.BigEndian.Uint64(b[:])
	}
	if c.bad || len(c.data) != 0 {
		return nil, fmt.Errorf("%w: cut short, or %d bytes too long", ErrInvalid, len(c.data))
	}
	return t, t.sort()
}

// readPlaces fills in everything but the keys.
func (t *Table) readPlaces(c *columns) error {
	rest := t.rows
	for i := range t.packs {
		n := c.number(int64(len(rest)))
		for j := range rest[:n] {
			rest[j].pack = uint16(i)
		}
		rest = rest[n:]
	}
	if len(rest) != 0 {
		return fmt.Errorf("%w: %d rows in no pack", ErrInvalid, len(rest))
	}
	for i := range t.rows {
		t.rows[i].codec = c.octet()
		if int(t.rows[i].codec) >= len(tableCodecs) {
			return fmt.Errorf("%w: codec %d", ErrInvalid, t.rows[i].codec)
		}
	}
	for i := range t.rows {
		t.rows[i].offset = c.number(MaxBlob)
	}
	end := int64(0)
	for i := range t.rows {
		r := &t.rows[i]
		if i > 0 && r.pack != t.rows[i-1].pack {
			end = 0
		}
		r.offset += end // a gap until here
		r.length = c.number(MaxBlob)
		if !inside(r.offset, r.length, t.packs[r.pack].Size) {
			return fmt.Errorf("%w: %d bytes at %d are outside of %s", ErrInvalid, r.length, r.offset, t.packs[r.pack].Name)
		}
		end = r.offset + r.length
	}
	return nil
}

// sort makes Find possible and refuses a key that stands twice.
func (t *Table) sort() error {
	slices.SortFunc(t.rows, func(a, b tableRow) int { return cmp.Compare(a.key, b.key) })
	for i := 1; i < len(t.rows); i++ {
		if t.rows[i].key == t.rows[i-1].key {
			return fmt.Errorf("%w: the key %x stands twice", ErrInvalid, t.rows[i].key)
		}
	}
	return nil
}

// columns reads the numbers of a table. After the first that is not there all
// are zero, and bad is set.
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

// EncodeTable returns the stored table file for rows, which it sorts by place.
// It is for publishers. It fails where two digests have their first 8 bytes in
// common or two places overlap.
func EncodeTable(rows []TableRow, packs int) ([]byte, error) {
	width, err := keyWidth(rows)
	if err != nil {
		return nil, fmt.Errorf("cannot make table: %w", err)
	}
	slices.SortFunc(rows, func(a, b TableRow) int {
		return cmp.Or(cmp.Compare(a.Pack, b.Pack), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Length, b.Length))
	})
	b := binary.AppendUvarint([]byte(tableMagic), uint64(len(rows)))
	b = append(b, byte(width))
	if b, err = appendPlaces(b, rows, packs); err != nil {
		return nil, fmt.Errorf("cannot make table: %w", err)
	}
	for _, r := range rows {
		b = append(b, r.Digest[:width]...)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		return nil, err
	}
	stored := enc.EncodeAll(b, nil)
	if len(b) > maxTableOpen || len(stored) > MaxTable {
		return nil, fmt.Errorf("cannot make table: %w: %d bytes (%d uncompressed) are too many", ErrInvalid, len(stored), len(b))
	}
	return stored, nil
}

// keyWidth returns how many bytes tell the digests of rows apart.
func keyWidth(rows []TableRow) (int, error) {
	if len(rows) > MaxTableRows {
		return 0, fmt.Errorf("%w: %d rows are more than %d", ErrInvalid, len(rows), MaxTableRows)
	}
	keys := make([]uint64, len(rows))
	for i, r := range rows {
		keys[i] = key(r.Digest, maxKeyWidth)
	}
	slices.Sort(keys)
	width := minKeyWidth
	for i := 1; i < len(keys); i++ {
		for width <= maxKeyWidth && keys[i]>>(8*(8-width)) == keys[i-1]>>(8*(8-width)) {
			width++
		}
		if width > maxKeyWidth {
			return 0, fmt.Errorf("%w: two blobs whose digests start with %016x", ErrInvalid, keys[i])
		}
	}
	return width, nil
}

func appendPlaces(b []byte, rows []TableRow, packs int) ([]byte, error) {
	count := make([]uint64, packs)
	for _, r := range rows {
		if r.Pack < 0 || r.Pack >= packs {
			return b, fmt.Errorf("%w: pack %d of %d", ErrInvalid, r.Pack, packs)
		}
		count[r.Pack]++
	}
	for _, n := range count {
		b = binary.AppendUvarint(b, n)
	}
	for _, r := range rows {
		i := slices.Index(tableCodecs[:], r.Codec)
		if i < 0 {
			return b, fmt.Errorf("%w: codec %q", ErrInvalid, r.Codec)
		}
		b = append(b, byte(i))
	}
	end, pack := int64(0), -1
	for _, r := range rows {
		if r.Pack != pack {
			end, pack = 0, r.Pack
		}
		if r.Offset < end || !inside(r.Offset, r.Length, MaxBlob) {
			return b, fmt.Errorf("%w: %d bytes at %d overlap or are too many", ErrInvalid, r.Length, r.Offset)
		}
		b = binary.AppendUvarint(b, uint64(r.Offset-end))
		end = r.Offset + r.Length
	}
	for _, r := range rows {
		b = binary.AppendUvarint(b, uint64(r.Length))
	}
	return b, nil
}
