package fetch

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-0/1", "bytes 5-9/*", "bytes */7", "bytes 9-5/10", "bytes +1-2/3", "items 0-1/2", "bytes 0-1/4611686018427387904"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, size, ok := parseRange(s)
		if ok {
			require.True(t, 0 <= first && first <= last && (size == -1 || last < size), s)
			again := fmt.Sprintf("bytes %d-%d/*", first, last)
			a, z, _, ok := parseRange(again)
			require.True(t, ok && a == first && z == last, again)
		}
		require.GreaterOrEqual(t, rangeSize(s), int64(-1))
	})
}
