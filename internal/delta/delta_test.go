package delta_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/delta"
)

// relative makes a blob out of pieces of another one, changed here and there,
// and of bytes that are new, or chance.
func relative(rnd *rand.Rand, old []byte, n int) []byte {
	var data []byte
	for len(data) < n {
		switch rnd.IntN(6) {
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

// pair is an old blob and a new one.
type pair struct{ old, new []byte }

func pairs(seed uint64, n, size int) []pair {
	rnd := rand.New(rand.NewPCG(seed, 1))
	list := make([]pair, n)
	for i := range list {
		old := relative(rnd, nil, rnd.IntN(size))
		list[i] = pair{old, relative(rnd, old, rnd.IntN(size))}
	}
	return list
}

// makers are the kinds of groups.
var makers = []func(io.Writer) *delta.Writer{delta.NewWriter, delta.NewQuickWriter}

func write(t testing.TB, list []pair) []byte { return writeBy(t, delta.NewWriter, list) }

func writeBy(t testing.TB, maker func(io.Writer) *delta.Writer, list []pair) []byte {
	var group bytes.Buffer
	w := maker(&group)
	for _, x := range list {
		p, err := delta.Find(context.Background(), bytes.NewReader(x.old), bytes.NewReader(x.new))
		require.NoError(t, err)
		require.NoError(t, w.Add(p))
	}
	require.NoError(t, w.Close())
	require.EqualValues(t, group.Len(), w.Len())
	return group.Bytes()
}

func open(t testing.TB, group []byte) *delta.Reader {
	r, err := delta.NewReader(bytes.NewReader(group))
	require.NoError(t, err)
	return r
}

func next(r *delta.Reader, x pair) ([]byte, error) {
	b, err := r.Next(bytes.NewReader(x.old), int64(len(x.old)), int64(len(x.new)))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(b)
}

func ends(t testing.TB, r *delta.Reader) {
	_, err := r.Next(nil, 0, 0)
	require.Equal(t, io.EOF, err)
	require.Equal(t, io.EOF, r.Skip(0))
}

func TestRandom(t *testing.T) {
	for seed := range uint64(25) {
		list := pairs(seed, 1+int(seed)%5, 100_000)
		group := writeBy(t, makers[seed%2], list)
		require.Equal(t, byte(1+seed%2), group[0], "what it says of how it is coded")
		r, err := delta.NewReader(iotest.HalfReader(bytes.NewReader(group)))
		require.NoError(t, err)
		for i, x := range list {
			b, err := r.Next(bytes.NewReader(x.old), int64(len(x.old)), int64(len(x.new)))
			require.NoError(t, err, "seed %d, patch %d", seed, i)
			got, err := io.ReadAll(iotest.OneByteReader(b))
			require.NoError(t, err, "seed %d, patch %d", seed, i)
			require.True(t, bytes.Equal(x.new, got), "seed %d, patch %d", seed, i)
		}
		ends(t, r)
		require.NoError(t, r.Close())
	}
}

func TestSmall(t *testing.T) {
	words := []string{"", "x", "hello, world", "hello, there", strings.Repeat("ab", 5000), strings.Repeat("a", 5000)}
	var list []pair
	for _, a := range words {
		for _, b := range words {
			list = append(list, pair{[]byte(a), []byte(b)})
		}
	}
	group := write(t, list)
	require.Less(t, len(group), 500)
	r := open(t, group)
	for _, x := range list {
		got, err := next(r, x)
		require.NoError(t, err)
		require.Equal(t, string(x.new), string(got))
	}
	ends(t, r)
	ends(t, open(t, write(t, nil)))
}

// TestNumbersThatMove has a table of entries with a number that grew by one
// amount in all, as addresses do: each is one token, whatever is carried.
func TestNumbersThatMove(t *testing.T) {
	var x pair
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 10_000 {
		same, v := rnd.Uint64(), rnd.Uint32()
		if v&7 == 0 {
			v |= 0xffff00 // what is carried goes far
		}
		x.old = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint64(x.old, same), v)
		x.new = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint64(x.new, same), v+0x1f0)
	}
	group := write(t, []pair{x})
	require.Less(t, len(group), 300)
	got, err := next(open(t, group), x)
	require.NoError(t, err)
	require.True(t, bytes.Equal(x.new, got))
}

// TestChance has bytes that cannot be made smaller: they do not grow either.
func TestChance(t *testing.T) {
	x := pair{new: make([]byte, 300_000)}
	rnd := rand.New(rand.NewPCG(2, 1))
	for i := range x.new {
		x.new[i] = byte(rnd.Uint32())
	}
	group := write(t, []pair{x})
	require.Less(t, len(group), len(x.new)+len(x.new)/1000)
	got, err := next(open(t, group), x)
	require.NoError(t, err)
	require.True(t, bytes.Equal(x.new, got))
}

func TestSkip(t *testing.T) {
	list := pairs(3, 8, 60_000)
	group := write(t, list)
	for taken := range list {
		r := open(t, group)
		for i, x := range list {
			if i != taken {
				require.NoError(t, r.Skip(int64(len(x.new))))
				continue
			}
			b, err := r.Next(bytes.NewReader(x.old), int64(len(x.old)), int64(len(x.new)))
			require.NoError(t, err)
			_, err = io.CopyN(io.Discard, b, int64(len(x.new)/2))
			require.NoError(t, err, "the rest is skipped by the next call")
		}
		ends(t, r)
	}
	r := open(t, group)
	require.ErrorIs(t, r.Skip(int64(len(list[0].new))+1), delta.ErrDamaged)
	require.ErrorIs(t, r.Skip(int64(len(list[1].new))), delta.ErrDamaged, "it stays")
	_, err := open(t, group).Next(bytes.NewReader(list[0].old), int64(len(list[0].old)), 1<<50)
	require.ErrorIs(t, err, delta.ErrDamaged)
}

// TestWrongOld gives old blobs that are not those of the patch: the patches
// behind it are not hurt.
func TestWrongOld(t *testing.T) {
	list := pairs(4, 3, 60_000)
	group := write(t, list)
	rest := func(r *delta.Reader) {
		for _, x := range list[1:] {
			got, err := next(r, x)
			require.NoError(t, err)
			require.True(t, bytes.Equal(x.new, got))
		}
		ends(t, r)
	}

	r := open(t, group)
	got, err := next(r, pair{make([]byte, len(list[0].old)), list[0].new})
	require.NoError(t, err)
	require.Len(t, got, len(list[0].new))
	require.False(t, bytes.Equal(list[0].new, got))
	rest(r)

	r = open(t, group)
	_, err = next(r, pair{list[0].old[1:], list[0].new})
	require.ErrorIs(t, err, delta.ErrOld)
	rest(r)

	r = open(t, group)
	b, err := r.Next(broken{}, int64(len(list[0].old)), int64(len(list[0].new)))
	require.NoError(t, err)
	_, err = io.ReadAll(b)
	require.ErrorIs(t, err, errBroken)
	require.NotErrorIs(t, err, delta.ErrDamaged)
	rest(r)

	r = open(t, group)
	b, err = r.Next(strings.NewReader("short"), int64(len(list[0].old)), int64(len(list[0].new)))
	require.NoError(t, err)
	_, err = io.ReadAll(b)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	rest(r)
}

type broken struct{}

var errBroken = errors.New("broken")

func (broken) ReadAt([]byte, int64) (int, error) { return 0, errBroken }

func TestBlobBeforeIsClosed(t *testing.T) {
	list := pairs(5, 2, 60_000)
	r := open(t, write(t, list))
	b, err := r.Next(bytes.NewReader(list[0].old), int64(len(list[0].old)), int64(len(list[0].new)))
	require.NoError(t, err)
	got, err := next(r, list[1])
	require.NoError(t, err)
	require.True(t, bytes.Equal(list[1].new, got))
	_, err = b.Read(make([]byte, 10))
	require.ErrorIs(t, err, io.ErrClosedPipe)
}

func TestDamaged(t *testing.T) {
	for _, maker := range makers {
		testDamaged(t, maker)
	}
}

func testDamaged(t *testing.T, maker func(io.Writer) *delta.Writer) {
	list := pairs(6, 3, 6_000)
	group := writeBy(t, maker, list)
	read := func(group []byte) error {
		r, err := delta.NewReader(bytes.NewReader(group))
		for i := 0; err == nil && i < len(list); i++ {
			var got []byte
			if got, err = next(r, list[i]); len(got) > len(list[i].new) {
				return fmt.Errorf("%d bytes instead of %d", len(got), len(list[i].new))
			}
		}
		if err == nil {
			if _, err = r.Next(nil, 0, 0); err == io.EOF {
				err = nil
			}
		}
		return err
	}
	require.NoError(t, read(group))
	for n := range len(group) {
		require.ErrorIs(t, read(group[:n]), delta.ErrDamaged, "cut after %d bytes", n)
	}
	require.ErrorIs(t, read(append(bytes.Clone(group), 0)), delta.ErrDamaged, "a byte more")
	for i := range group {
		bad := bytes.Clone(group)
		bad[i] ^= 1 << (i % 8)
		if err := read(bad); err != nil && !errors.Is(err, delta.ErrOld) {
			require.ErrorIs(t, err, delta.ErrDamaged, "byte %d", i)
		}
	}
	_, err := delta.NewReader(iotest.ErrReader(errBroken))
	require.ErrorIs(t, err, errBroken)
	_, err = delta.NewReader(bytes.NewReader(append([]byte{3}, group[1:]...)))
	require.ErrorIs(t, err, delta.ErrDamaged)
}

// TestGolden reads a group of each kind as it was written first.
func TestGolden(t *testing.T) {
	list := pairs(7, 6, 30_000)
	for i, maker := range makers {
		name := fmt.Sprintf("testdata/group.%d", i+1)
		if os.Getenv("PAWL_WRITE_GOLDEN") == name {
			require.NoError(t, os.WriteFile(name, writeBy(t, maker, list), 0o644))
		}
		group, err := os.ReadFile(name)
		require.NoError(t, err)
		r := open(t, group)
		for _, x := range list {
			got, err := next(r, x)
			require.NoError(t, err)
			require.Equal(t, sha256.Sum256(x.new), sha256.Sum256(got))
		}
		ends(t, r)
	}
}

// TestSlack: as many bytes as the decisions are worth that a quick group spares,
// and no more than a sixteenth.
func TestSlack(t *testing.T) {
	slack := func(maker func(io.Writer) *delta.Writer, new string) (int64, int64) {
		w := maker(io.Discard)
		p, err := delta.Find(context.Background(), strings.NewReader(""), strings.NewReader(new))
		require.NoError(t, err)
		require.NoError(t, w.Add(p))
		require.NoError(t, w.Close())
		return w.Slack(), w.Len()
	}
	n, size := slack(delta.NewWriter, "a b c d e f g h i j k l m n o p q")
	require.Equal(t, size/16, n, "of %d", size)
	chance := make([]byte, 200_000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(chance)
	n, _ = slack(delta.NewWriter, string(chance))
	require.Zero(t, n, "they are as they are in either")
	n, _ = slack(delta.NewQuickWriter, "a b c d e f g h i j k l m n o p q")
	require.Zero(t, n)
}

func TestFindIsEndedByItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := delta.Find(ctx, strings.NewReader("old"), strings.NewReader("new"))
	require.ErrorIs(t, err, context.Canceled)
	_, err = delta.Find(context.Background(), tooShort{strings.NewReader("old")}, strings.NewReader("new"))
	require.ErrorIs(t, err, io.EOF)
}

type tooShort struct{ *strings.Reader }

func (tooShort) Size() int64 { return 100 }

func TestSize(t *testing.T) {
	x := pairs(8, 1, 50_000)
	p, err := delta.Find(context.Background(), bytes.NewReader(x[0].old), bytes.NewReader(x[0].new))
	require.NoError(t, err)
	n, err := p.Size()
	require.NoError(t, err)
	require.EqualValues(t, len(write(t, x)), n)
}

// FuzzReader reads groups that are none: it ends in bounded time, and gives no
// more than was asked for.
func FuzzReader(f *testing.F) {
	list := pairs(9, 3, 2_000)
	for _, maker := range makers {
		f.Add(writeBy(f, maker, list), list[0].old, uint16(len(list[0].new)))
	}
	f.Add([]byte{1, 255, 255, 255, 255, 0}, []byte("old"), uint16(100))
	f.Fuzz(func(t *testing.T, group, old []byte, size uint16) {
		r, err := delta.NewReader(bytes.NewReader(group))
		for range 8 {
			if err != nil {
				break
			}
			var got []byte
			got, err = next(r, pair{old, make([]byte, size)})
			require.LessOrEqual(t, len(got), int(size))
			if err == nil {
				require.Len(t, got, int(size))
				err = r.Skip(int64(size))
			}
		}
		if err != nil && err != io.EOF && !errors.Is(err, delta.ErrOld) {
			require.ErrorIs(t, err, delta.ErrDamaged)
		}
	})
}

// FuzzPatch makes patches between any two blobs.
func FuzzPatch(f *testing.F) {
	for _, x := range pairs(10, 4, 3_000) {
		f.Add(x.old, x.new)
	}
	f.Fuzz(func(t *testing.T, old, new []byte) {
		list := []pair{{old, new}, {new, old}, {nil, new}}
		for _, maker := range makers {
			r := open(t, writeBy(t, maker, list))
			for _, x := range list {
				got, err := next(r, x)
				require.NoError(t, err)
				require.True(t, bytes.Equal(x.new, got))
			}
			ends(t, r)
		}
	})
}
