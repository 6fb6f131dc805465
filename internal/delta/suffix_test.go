package delta

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSortSuffixes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 3000 {
		text := make([]byte, rnd.IntN(80))
		letters := 1 + rnd.IntN(5)
		for i := range text {
			text[i] = byte(255 - rnd.IntN(letters))
		}
		want := make([]int32, len(text))
		for i := range want {
			want[i] = int32(i)
		}
		slices.SortFunc(want, func(a, b int32) int { return bytes.Compare(text[a:], text[b:]) })
		got := make([]int32, len(text))
		sortSuffixes(text, got, 256)
		require.Equal(t, want, got, "%v", text)
	}
}

func BenchmarkSortSuffixes(b *testing.B) {
	rnd := rand.New(rand.NewPCG(1, 1))
	text := make([]byte, 8<<20)
	for i := range text {
		text[i] = byte(rnd.IntN(1 + rnd.IntN(256)))
	}
	sa := make([]int32, len(text))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		sortSuffixes(text, sa, 256)
	}
}
