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
	MaxTableRows = 2_000_000 // stored pieces, and pieces of cut blobs
	MaxPiece     = 1 << 20   // bytes of one piece of a cut blob, uncompressed
	maxTableOpen = 64 << 20  // bytes, uncompressed
	minKeyWidth  = 4
	maxKeyWidth  = 8
)

// tableMagic starts an uncompressed table.
const tableMagic = "pawl-table/1\n"

// Table knows the places of every blob of a release. Most blobs are stored as
// one piece; long ones are cut, and a piece of them may belong to several.
//
// Its file is one Zstandard frame. In it, after the magic: the number of rows
// as a varint, the width of a key as a byte, and the number of rows in each pack
// of the locator as varints. Then come columns over all rows, which are in the
// order of packs and offsets: kinds (a byte each: the codec, with rowPiece and
// rowBoth), gaps to the end of the row before (varints), lengths (varints), and
// the keys of rows that are a blob (the first bytes of its digest, as many as it
// takes to tell the blobs apart, 4 to 8). Then columns over the rows that are
// pieces: sizes (varints), and sums (the first 16 bytes of their digest). Then
// the cut blobs: their number (a varint), keys, numbers of pieces (varints), and
// for each of these which piece row it is, as the difference to the one after
// the last (varints, zigzag). Columns of like values are what the compression
// finds most in; keys are what it finds nothing in, hence their width.
type Table struct {
	rows   []tableRow // in the order of packs and offsets
	pieces []tablePiece
	refs   []uint32 // to pieces, of all cut blobs
	keys   []tableKey
	width  int
	packs  []Pack
}

type tableRow struct {
	offset, length int64
	pack           uint16
	kind           uint8
}

// tablePiece is what is known of a row that is a piece.
type tablePiece struct {
	row, size uint32
	sum       PieceSum
}

// tableKey is one blob: the row at, or refs[at:at+n] where that is not 0.
type tableKey struct {
	key   uint64
	at, n uint32
}

// tableCodecs gives the codecs their bytes in a table.
var tableCodecs = [...]Codec{Raw, Zstd}

// What a row is, beside its codec.
const (
	rowPiece = 0x10 // a piece of cut blobs
	rowBoth  = 0x20 // a piece that is a whole blob too
	rowKinds = rowPiece | rowBoth
)

// PieceSum is the first half of the digest of a piece.
type PieceSum [16]byte

// SumPiece returns the sum of a piece.
func SumPiece(data []byte) PieceSum { return Sum(data).piece() }

func (d Digest) piece() PieceSum { return PieceSum(d[:16]) }

// Piece is a part of a blob and where its stored form lies.
type Piece struct {
	Place
	Size int64 // bytes of the blob
	Sum  PieceSum
}

// key returns the first width bytes of d as a number.
func key(d Digest, width int) uint64 {
	return binary.BigEndian.Uint64(d[:8]) >> (8 * (8 - width))
}

func (t *Table) find(b Blob) (tableKey, bool) {
	i, ok := slices.BinarySearchFunc(t.keys, key(b.Digest, t.width), func(k tableKey, want uint64) int {
		return cmp.Compare(k.key, want)
	})
	if !ok {
		return tableKey{}, false
	}
	return t.keys[i], true
}

func (t *Table) place(row uint32) Place {
	r := t.rows[row]
	return Place{Pack: t.packs[r.pack].Name, Offset: r.offset, Length: r.length, Codec: tableCodecs[r.kind&^rowKinds]}
}

// Find returns the place of b where it is stored as one piece. For a blob that
// is not of the release it may return the place of another.
func (t *Table) Find(b Blob) (Place, bool) {
	k, ok := t.find(b)
	if !ok || k.n != 0 {
		return Place{}, false
	}
	return t.place(k.at), true
}

// Pieces returns what b is made of, in order: one piece, or some whose sizes
// come to that of b. For a blob that is not of the release it may return the
// piece of another.
func (t *Table) Pieces(b Blob) ([]Piece, bool) {
	k, ok := t.find(b)
	if !ok {
		return nil, false
	}
	if k.n == 0 {
		return []Piece{{t.place(k.at), b.Size, b.Digest.piece()}}, true
	}
	list := make([]Piece, 0, k.n)
	left := b.Size
	for _, ref := range t.refs[k.at : k.at+k.n] {
		p := t.pieces[ref]
		list = append(list, Piece{t.place(p.row), int64(p.size), p.sum})
		left -= int64(p.size)
	}
	return list, left == 0
}

// Len returns the number of blobs.
func (t *Table) Len() int { return len(t.keys) }

