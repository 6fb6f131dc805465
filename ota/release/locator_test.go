package release_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

func sampleTable(t testing.TB) []byte {
	table, err := release.EncodeTable(sampleRows(), 2)
	require.NoError(t, err)
	return table
}

func TestLocatorRoundTrip(t *testing.T) {
	l := sampleLocator(sampleTable(t))
	data, err := l.Encode()
	require.NoError(t, err)
	got, err := release.ParseLocator(data)
	require.NoError(t, err)
	require.Equal(t, l, got)
	for _, bad := range []string{"", "{}\n", string(data) + " ", strings.Replace(string(data), `"seq":7`, `"seq":7,"x":1`, 1)} {
		_, err := release.ParseLocator([]byte(bad))
		require.Error(t, err)
	}
	d, err := l.Packs[0].Digest()
	require.NoError(t, err)
	require.Equal(t, sum("pack 0"), d)
}

func TestLocatorRules(t *testing.T) {
	for name, broken := range map[string]struct {
		change func(l *release.Locator)
		want   error
	}{
		"format":             {func(l *release.Locator) { l.Format = "pawl-locator/1" }, release.ErrFormat},
		"id":                 {func(l *release.Locator) { l.Seq = 0 }, release.ErrInvalid},
		"release":            {func(l *release.Locator) { l.Release = release.Digest{} }, release.ErrInvalid},
		"table":              {func(l *release.Locator) { l.Table.Digest = release.Digest{} }, release.ErrInvalid},
		"table too long":     {func(l *release.Locator) { l.Table.Size = release.MaxTable + 1 }, release.ErrInvalid},
		"too many packs":     {func(l *release.Locator) { l.Packs = make([]release.Pack, release.MaxPacks+1) }, release.ErrInvalid},
		"too many patches":   {func(l *release.Locator) { l.Patches = make([]release.Patch, release.MaxPatches+1) }, release.ErrInvalid},
		"pack name":          {func(l *release.Locator) { l.Packs[0].Name = "../../etc/passwd" }, release.ErrInvalid},
		"pack name short":    {func(l *release.Locator) { l.Packs[0].Name = ".pack" }, release.ErrInvalid},
		"pack in other file": {func(l *release.Locator) { l.Packs[0].Name = strings.Replace(l.Packs[0].Name, "/", "//", 1) }, release.ErrInvalid},
		"pack is a table":    {func(l *release.Locator) { l.Packs[0].Name = release.TableName(sum("x")) }, release.ErrInvalid},
		"pack twice":         {func(l *release.Locator) { l.Packs[0].Name = l.Packs[1].Name }, release.ErrInvalid},
		"pack size":          {func(l *release.Locator) { l.Packs[0].Size = -1 }, release.ErrInvalid},
		"patch codec":        {func(l *release.Locator) { l.Patches[0].Codec = "bsdiff" }, release.ErrInvalid},
		"patch raw":          {func(l *release.Locator) { l.Patches[0].Codec = release.Raw }, release.ErrInvalid},
		"patch to":           {func(l *release.Locator) { l.Patches[0].To.Digest = release.Digest{} }, release.ErrInvalid},
		"patch from":         {func(l *release.Locator) { l.Patches[0].From = release.Digest{} }, release.ErrInvalid},
		"patch from itself":  {func(l *release.Locator) { l.Patches[0].From = l.Patches[0].To.Digest }, release.ErrInvalid},
		"patch pack":         {func(l *release.Locator) { l.Patches[0].Pack = 2 }, release.ErrInvalid},
		"patch pack below":   {func(l *release.Locator) { l.Patches[0].Pack = -1 }, release.ErrInvalid},
		"patch outside":      {func(l *release.Locator) { l.Patches[0].Length = 101 }, release.ErrInvalid},
		"patch overflow":     {func(l *release.Locator) { l.Patches[0].Length = 1<<63 - 1 }, release.ErrInvalid},
		"patch before":       {func(l *release.Locator) { l.Patches[0].Offset = -1 }, release.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			l := sampleLocator(sampleTable(t))
			broken.change(l)
			require.ErrorIs(t, l.Validate(), broken.want)
			_, err := l.Encode()
			require.ErrorIs(t, err, broken.want)
		})
	}
}

