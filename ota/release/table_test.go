package release_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

func TestTable(t *testing.T) {
	stored := sampleTable(t)
	l := sampleLocator(stored)
	table, err := release.ParseTable(stored, l)
	require.NoError(t, err)
	require.Equal(t, 6, table.Len())
	for _, r := range sampleRows() {
		p, ok := table.Find(release.Blob{Digest: r.Digest})
		require.True(t, ok)
		require.Equal(t, release.Place{Pack: l.Packs[r.Pack].Name, Offset: r.Offset, Length: r.Length, Codec: r.Codec}, p)
	}
	_, ok := table.Find(blob("none"))
	require.False(t, ok)
}

func TestTableEmpty(t *testing.T) {
	stored, err := release.EncodeTable(nil, nil, 0)
	require.NoError(t, err)
	l := sampleLocator(stored)
	l.Packs = nil
	table, err := release.ParseTable(stored, l)
	require.NoError(t, err)
	_, ok := table.Find(blob("x"))
	require.False(t, ok)
}

// TestTableKeys: digests that begin alike are told apart by longer keys, up to
// 8 bytes.
func TestTableKeys(t *testing.T) {
	for same := range 9 {
		rows := sampleRows()[:2]
		rows[0].Digest = rows[1].Digest
		rows[0].Digest[same] ^= 1
		stored, err := release.EncodeTable(rows, nil, 2)
		if same == 8 {
			require.ErrorIs(t, err, release.ErrInvalid)
			continue
		}
		require.NoError(t, err)
		table, err := release.ParseTable(stored, sampleLocator(stored))
		require.NoError(t, err)
		for _, r := range rows {
			p, ok := table.Find(release.Blob{Digest: r.Digest})
			require.True(t, ok)
			require.Equal(t, r.Offset, p.Offset)
		}
	}
}

func TestTableRowsRefused(t *testing.T) {
	for name, change := range map[string]func(rows []release.TableRow){
		"pack":    func(rows []release.TableRow) { rows[0].Pack = 2 },
		"no pack": func(rows []release.TableRow) { rows[0].Pack = -1 },
		"codec":   func(rows []release.TableRow) { rows[0].Codec = release.Splice },
		"overlap": func(rows []release.TableRow) { rows[0].Length = 101 },
		"before":  func(rows []release.TableRow) { rows[0].Offset = -1 },
		"twice":   func(rows []release.TableRow) { rows[0].Digest = rows[1].Digest },
	} {
		rows := sampleRows()
		change(rows)
		_, err := release.EncodeTable(rows, nil, 2)
		require.ErrorIs(t, err, release.ErrInvalid, name)
	}
}

func squeeze(t testing.TB, data []byte) []byte {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	require.NoError(t, err)
	return enc.EncodeAll(data, nil)
}

// TestTableRefused reads tables that no publisher makes.
func TestTableRefused(t *testing.T) {
	var (
		magic = "pawl-table/1\n"
		keys  = "aaaabbbb"
		good  = magic + "\x02\x04" + "\x01\x01" + "\x00\x01" + "\x00\x05" + "\x09\x03" + keys + "\x00"
		huge  = string(binary.AppendUvarint(nil, 1<<40))
	)
	read := func(data string) error {
		stored := squeeze(t, []byte(data))
		_, err := release.ParseTable(stored, sampleLocator(stored))
		return err
	}
	require.NoError(t, read(good))
	for n := range len(good) {
		require.Error(t, read(good[:n]), "cut after %d bytes", n)
	}
	require.ErrorIs(t, read(strings.Replace(good, "/1", "/2", 1)), release.ErrFormat)
	for name, bad := range map[string]string{
		"something after": good + "x",
		"rows":            magic + huge + "\x04",
		"key too narrow":  strings.Replace(good, "\x02\x04", "\x02\x03", 1),
		"key too wide":    strings.Replace(good, "\x02\x04", "\x02\x09", 1),
		"rows in no pack": strings.Replace(good, "\x04\x01\x01", "\x04\x01\x00", 1),
		"more in packs":   strings.Replace(good, "\x04\x01\x01", "\x04\x01\x02", 1),
		"codec":           strings.Replace(good, "\x01\x01\x00\x01", "\x01\x01\x00\x02", 1),
		"outside":         magic + "\x02\x04\x01\x01\x00\x00\x00\x00" + "\x09\xc9\x01" + keys,
		"far outside":     magic + "\x02\x04\x01\x01\x00\x00\x00" + huge + "\x09" + huge + keys,
		"key twice":       strings.Replace(good, keys, "aaaaaaaa", 1),
	} {
		require.ErrorIs(t, read(bad), release.ErrInvalid, name)
	}
	err := read(magic + "\x02\x04" + strings.Repeat("\x00", 65<<20))
	require.ErrorIs(t, err, zstd.ErrDecoderSizeExceeded)
	require.ErrorIs(t, err, release.ErrInvalid)

	stored := squeeze(t, []byte(good))
	l := sampleLocator(stored)
	_, err = release.ParseTable(append(stored, 0), l)
	require.ErrorIs(t, err, release.ErrInvalid)
	other := squeeze(t, []byte(strings.Replace(good, keys, "ccccdddd", 1)))
	require.Len(t, other, len(stored))
	_, err = release.ParseTable(other, l)
	require.ErrorIs(t, err, release.ErrInvalid, "a table that was not signed")
	stored[len(stored)/2] ^= 1
	_, err = release.ParseTable(stored, l)
	require.ErrorIs(t, err, release.ErrInvalid)
}