// ParseTable reads the stored table file of l, after comparing it with the
// digest that l has of it. Every place is inside its pack. Errors wrap
// [ErrInvalid] or [ErrFormat].
func ParseTable(stored []byte, l *Locator) (*Table, error) {
	if int64(len(stored)) != l.Table.Size || Sum(stored) != l.Table.Digest {
		return nil, fmt.Errorf("cannot read table: %w: %d bytes with digest %s, not %d with %s", ErrInvalid,
			len(stored), Sum(stored).Short(), l.Table.Size, l.Table.Digest.Short())
	}
	data, err := inflate(stored, maxTableOpen)
	if err != nil {
		return nil, fmt.Errorf("cannot read table: %w: %w", ErrInvalid, err)
	}
	t, err := parseTable(data, l.Packs)
	if err != nil {
		return nil, fmt.Errorf("cannot read table: %w", err)
	}
	return t, nil
}

func inflate(stored []byte, limit uint64) ([]byte, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(limit))
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
	for _, read := range []func(*columns) error{t.readPlaces, t.readKeys, t.readPieces, t.readCut} {
		if err := read(&c); err != nil {
			return nil, err
		}
	}
	if c.bad || len(c.data) != 0 {
		return nil, fmt.Errorf("%w: cut short, or %d bytes too long", ErrInvalid, len(c.data))
	}
	return t, t.sort()
}

// readPlaces reads the columns over all rows but that of the keys.
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
		kind := c.octet()
		if int(kind&^rowKinds) >= len(tableCodecs) || kind&rowKinds == rowBoth {
			return fmt.Errorf("%w: kind %#x", ErrInvalid, kind)
		}
		t.rows[i].kind = kind
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

// readKeys reads the keys of rows that are blobs and no pieces.
func (t *Table) readKeys(c *columns) error {
	n := 0
	for i := range t.rows {
		if t.rows[i].kind&rowPiece == 0 {
			n++
		}
	}
	if n*t.width > len(c.data) {
		return fmt.Errorf("%w: no room for %d keys", ErrInvalid, n)
	}
	t.keys = make([]tableKey, 0, n)
	for i := range t.rows {
		if t.rows[i].kind&rowPiece == 0 {
			t.keys = append(t.keys, tableKey{key: c.big(t.width), at: uint32(i)})
		}
	}
	return nil
}

// readPieces reads the columns over the rows that are pieces.
func (t *Table) readPieces(c *columns) error {
	n := len(t.rows) - len(t.keys)
	if n*(1+len(PieceSum{})) > len(c.data) {
		return fmt.Errorf("%w: no room for %d pieces", ErrInvalid, n)
	}
	t.pieces = make([]tablePiece, 0, n)
	for i := range t.rows {
		if t.rows[i].kind&rowPiece == 0 {
			continue
		}
		size := c.number(MaxPiece)
		if size == 0 {
			return fmt.Errorf("%w: a piece that is empty or too long", ErrInvalid)
		}
		t.pieces = append(t.pieces, tablePiece{row: uint32(i), size: uint32(size)})
	}
	for i := range t.pieces {
		p := &t.pieces[i]
		copy(p.sum[:], c.take(len(p.sum)))
		if t.rows[p.row].kind&rowBoth != 0 {
			t.keys = append(t.keys, tableKey{key: binary.BigEndian.Uint64(p.sum[:8]) >> (8 * (8 - t.width)), at: p.row})
		}
	}
	return nil
}

// readCut reads the blobs that are cut.
func (t *Table) readCut(c *columns) error {
	n := int(c.number(MaxTableRows))
	if n*(t.width+1) > len(c.data) {
		return fmt.Errorf("%w: no room for %d cut blobs", ErrInvalid, n)
	}
	first := len(t.keys)
	for range n {
		t.keys = append(t.keys, tableKey{key: c.big(t.width)})
	}
	all := int64(0)
	for i := first; i < len(t.keys); i++ {
		k := c.number(MaxTableRows)
		t.keys[i].at, t.keys[i].n = uint32(all), uint32(k)
		if all += k; k < 1 || all > MaxTableRows {
			return fmt.Errorf("%w: a blob of %d pieces, after %d", ErrInvalid, k, all-k)
		}
	}
	if all > int64(len(c.data)) {
		return fmt.Errorf("%w: no room for %d pieces of blobs", ErrInvalid, all)
	}
	t.refs = make([]uint32, all)
	next := int64(0)
	for i := range t.refs {
		next += c.difference()
		if next < 0 || next >= int64(len(t.pieces)) {
			return fmt.Errorf("%w: piece %d of %d", ErrInvalid, next, len(t.pieces))
		}
		t.refs[i] = uint32(next)
		next++
	}
	return nil
}

// sort makes Find possible and refuses a key that stands twice.
func (t *Table) sort() error {
	slices.SortFunc(t.keys, func(a, b tableKey) int { return cmp.Compare(a.key, b.key) })
	for i := 1; i < len(t.keys); i++ {
		if t.keys[i].key == t.keys[i-1].key {
			return fmt.Errorf("%w: the key %x stands twice", ErrInvalid, t.keys[i].key)
		}
	}
	return nil
}