func TestLocatorPatch(t *testing.T) {
	l := sampleLocator(sampleTable(t))
	all := func(release.Digest) bool { return true }
	p, ok := l.Patch(sum("index"), all)
	require.True(t, ok)
	require.Equal(t, sum("index 5"), p.From, "the shortest")
	require.Equal(t, release.Place{Pack: l.Packs[1].Name, Offset: 150, Length: 40, Codec: release.Splice}, l.Place(p))
	p, ok = l.Patch(sum("index"), func(d release.Digest) bool { return d == sum("index 6") })
	require.True(t, ok)
	require.Equal(t, sum("index 6"), p.From)
	_, ok = l.Patch(sum("index"), func(release.Digest) bool { return false })
	require.False(t, ok)
	_, ok = l.Patch(sum("other"), all)
	require.False(t, ok)
}

func TestTable(t *testing.T) {
	stored := sampleTable(t)
	l := sampleLocator(stored)
	table, err := release.ParseTable(stored, l)
	require.NoError(t, err)
	require.Equal(t, 4, table.Len())
	for _, r := range sampleRows() {
		p, ok := table.Find(release.Blob{Digest: r.Digest})
		require.True(t, ok)
		require.Equal(t, release.Place{Pack: l.Packs[r.Pack].Name, Offset: r.Offset, Length: r.Length, Codec: r.Codec}, p)
	}
	_, ok := table.Find(blob("none"))
	require.False(t, ok)
}

func TestTableEmpty(t *testing.T) {
	stored, err := release.EncodeTable(nil, 0)
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
		stored, err := release.EncodeTable(rows, 2)
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
		_, err := release.EncodeTable(rows, 2)
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
		magic = "pawl-table/0\n"
		keys  = "aaaabbbb"
		good  = magic + "\x02\x04" + "\x01\x01" + "\x00\x01" + "\x00\x05" + "\x09\x03" + keys
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
	require.ErrorIs(t, read(strings.Replace(good, "/0", "/1", 1)), release.ErrFormat)
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
	stored, err := release.EncodeTable(rows, 2)
	require.NoError(t, err)
	t.Logf("%d blobs: %d bytes, %.2f each", len(rows), len(stored), float64(len(stored))/float64(len(rows)))
	require.Less(t, len(stored), 6000*7)
}

// TestSizesBeyondInt32 takes sizes on both sides of where 32 bits end.
func TestSizesBeyondInt32(t *testing.T) {
	for _, n := range []int64{1<<31 - 1, 1 << 31, 1<<31 + 1, 1<<32 - 1, 1 << 32, 1<<32 + 1, release.MaxBlob} {
		ix := &release.Index{Entries: []release.Entry{{Path: ".", Type: release.Dir},
			{Path: "a", Type: release.File, Blob: release.Blob{Digest: sum("a"), Size: n}}}}
		got, err := release.ReadIndex(bytes.NewReader(encodeIndex(t, ix)), 0)
		require.NoError(t, err)
		require.Equal(t, n, got.Entries[1].Size)

		stored, err := release.EncodeTable([]release.TableRow{{Digest: sum("a"), Length: n, Codec: release.Raw}}, 1)
		require.NoError(t, err)
		l := sampleLocator(stored)
		l.Packs, l.Patches = []release.Pack{{Name: release.PackName(sum("pack")), Size: n}}, nil
		table, err := release.ParseTable(stored, l)
		require.NoError(t, err)
		p, ok := table.Find(release.Blob{Digest: sum("a"), Size: n})
		require.True(t, ok)
		require.Equal(t, n, p.Length)
		l.Packs[0].Size = n - 1
		_, err = release.ParseTable(stored, l)
		require.ErrorIs(t, err, release.ErrInvalid)
	}
}