// TestTableSize states what a table of 6,000 blobs costs to fetch.
func TestTableSize(t *testing.T) {
	var rows []release.TableRow
	offset := int64(0)
	for i := range 6000 {
		n := int64(200 + i*7919%9000)
		rows = append(rows, release.TableRow{Digest: sum(fmt.Sprint(i)), Pack: i / 5950, Offset: offset, Length: n, Codec: release.Zstd})
		offset += n
	}
	stored, err := release.EncodeTable(rows, nil, 2)
	require.NoError(t, err)
	t.Logf("%d blobs: %d bytes, %.2f each", len(rows), len(stored), float64(len(stored))/float64(len(rows)))
	require.Less(t, len(stored), 6000*7)
}

// smallTable has two blobs; cutTable has one, and one that is cut into that and a
// piece.
const (
	smallTable = "pawl-table/1\n" + "\x02\x04" + "\x01\x01" + "\x00\x01" + "\x00\x05" + "\x09\x03" + "aaaabbbb" + "\x00"
	cutTable   = "pawl-table/1\n" + "\x02\x04" + "\x01\x01" + "\x30\x11" + "\x00\x05" + "\x09\x03" +
		"\x09\x04" + "aaaaAAAAAAAAAAAAbbbbBBBBBBBBBBBB" + "\x01" + "cccc" + "\x03" + "\x00\x00\x03"
)

// cutBlob is the blob that c is.
func cutBlob(c release.TableCut) release.Blob {
	b := release.Blob{Digest: c.Digest}
	for _, p := range c.Pieces {
		b.Size += p.Size
	}
	return b
}

func TestTableCut(t *testing.T) {
	stored := sampleTable(t)
	l := sampleLocator(stored)
	table, err := release.ParseTable(stored, l)
	require.NoError(t, err)
	for _, c := range sampleCut() {
		_, ok := table.Find(cutBlob(c))
		require.False(t, ok)
		got, ok := table.Pieces(cutBlob(c))
		require.True(t, ok)
		for i, want := range c.Pieces {
			require.Equal(t, release.Piece{
				Place: release.Place{Pack: l.Packs[want.Pack].Name, Offset: want.Offset, Length: want.Length, Codec: want.Codec},
				Size:  want.Size, Sum: release.PieceSum(want.Digest[:16]),
			}, got[i])
		}
		other := cutBlob(c)
		other.Size++
		_, ok = table.Pieces(other)
		require.False(t, ok, "sizes that do not come to that of the blob")
	}
	for _, r := range sampleRows() {
		b := release.Blob{Digest: r.Digest, Size: 3}
		place, ok := table.Find(b)
		require.True(t, ok)
		got, ok := table.Pieces(b)
		require.True(t, ok)
		require.Equal(t, []release.Piece{{Place: place, Size: 3, Sum: release.PieceSum(r.Digest[:16])}}, got)
	}
	_, ok := table.Pieces(blob("none"))
	require.False(t, ok)
	require.Equal(t, func() release.PieceSum { d := sum("x"); return release.PieceSum(d[:16]) }(), release.SumPiece([]byte("x")))
}

