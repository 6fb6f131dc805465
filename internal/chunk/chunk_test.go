package chunk_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/chunk"
)

func noise(seed uint64, n int) []byte {
	data := make([]byte, n)
	src := rand.NewPCG(seed, 0)
	for i := range data {
		data[i] = byte(src.Uint64())
	}
	return data
}

// cut returns the lengths of the pieces and proves that they are the blob.
func cut(t testing.TB, r io.Reader, data []byte) []int {
	c := chunk.NewCutter(r)
	var lengths []int
	var all []byte
	for {
		piece, err := c.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		require.NotEmpty(t, piece)
		lengths = append(lengths, len(piece))
		all = append(all, piece...)
	}
	require.True(t, bytes.Equal(data, all))
	for i, n := range lengths {
		require.LessOrEqual(t, n, chunk.Max)
		if i < len(lengths)-1 {
			require.GreaterOrEqual(t, n, chunk.Min)
		}
	}
	return lengths
}

// TestGolden holds the places of the format: a repository that was made with
// others would be of no use to what is in the field.
func TestGolden(t *testing.T) {
	var got strings.Builder
	for _, n := range []int{0, 1, chunk.Whole - 1, chunk.Whole, 4 << 20} {
		data := noise(7, n)
		fmt.Fprintln(&got, n, cut(t, bytes.NewReader(data), data))
	}
	text := bytes.Repeat([]byte("The same line again and again.\n"), 40_000)
	fmt.Fprintln(&got, "text", cut(t, bytes.NewReader(text), text))
	zero := make([]byte, 1<<20)
	fmt.Fprintln(&got, "zero", cut(t, bytes.NewReader(zero), zero))
	want, err := os.ReadFile("testdata/places.1")
	require.NoError(t, err)
	require.Equal(t, string(want), got.String())
}

func TestReadersDoNotMatter(t *testing.T) {
	data := noise(1, 3<<20)
	want := cut(t, bytes.NewReader(data), data)
	require.Equal(t, want, cut(t, iotest.HalfReader(bytes.NewReader(data)), data))
	require.Equal(t, want, cut(t, iotest.DataErrReader(bytes.NewReader(data)), data))
	require.Equal(t, want, cut(t, iotest.OneByteReader(bytes.NewReader(data)), data))
}

func TestReset(t *testing.T) {
	one, two := noise(2, 1<<20), noise(3, 100)
	c := chunk.NewCutter(bytes.NewReader(one))
	_, err := c.Next()
	require.NoError(t, err)
	c.Reset(bytes.NewReader(two))
	piece, err := c.Next()
	require.NoError(t, err)
	require.Equal(t, two, piece)
	_, err = c.Next()
	require.Equal(t, io.EOF, err)
	_, err = c.Next()
	require.Equal(t, io.EOF, err)
}

func TestErrors(t *testing.T) {
	broken := errors.New("broken")
	for _, want := range []error{broken, io.ErrUnexpectedEOF} {
		c := chunk.NewCutter(io.MultiReader(bytes.NewReader(make([]byte, 3*chunk.Max+100)), iotest.ErrReader(want)))
		var err error
		n := 0
		for err == nil {
			var piece []byte
			piece, err = c.Next()
			n += len(piece)
		}
		require.Equal(t, want, err)
		require.LessOrEqual(t, n, 3*chunk.Max)
		_, err = c.Next()
		require.Equal(t, want, err, "it stays")
	}
	_, err := chunk.NewCutter(idle{}).Next()
	require.Equal(t, io.ErrNoProgress, err)
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// TestChangesStayLocal puts bytes in and takes bytes out: nearly all pieces are
// found again.
func TestChangesStayLocal(t *testing.T) {
	data := noise(4, 16<<20)
	have := map[string]bool{}
	for _, p := range split(t, data) {
		have[sum(p)] = true
	}
	rnd := rand.New(rand.NewPCG(5, 5))
	other := bytes.Clone(data)
	const changes = 10
	for range changes {
		at := rnd.IntN(len(other) - 100)
		if rnd.IntN(2) == 0 {
			other = append(other[:at:at], append(noise(rnd.Uint64(), 37), other[at:]...)...)
		} else {
			other = append(other[:at:at], other[at+51:]...)
		}
	}
	missing := 0
	pieces := split(t, other)
	for _, p := range pieces {
		if !have[sum(p)] {
			missing++
		}
	}
	t.Logf("%d of %d pieces are new after %d changes", missing, len(pieces), changes)
	require.LessOrEqual(t, missing, 4*changes)
	mean := len(other) / len(pieces)
	require.Greater(t, mean, 48<<10)
	require.Less(t, mean, 96<<10)
}

func split(t testing.TB, data []byte) (pieces [][]byte) {
	for _, n := range cut(t, bytes.NewReader(data), data) {
		pieces, data = append(pieces, data[:n]), data[n:]
	}
	return pieces
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

func BenchmarkCutter(b *testing.B) {
	data := noise(6, 64<<20)
	c := chunk.NewCutter(nil)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		c.Reset(bytes.NewReader(data))
		for err := error(nil); err == nil; {
			_, err = c.Next()
		}
	}
}
