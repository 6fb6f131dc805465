package release_test

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

// deltaOf is the delta whose directory is stored; its groups have 40 bytes.
func deltaOf(stored []byte) release.Delta {
	return release.Delta{Component: "app", From: sum("index 6"), To: sum("index"),
		Length: int64(len(stored)), Directory: release.Sum(stored), Groups: 40}
}

// smallDelta makes blob 1 of 0, and 2 of nothing.
const smallDelta = "pawl-delta/1\n" + "\x02" + "\x1e\x0a" + "\x01\x01" + "\x02\x00" + "\x01\x00" + "\x00"

func TestDelta(t *testing.T) {
	l := sampleLocator(sampleTable(t))
	d, ok := l.Delta("app", sum("index"), sum("index 5"))
	require.True(t, ok)
	require.Equal(t, l.Deltas[1], d)
	for _, other := range [][3]string{{"web", "index", "index 5"}, {"app", "index 5", "index 5"}, {"app", "index", "index"}} {
		_, ok := l.Delta(other[0], sum(other[1]), sum(other[2]))
		require.False(t, ok, other)
	}
	stored := squeeze(t, []byte(smallDelta))
	dir, err := release.ParseDelta(stored, deltaOf(stored), 1, 3)
	require.NoError(t, err)
	require.Equal(t, &release.DeltaDirectory{Groups: []release.DeltaGroup{
		{Offset: 0, Length: 30, Patches: []release.DeltaPatch{{To: 1, From: 0}}},
		{Offset: 30, Length: 10, Patches: []release.DeltaPatch{{To: 2, From: -1}}},
	}}, dir)
	empty, err := release.EncodeDelta(&release.DeltaDirectory{})
	require.NoError(t, err)
	d = deltaOf(empty)
	d.Groups = 0
	dir, err = release.ParseDelta(empty, d, 0, 0)
	require.NoError(t, err)
	require.Empty(t, dir.Groups)
}

// TestDeltaRefused reads directories that no publisher makes.
func TestDeltaRefused(t *testing.T) {
	const magic = "pawl-delta/1\n"
	huge := string(binary.AppendUvarint(nil, 1<<40))
	read := func(data string) error {
		stored := squeeze(t, []byte(data))
		_, err := release.ParseDelta(stored, deltaOf(stored), 1, 3)
		return err
	}
	require.NoError(t, read(smallDelta))
	for n := range len(smallDelta) {
		require.Error(t, read(smallDelta[:n]), "cut after %d bytes", n)
	}
	require.ErrorIs(t, read(strings.Replace(smallDelta, "/1", "/2", 1)), release.ErrFormat)
	for name, bad := range map[string]string{
		"something after":     smallDelta + "x",
		"many groups":         magic + huge,
		"groups not there":    magic + "\x7f",
		"groups too short":    magic + "\x02\x1e\x09\x01\x01\x02\x00\x01\x00\x00",
		"groups too long":     magic + "\x02\x1e\x0b\x01\x01\x02\x00\x01\x00\x00",
		"group overflows":     magic + "\x02\x1e" + huge + "\x01\x01\x02\x00\x01\x00\x00",
		"more patches":        magic + "\x02\x1e\x0a\x02\x02\x02\x00\x00\x00\x01\x00\x00\x00\x00",
		"patches not there":   magic + "\x02\x1e\x0a\x01\x02",
		"to outside":          magic + "\x02\x1e\x0a\x01\x01\x02\x02\x01\x00\x00",
		"to before":           magic + "\x02\x1e\x0a\x01\x01\x01\x00\x01\x00\x00",
		"to twice":            magic + "\x02\x1e\x0a\x01\x01\x02\x01\x01\x00\x00",
		"from outside":        magic + "\x02\x1e\x0a\x01\x01\x02\x00\x01\x02\x00",
		"from before":         magic + "\x02\x1e\x0a\x01\x01\x02\x00\x01\x01\x00",
		"from is not 0 nor 1": magic + "\x02\x1e\x0a\x01\x01\x02\x00\x02\x00\x00",
	} {
		require.ErrorIs(t, read(bad), release.ErrInvalid, name)
	}
	require.ErrorIs(t, read(magic+"\x00"+strings.Repeat("\x00", 17<<20)), release.ErrInvalid, "a bomb")

	stored := squeeze(t, []byte(smallDelta))
	d := deltaOf(stored)
	d.Directory = sum("other")
	_, err := release.ParseDelta(stored, d, 1, 3)
	require.ErrorIs(t, err, release.ErrInvalid, "a directory that was not signed")
	_, err = release.ParseDelta(append(stored, 0), deltaOf(stored), 1, 3)
	require.ErrorIs(t, err, release.ErrInvalid)
}

// TestDeltaSize states what the directory of a delta of 1,000 changed files costs.
func TestDeltaSize(t *testing.T) {
	var g release.DeltaGroup
	for i := range 1000 {
		g.Patches = append(g.Patches, release.DeltaPatch{To: i * 5, From: i*5 + i/100})
	}
	stored, err := release.EncodeDelta(&release.DeltaDirectory{Groups: []release.DeltaGroup{g}})
	require.NoError(t, err)
	t.Logf("1,000 patches: %d bytes", len(stored))
	require.Less(t, len(stored), 100)
}
