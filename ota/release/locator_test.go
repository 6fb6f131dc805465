package release_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

func sampleTable(t testing.TB) []byte {
	table, err := release.EncodeTable(sampleRows(), sampleCut(), 2)
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
		"format":             {func(l *release.Locator) { l.Format = "pawl-locator/2" }, release.ErrFormat},
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
		"too many deltas":    {func(l *release.Locator) { l.Deltas = make([]release.Delta, release.MaxDeltas+1) }, release.ErrInvalid},
		"delta component":    {func(l *release.Locator) { l.Deltas[0].Component = "../app" }, release.ErrName},
		"delta to":           {func(l *release.Locator) { l.Deltas[0].To = release.Digest{} }, release.ErrInvalid},
		"delta from":         {func(l *release.Locator) { l.Deltas[0].From = release.Digest{} }, release.ErrInvalid},
		"delta from itself":  {func(l *release.Locator) { l.Deltas[0].From = l.Deltas[0].To }, release.ErrInvalid},
		"delta directory":    {func(l *release.Locator) { l.Deltas[0].Directory = release.Digest{} }, release.ErrInvalid},
		"delta too long":     {func(l *release.Locator) { l.Deltas[0].Pack, l.Deltas[0].Length = 0, release.MaxDelta+1 }, release.ErrInvalid},
		"delta pack":         {func(l *release.Locator) { l.Deltas[0].Pack = 2 }, release.ErrInvalid},
		"delta outside":      {func(l *release.Locator) { l.Deltas[0].Length = 191 }, release.ErrInvalid},
		"groups outside":     {func(l *release.Locator) { l.Deltas[0].Groups = 181 }, release.ErrInvalid},
		"groups overflow":    {func(l *release.Locator) { l.Deltas[0].Groups = 1<<63 - 1 }, release.ErrInvalid},
		"groups before":      {func(l *release.Locator) { l.Deltas[0].Start = -1 }, release.ErrInvalid},
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

// TestSizesBeyondInt32 takes sizes on both sides of where 32 bits end.
func TestSizesBeyondInt32(t *testing.T) {
	for _, n := range []int64{1<<31 - 1, 1 << 31, 1<<31 + 1, 1<<32 - 1, 1 << 32, 1<<32 + 1, release.MaxBlob} {
		ix := &release.Index{Entries: []release.Entry{{Path: ".", Type: release.Dir},
			{Path: "a", Type: release.File, Blob: release.Blob{Digest: sum("a"), Size: n}}}}
		got, err := release.ReadIndex(bytes.NewReader(encodeIndex(t, ix)), 0)
		require.NoError(t, err)
		require.Equal(t, n, got.Entries[1].Size)

		stored, err := release.EncodeTable([]release.TableRow{{Digest: sum("a"), Length: n, Codec: release.Raw}}, nil, 1)
		require.NoError(t, err)
		l := sampleLocator(stored)
		l.Packs, l.Patches, l.Deltas = []release.Pack{{Name: release.PackName(sum("pack")), Size: n}}, nil, nil
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
