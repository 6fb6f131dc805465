package release_test

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

func sampleEnclosed() []release.Enclosed {
	return []release.Enclosed{
		{Name: "metadata/3.targets.json", Size: 9, Data: []byte("{\n\"a\":1}\n")},
		{Name: "metadata/3.snapshot.json", Data: []byte{}},
		{Name: "content/ab/" + strings.Repeat("ab", 32) + ".pack", Offset: 70_000, Size: 4, Data: []byte("\x00\xff\n\x01")},
	}
}

// TestEnclosedLeavesOut: what there is no room for, the largest first.
func TestEnclosedLeavesOut(t *testing.T) {
	noise := func(n int) []byte {
		data := make([]byte, n)
		_, _ = rand.Read(data)
		return data
	}
	list := []release.Enclosed{{Name: "a", Data: noise(3000)}, {Name: "b", Data: noise(9000)}, {Name: "c", Data: noise(4000)}}
	stored, err := release.EncodeEnclosed(list)
	require.NoError(t, err)
	require.LessOrEqual(t, len(stored), release.MaxEnclosed)
	got, err := release.ParseEnclosed(stored)
	require.NoError(t, err)
	require.Equal(t, []release.Enclosed{{Name: "a", Size: 3000, Data: list[0].Data}, {Name: "c", Size: 4000, Data: list[2].Data}}, got)

	for _, list := range [][]release.Enclosed{nil, {{Name: "a", Data: noise(9000)}}} {
		stored, err = release.EncodeEnclosed(list)
		require.NoError(t, err)
		require.Nil(t, stored)
	}
	list = nil
	for i := range 40 { // that compress well, and are too much for a reader
		list = append(list, release.Enclosed{Name: fmt.Sprint(i), Data: make([]byte, 4000-i)})
	}
	stored, err = release.EncodeEnclosed(list)
	require.NoError(t, err)
	got, err = release.ParseEnclosed(stored)
	require.NoError(t, err)
	require.Len(t, got, 8)
	require.Equal(t, "39", got[7].Name)
}

// TestEnclosedRefuses: what no publisher wrote.
func TestEnclosedRefuses(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	for _, text := range []string{
		"", "[", "{}\n", "7\n", `[{"name":"a","size":1}]`, "[{\"name\":\"a\",\"size\":3}]\nab", "[{\"name\":\"a\",\"size\":-1}]\nab",
		"[{\"name\":\"a\",\"offset\":-1,\"size\":1}]\na", "[" + strings.Repeat("{},", 16) + "{}]\n", "[]\n" + strings.Repeat(" ", 64<<10),
		"[{\"size\":9223372036854775807}]\nab",
	} {
		_, err := release.ParseEnclosed(enc.EncodeAll([]byte(text), nil))
		require.ErrorIs(t, err, release.ErrInvalid, "%.60q", text)
	}
	_, err = release.ParseEnclosed([]byte("no frame"))
	require.ErrorIs(t, err, release.ErrInvalid)
}
