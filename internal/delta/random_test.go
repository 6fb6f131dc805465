package delta

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// relative makes a new blob out of pieces of an old one, changed here and there.
func relative(rnd *rand.Rand, old []byte, n int) []byte {
	var data []byte
	for len(data) < n {
		switch rnd.IntN(4) {
		case 0:
			for range rnd.IntN(200) {
				data = append(data, byte(rnd.IntN(1+rnd.IntN(256))))
			}
		case 1:
			for range rnd.IntN(2) * rnd.IntN(12_000) {
				data = append(data, byte(rnd.Uint32()))
			}
		default:
			if len(old) == 0 {
				continue
			}
			at := rnd.IntN(len(old))
			piece := bytes.Clone(old[at:min(len(old), at+rnd.IntN(5000))])
			for i := rnd.IntN(50); i < len(piece)-2; i += 1 + rnd.IntN(60) {
				piece[i] += byte(rnd.IntN(3) * 100)
			}
			data = append(data, piece...)
		}
	}
	return data[:n]
}

func TestRandom(t *testing.T) {
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var olds, news [][]byte
		var group bytes.Buffer
		w := NewWriter(&group)
		for range 1 + rnd.IntN(6) {
			old := relative(rnd, nil, rnd.IntN(100_000))
			new := relative(rnd, old, rnd.IntN(100_000))
			p, err := Find(context.Background(), bytes.NewReader(old), bytes.NewReader(new))
			require.NoError(t, err)
			require.NoError(t, w.Add(p))
			olds, news = append(olds, old), append(news, new)
		}
		require.NoError(t, w.Close())
		require.EqualValues(t, group.Len(), w.Len())
		r, err := NewReader(iotest.HalfReader(&group))
		require.NoError(t, err)
		for i := range olds {
			b, err := r.Next(bytes.NewReader(olds[i]), int64(len(olds[i])), int64(len(news[i])))
			require.NoError(t, err, "seed %d, patch %d", seed, i)
			got, err := io.ReadAll(iotest.OneByteReader(b))
			require.NoError(t, err, "seed %d, patch %d", seed, i)
			require.True(t, bytes.Equal(news[i], got), "seed %d, patch %d", seed, i)
		}
		_, err = r.Next(nil, 0, 0)
		require.Equal(t, io.EOF, err)
	}
}
