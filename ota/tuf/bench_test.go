package tuf_test

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/tuf"
)

// BenchmarkLatest looks for the newest of n releases in a folder, with a warm
// store and nothing new.
func BenchmarkLatest(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			m := newMaker(b)
			for seq := range n {
				m.add(newRelease(uint64(seq + 1)))
			}
			m.publish()
			s, err := tuf.New(m.options(m.dir))
			require.NoError(b, err)
			defer s.Close()
			_, err = s.Latest(b.Context(), device)
			require.NoError(b, err)
			before := s.Bytes()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Latest(b.Context(), device); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(s.Bytes()-before)/float64(b.N), "fetched-B/op")
		})
	}
}
