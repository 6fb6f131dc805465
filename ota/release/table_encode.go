package release

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// TableRow is one stored piece for [EncodeTable].
type TableRow struct {
	Digest         Digest // of the piece, or of the blob where it is the whole of one; its first 16 bytes count
	Pack           int    // which of the packs
	Offset, Length int64
	Codec          Codec
	Size           int64 // uncompressed; counts for pieces of a cut blob only
}

// TableCut is a blob that is stored in pieces, for [EncodeTable].
type TableCut struct {
	Digest Digest
	Pieces []TableRow // in their order in the blob
}

// EncodeTable returns the stored table file for the blobs that are one stored
// piece each and those that are cut. It is for publishers. It fails where the
// digests of two blobs have their first 8 bytes in common or two places overlap.
func EncodeTable(whole []TableRow, cut []TableCut, packs int) ([]byte, error) {
	e := &tableEncoder{at: map[tableSpot]int{}}
	b, err := e.encode(whole, cut, packs)
	if err != nil {
		return nil, fmt.Errorf("cannot make table: %w", err)
	}
	stored, err := deflate(b)
	if err == nil && (len(b) > maxTableOpen || len(stored) > MaxTable) {
		err = fmt.Errorf("cannot make table: %w: %d bytes (%d uncompressed) are too many", ErrInvalid, len(stored), len(b))
	}
	return stored, err
}

func deflate(data []byte) ([]byte, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		return nil, err
	}
	return enc.EncodeAll(data, nil), enc.Close()
}

// Contents returns what [EncodeTable] made t of, in the order of the places: the
// same table comes of it. Of each digest it has what a table holds of it, the
// first bytes; the others are zero. It is for publishers that move content.
func (t *Table) Contents() (whole []TableRow, cut []TableCut) {
	row := func(i uint32) TableRow {
		r := t.rows[i]
		return TableRow{Pack: int(r.pack), Offset: r.offset, Length: r.length, Codec: tableCodecs[r.kind&^rowKinds]}
	}
	piece := func(p tablePiece) TableRow {
		r := row(p.row)
		r.Size = int64(p.size)
		copy(r.Digest[:], p.sum[:])
		return r
	}
	both := map[uint32]tablePiece{}
	for _, p := range t.pieces {
		both[p.row] = p
	}
	for _, k := range t.keys {
		digest := Digest{}
		binary.BigEndian.PutUint64(digest[:], k.key<<(8*(8-t.width)))
		if k.n == 0 {
			r := row(k.at)
			if r.Digest = digest; t.rows[k.at].kind&rowBoth != 0 {
				r = piece(both[k.at])
			}
			whole = append(whole, r)
			continue
		}
		c := TableCut{Digest: digest}
		for _, ref := range t.refs[k.at : k.at+k.n] {
			c.Pieces = append(c.Pieces, piece(t.pieces[ref]))
		}
		cut = append(cut, c)
	}
	slices.SortFunc(whole, func(a, b TableRow) int {
		return cmp.Or(cmp.Compare(a.Pack, b.Pack), cmp.Compare(a.Offset, b.Offset))
	})
	return whole, cut
}

// tableEncoder joins what whole blobs and pieces of cut ones share.
type tableEncoder struct {
	rows []encodedRow
	at   map[tableSpot]int // in rows, until they are sorted: then its ordinal among pieces
	b    []byte
}

type encodedRow struct {
	TableRow
	blob, piece bool
}

type tableSpot struct {
	pack           int
	offset, length int64
}

func (r *TableRow) spot() tableSpot { return tableSpot{r.Pack, r.Offset, r.Length} }

func (e *tableEncoder) encode(whole []TableRow, cut []TableCut, packs int) ([]byte, error) {
	for _, r := range whole {
		if err := e.add(r, false); err != nil {
			return nil, err
		}
	}
	for _, c := range cut {
		if len(c.Pieces) == 0 {
			return nil, fmt.Errorf("%w: blob %s has no pieces", ErrInvalid, c.Digest.Short())
		}
		for _, r := range c.Pieces {
			if err := e.add(r, true); err != nil {
				return nil, err
			}
		}
	}
	slices.SortFunc(e.rows, func(a, b encodedRow) int {
		return cmp.Or(cmp.Compare(a.Pack, b.Pack), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Length, b.Length))
	})
	width, err := e.keyWidth(cut)
	if err != nil {
		return nil, err
	}
	e.b = binary.AppendUvarint([]byte(tableMagic), uint64(len(e.rows)))
	e.b = append(e.b, byte(width))
	if err := e.places(packs); err != nil {
		return nil, err
	}
	e.contents(width)
	return e.b, e.cut(cut, width)
}

