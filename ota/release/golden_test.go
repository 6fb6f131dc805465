package release_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares data with a file of format 1 as it was first written.
func golden(t *testing.T, name string, data []byte) []byte {
	path := filepath.Join("testdata", "format-1", name)
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, data, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	return want
}

// TestGolden reads files as they were written when format 1 was made, and
// writes the documents to the same bytes again.
func TestGolden(t *testing.T) {
	data, err := sampleRelease().Encode()
	require.NoError(t, err)
	want := golden(t, "release.json", data)
	require.Equal(t, string(want), string(data))
	_, err = release.Parse(want)
	require.NoError(t, err)

	forbids := sampleRelease()
	forbids.LateRollback = release.LateForbidden
	data, err = forbids.Encode()
	require.NoError(t, err)
	want = golden(t, "release-late.json", data)
	require.Equal(t, string(want), string(data))
	parsedLate, err := release.Parse(want)
	require.NoError(t, err)
	require.Equal(t, forbids, parsedLate)

	want = golden(t, "index.jsonl", encodeIndex(t, sampleIndex()))
	require.Equal(t, string(want), string(encodeIndex(t, sampleIndex())))
	_, err = release.ReadIndex(bytes.NewReader(want), 0)
	require.NoError(t, err)

	want = golden(t, "partial.jsonl", encodeIndex(t, samplePartial()))
	require.Equal(t, string(want), string(encodeIndex(t, samplePartial())))
	_, err = release.ReadIndex(bytes.NewReader(want), 0)
	require.NoError(t, err)

	// What compresses a table may change its bytes; old ones have to be read.
	table := golden(t, "table.zst", sampleTable(t))
	l := sampleLocator(table)
	data, err = l.Encode()
	require.NoError(t, err)
	want = golden(t, "locator.json", data)
	require.Equal(t, string(want), string(data))
	l, err = release.ParseLocator(want)
	require.NoError(t, err)
	parsed, err := release.ParseTable(table, l)
	require.NoError(t, err)
	require.Equal(t, len(sampleRows())+len(sampleCut()), parsed.Len())

	for _, c := range sampleCut() {
		pieces, ok := parsed.Pieces(cutBlob(c))
		require.True(t, ok)
		require.Len(t, pieces, len(c.Pieces))
	}

	stored, err := release.EncodeDelta(sampleDelta())
	require.NoError(t, err)
	stored = golden(t, "delta.zst", stored)
	dir, err := release.ParseDelta(stored, deltaOf(stored), 10, 10)
	require.NoError(t, err)
	require.Equal(t, sampleDelta(), dir)

	require.Equal(t, componentDigest, sampleRelease().Components[0].Digest().String())
}

// componentDigest is what devices have recorded of the first component of
// sampleRelease.
const componentDigest = "d5a80391b0633c17616344ef129b1dbed76dac44785420bf5f0de371aebe0125"

// TestGoldenEnclosed: what compresses it may change its bytes; old ones have to be
// read.
func TestGoldenEnclosed(t *testing.T) {
	list := sampleEnclosed()
	stored, err := release.EncodeEnclosed(list)
	require.NoError(t, err)
	for _, stored := range [][]byte{stored, golden(t, "enclosed.zst", stored)} {
		got, err := release.ParseEnclosed(stored)
		require.NoError(t, err)
		require.Equal(t, sampleEnclosed(), got)
	}
}
