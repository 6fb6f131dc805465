package outbox

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// resum gives a header line the right sum.
func resum(text string) []byte {
	text = text[:strings.LastIndexByte(text, ' ')]
	return fmt.Appendf(nil, "%s %08x\n", text, crc32.Checksum([]byte(text), castagnoli))
}

func segmentOf(t testing.TB, blocks ...[]record) []byte {
	t.Helper()
	data := header{class: results, tag: "00112233445566ff", made: time.Unix(1893456000, 0), trusted: true}.encode()
	first := uint64(1)
	for _, events := range blocks {
		b, err := encodeBlock(first, events)
		require.NoError(t, err)
		data, first = append(data, b...), first+uint64(len(events))
	}
	return data
}

func sample(t testing.TB) []byte {
	long := record{data: bytes.Repeat([]byte("a long event "), 200)}
	return segmentOf(t, []record{{"5-abc/committed", []byte("one")}, {"", []byte("two")}}, []record{long, {"k", []byte("four")}})
}

// TestGolden: the format of version 0, as it is on devices.
func TestGolden(t *testing.T) {
	const path = "testdata/segment-0"
	if os.Getenv("PAWL_UPDATE") == "1" {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, sample(t), 0o644))
	}
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	got, err := decodeSegment(data)
	require.NoError(t, err)
	require.Equal(t, header{class: results, tag: "00112233445566ff", made: time.Unix(1893456000, 0).UTC(), trusted: true}, got.header)
	require.EqualValues(t, len(data), got.good)
	var texts []string
	for _, b := range got.blocks {
		events, err := b.events()
		require.NoError(t, err)
		for i, r := range events {
			texts = append(texts, fmt.Sprintf("%d %s %.6s %d", b.first+uint64(i), r.key, r.data, len(r.data)))
		}
	}
	require.Equal(t, []string{"1 5-abc/committed one 3", "2  two 3", "3  a long 2600", "4 k four 4"}, texts)
}

// TestCutAnywhere: of a file of any length what is whole is there, and nothing
// else.
func TestCutAnywhere(t *testing.T) {
	data := sample(t)
	head := bytes.IndexByte(data, '\n') + 1
	_, first, err := decodeBlock(data[head:])
	require.NoError(t, err)
	for n := range data {
		got, err := decodeSegment(data[:n])
		switch {
		case n < head:
			require.ErrorIs(t, err, errDamaged)
		case n < head+first:
			require.Empty(t, got.blocks)
			require.EqualValues(t, head, got.good)
		default:
			require.Len(t, got.blocks, 1)
			require.EqualValues(t, head+first, got.good)
		}
	}
}

// TestFlips: no single flipped bit goes unnoticed.
func TestFlips(t *testing.T) {
	data := segmentOf(t, []record{{"k", []byte("one")}})
	for n := range 8 * len(data) {
		flipped := append([]byte(nil), data...)
		flipped[n/8] ^= 1 << (n % 8)
		got, err := decodeSegment(flipped)
		require.True(t, err != nil || len(got.blocks) == 0, "bit %d", n)
	}
}

func TestBlocksAreBounded(t *testing.T) {
	for _, events := range [][]record{nil, make([]record, maxEvents+1), {{data: make([]byte, maxBlock)}}} {
		_, err := encodeBlock(1, events)
		require.Error(t, err)
	}
	bomb, err := encodeBlock(1, []record{{data: make([]byte, maxData)}})
	require.NoError(t, err)
	require.Less(t, len(bomb), 4096)
	b, _, err := decodeBlock(bomb)
	require.NoError(t, err)
	b.raw = 100 // it says less than it holds
	_, err = b.events()
	require.ErrorIs(t, err, errDamaged)
}

func FuzzSegment(f *testing.F) {
	f.Add(sample(f))
	f.Add(segmentOf(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decodeSegment(data)
		if err != nil {
			return
		}
		require.LessOrEqual(t, got.good, int64(len(data)))
		again, err := decodeSegment(data[:got.good])
		require.NoError(t, err)
		require.Equal(t, len(got.blocks), len(again.blocks))
		last := uint64(0)
		for _, b := range got.blocks {
			require.Greater(t, b.first, last)
			last = b.last()
			events, err := b.events()
			if err == nil {
				require.EqualValues(t, b.count, len(events))
			}
		}
	})
}