// add adds a row, or says of one that is there that it is this too.
func (e *tableEncoder) add(r TableRow, piece bool) error {
	if piece && (r.Size < 1 || r.Size > MaxPiece) {
		return fmt.Errorf("%w: a piece of %d bytes", ErrInvalid, r.Size)
	}
	i, ok := e.at[r.spot()]
	if !ok {
		i = len(e.rows)
		e.at[r.spot()] = i
		e.rows = append(e.rows, encodedRow{TableRow: r})
	}
	row := &e.rows[i]
	if row.Digest.piece() != r.Digest.piece() || row.Codec != r.Codec || row.blob && !piece || row.piece && piece && row.Size != r.Size {
		return fmt.Errorf("%w: two things at %d of pack %d", ErrInvalid, r.Offset, r.Pack)
	}
	if piece {
		row.piece, row.Size = true, r.Size
	} else {
		row.blob = true
	}
	return nil
}

// keyWidth returns how many bytes tell the digests of blobs apart.
func (e *tableEncoder) keyWidth(cut []TableCut) (int, error) {
	if len(e.rows) > MaxTableRows {
		return 0, fmt.Errorf("%w: %d rows are more than %d", ErrInvalid, len(e.rows), MaxTableRows)
	}
	var keys []uint64
	for i := range e.rows {
		if e.rows[i].blob {
			keys = append(keys, key(e.rows[i].Digest, maxKeyWidth))
		}
	}
	for _, c := range cut {
		keys = append(keys, key(c.Digest, maxKeyWidth))
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

// places appends what readPlaces reads.
func (e *tableEncoder) places(packs int) error {
	count := make([]uint64, packs)
	for i := range e.rows {
		if e.rows[i].Pack < 0 || e.rows[i].Pack >= packs {
			return fmt.Errorf("%w: pack %d of %d", ErrInvalid, e.rows[i].Pack, packs)
		}
		count[e.rows[i].Pack]++
	}
	for _, n := range count {
		e.number(n)
	}
	for i := range e.rows {
		r := &e.rows[i]
		kind := slices.Index(tableCodecs[:], r.Codec)
		if kind < 0 {
			return fmt.Errorf("%w: codec %q", ErrInvalid, r.Codec)
		}
		if r.piece {
			kind |= rowPiece
			if r.blob {
				kind |= rowBoth
			}
		}
		e.b = append(e.b, byte(kind))
	}
	end, pack := int64(0), -1
	for i := range e.rows {
		r := &e.rows[i]
		if r.Pack != pack {
			end, pack = 0, r.Pack
		}
		if r.Offset < end || !inside(r.Offset, r.Length, MaxBlob) {
			return fmt.Errorf("%w: %d bytes at %d overlap or are too many", ErrInvalid, r.Length, r.Offset)
		}
		e.number(uint64(r.Offset - end))
		end = r.Offset + r.Length
	}
	for i := range e.rows {
		e.number(uint64(e.rows[i].Length))
	}
	return nil
}

// contents appends what readKeys and readPieces read.
func (e *tableEncoder) contents(width int) {
	n := 0
	for i := range e.rows {
		r := &e.rows[i]
		if !r.piece {
			e.b = append(e.b, r.Digest[:width]...)
			continue
		}
		e.at[r.spot()] = n
		n++
	}
	for i := range e.rows {
		if e.rows[i].piece {
			e.number(uint64(e.rows[i].Size))
		}
	}
	for i := range e.rows {
		if e.rows[i].piece {
			sum := e.rows[i].Digest.piece()
			e.b = append(e.b, sum[:]...)
		}
	}
}

// cut appends what readCut reads.
func (e *tableEncoder) cut(cut []TableCut, width int) error {
	e.number(uint64(len(cut)))
	for _, c := range cut {
		e.b = append(e.b, c.Digest[:width]...)
	}
	all := 0
	for _, c := range cut {
		e.number(uint64(len(c.Pieces)))
		all += len(c.Pieces)
	}
	if all > MaxTableRows {
		return fmt.Errorf("%w: %d pieces of blobs are more than %d", ErrInvalid, all, MaxTableRows)
	}
	next := 0
	for _, c := range cut {
		for i := range c.Pieces {
			at := e.at[c.Pieces[i].spot()]
			e.b = binary.AppendVarint(e.b, int64(at-next))
			next = at + 1
		}
	}
	return nil
}

func (e *tableEncoder) number(n uint64) { e.b = binary.AppendUvarint(e.b, n) }