// TestTableContents makes a table of what another holds.
func TestTableContents(t *testing.T) {
	stored := sampleTable(t)
	l := sampleLocator(stored)
	table, err := release.ParseTable(stored, l)
	require.NoError(t, err)
	whole, cut := table.Contents()
	require.Len(t, whole, len(sampleRows()))
	require.Len(t, cut, len(sampleCut()))
	again, err := release.EncodeTable(whole, cut, 2)
	require.NoError(t, err)
	l.Table = release.Blob{Digest: release.Sum(again), Size: int64(len(again))}
	same, err := release.ParseTable(again, l)
	require.NoError(t, err)
	for _, r := range sampleRows() {
		want, _ := table.Find(release.Blob{Digest: r.Digest})
		got, ok := same.Find(release.Blob{Digest: r.Digest})
		require.True(t, ok)
		require.Equal(t, want, got)
	}
	for _, c := range sampleCut() {
		want, _ := table.Pieces(cutBlob(c))
		got, ok := same.Pieces(cutBlob(c))
		require.True(t, ok)
		require.Equal(t, want, got)
	}
}

func TestTableCutRefused(t *testing.T) {
	for name, change := range map[string]func(cut []release.TableCut){
		"no pieces":     func(cut []release.TableCut) { cut[0].Pieces = nil },
		"empty piece":   func(cut []release.TableCut) { cut[0].Pieces[1].Size = 0 },
		"long piece":    func(cut []release.TableCut) { cut[0].Pieces[1].Size = release.MaxPiece + 1 },
		"other size":    func(cut []release.TableCut) { cut[0].Pieces[1].Size++ },
		"other digest":  func(cut []release.TableCut) { cut[0].Pieces[2].Digest = sum("x") },
		"other codec":   func(cut []release.TableCut) { cut[0].Pieces[1].Codec = release.Raw },
		"blob twice":    func(cut []release.TableCut) { cut[0].Digest = cut[1].Digest },
		"blob is whole": func(cut []release.TableCut) { cut[0].Digest = sum("index") },
		"overlap":       func(cut []release.TableCut) { cut[0].Pieces[3].Offset-- },
	} {
		cut := sampleCut()
		change(cut)
		_, err := release.EncodeTable(sampleRows(), cut, 2)
		require.ErrorIs(t, err, release.ErrInvalid, name)
	}
}

// TestCutTableRefused reads tables with pieces that no publisher makes.
func TestCutTableRefused(t *testing.T) {
	read := func(data string) error {
		stored := squeeze(t, []byte(data))
		_, err := release.ParseTable(stored, sampleLocator(stored))
		return err
	}
	require.NoError(t, read(cutTable))
	for n := range len(cutTable) {
		require.Error(t, read(cutTable[:n]), "cut after %d bytes", n)
	}
	huge := string(binary.AppendUvarint(nil, 1<<40))
	for name, swap := range map[string][2]string{
		"whole without piece":  {"\x30\x11", "\x20\x11"},
		"unknown kind":         {"\x30\x11", "\x70\x11"},
		"piece of no bytes":    {"\x09\x04aaaa", "\x00\x04aaaa"},
		"piece too long":       {"\x09\x04aaaa", huge + "\x04aaaa"},
		"sums not there":       {"aaaaAAAAAAAAAAAAbbbbBBBBBBBBBBBB\x01cccc\x03\x00\x00\x03", "aaaa"},
		"many cut blobs":       {"\x01cccc", huge + "cccc"},
		"cut blobs not there":  {"\x01cccc", "\x7fcccc"},
		"no pieces":            {"cccc\x03\x00\x00\x03", "cccc\x00"},
		"many pieces":          {"cccc\x03", "cccc" + huge},
		"pieces not there":     {"cccc\x03", "cccc\x04"},
		"piece outside":        {"\x03\x00\x00\x03", "\x03\x00\x00\x00"},
		"piece before":         {"\x03\x00\x00\x03", "\x03\x00\x00\x05"},
		"piece far outside":    {"\x03\x00\x00\x03", "\x03\x00\x00" + huge},
		"cut is a whole blob":  {"cccc", "aaaa"},
		"something after that": {"\x00\x00\x03", "\x00\x00\x03\x00"},
	} {
		bad := strings.Replace(cutTable, swap[0], swap[1], 1)
		require.NotEqual(t, cutTable, bad, name)
		require.ErrorIs(t, read(bad), release.ErrInvalid, name)
	}
	require.NoError(t, read(smallTable))
	require.ErrorIs(t, read(strings.Replace(smallTable, "\x01\x01\x00\x01", "\x01\x01\x20\x01", 1)), release.ErrInvalid, "whole, and no piece")
}
