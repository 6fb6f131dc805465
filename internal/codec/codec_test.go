package codec_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/codec"
	"github.com/pawl-ota/pawl/ota/release"
)

func squeeze(t testing.TB, data []byte) []byte {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	require.NoError(t, err)
	return enc.EncodeAll(data, nil)
}

func open(c release.Codec, stored, from []byte) ([]byte, error) {
	r, err := codec.NewReader(c, bytes.NewReader(stored), from)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestRawAndZstd(t *testing.T) {
	for _, data := range [][]byte{{}, []byte("x"), bytes.Repeat([]byte("pawl "), 100_000)} {
		got, err := open(release.Raw, data, nil)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got))
		got, err = open(release.Zstd, squeeze(t, data), nil)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got))
	}
}

func TestUnknownCodec(t *testing.T) {
	_, err := open("brotli", nil, nil)
	require.ErrorIs(t, err, release.ErrFormat)
}

func TestDamagedFrame(t *testing.T) {
	stored := squeeze(t, bytes.Repeat([]byte("some text that is long enough "), 1000))
	for n := range len(stored) - 1 {
		_, err := open(release.Zstd, stored[:n+1], nil)
		require.Error(t, err, "cut after %d bytes", n+1)
	}
}

func TestWindowIsLimited(t *testing.T) {
	var buf bytes.Buffer
	enc, err := zstd.NewWriter(&buf, zstd.WithWindowSize(2*codec.MaxWindow))
	require.NoError(t, err)
	_, err = io.CopyN(enc, rand.NewChaCha8([32]byte{}), 3*codec.MaxWindow)
	require.NoError(t, err)
	require.NoError(t, enc.Close())
	_, err = open(release.Zstd, buf.Bytes(), nil)
	require.ErrorIs(t, err, zstd.ErrWindowSizeExceeded)
}

// pieces is a text of named lines.
func pieces(lines map[int]string) (iter.Seq2[string, []byte], []byte) {
	var text []byte
	for i := range 1000 {
		text = append(text, lines[i]...)
	}
	return func(yield func(string, []byte) bool) {
		for i := range 1000 {
			if l, ok := lines[i]; ok && !yield(fmt.Sprintf("%04d", i), []byte(l)) {
				return
			}
		}
	}, text
}

func TestSplice(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	line := func(i int) string {
		return fmt.Sprintf("%d %x\n", i, sha256.Sum256([]byte{byte(rnd.IntN(4))}))
	}
	for range 200 {
		from, to := map[int]string{}, map[int]string{}
		for i := range rnd.IntN(300) {
			if rnd.IntN(5) > 0 {
				from[i] = line(i)
			}
			switch rnd.IntN(8) {
			case 0:
				to[i] = line(i)
			case 1:
			default:
				if l, ok := from[i]; ok {
					to[i] = l
				}
			}
		}
		fromSeq, fromText := pieces(from)
		toSeq, toText := pieces(to)
		script := codec.Script(fromSeq, toSeq)
		got, err := open(release.Splice, squeeze(t, script), fromText)
		require.NoError(t, err)
		require.Equal(t, string(toText), string(got))
	}
}

func TestSpliceTakesLittle(t *testing.T) {
	from, to := map[int]string{}, map[int]string{}
	for i := range 1000 {
		from[i] = fmt.Sprintf("%d %x\n", i, sha256.Sum256([]byte{byte(i), byte(i >> 8)}))
		to[i] = from[i]
	}
	to[500] = "500 other\n"
	fromSeq, _ := pieces(from)
	toSeq, _ := pieces(to)
	require.Less(t, len(codec.Script(fromSeq, toSeq)), 40)
}

func TestDamagedScript(t *testing.T) {
	for name, script := range map[string][]byte{
		"copy beyond the end":  {11 << 2},
		"skip beyond the end":  {11<<2 | 1},
		"insert cut short":     {5<<2 | 2, 'a'},
		"step without bytes":   {0},
		"unknown step":         {1<<2 | 3},
		"number cut short":     {0x80},
		"number too long":      bytes.Repeat([]byte{0x80}, 11),
		"length out of bounds": {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(release.Splice, squeeze(t, script), []byte("0123456789"))
			require.Error(t, err)
		})
	}
}

// noise gives zero bytes with a little in them that changes.
type noise struct{ left int64 }

func (z *noise) Read(p []byte) (int, error) {
	if z.left <= 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), z.left)]
	clear(p)
	for i := 0; i < len(p); i += 61 {
		p[i] = byte(z.left>>8) ^ byte(i)
	}
	z.left -= int64(len(p))
	return len(p), nil
}

// TestMemory decodes a long blob as a stream: what is held does not grow with
// its length.
func TestMemory(t *testing.T) {
	size := int64(1 << 30)
	if testing.Short() {
		size = 64 << 20
	}
	pr, pw := io.Pipe()
	go func() {
		enc, _ := zstd.NewWriter(pw, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(codec.MaxWindow))
		_, err := io.Copy(enc, &noise{left: size})
		pw.CloseWithError(cmpErr(err, enc.Close()))
	}()
	// The encoder's share is measured by itself: it is there after the first
	// bytes arrived.
	stored := make([]byte, 1)
	_, err := io.ReadFull(pr, stored)
	require.NoError(t, err)
	before := heap()
	r, err := codec.NewReader(release.Zstd, io.MultiReader(bytes.NewReader(stored), pr), nil)
	require.NoError(t, err)
	defer r.Close()
	var most uint64
	n, buf := int64(0), make([]byte, 64<<10)
	for step := 0; ; step++ {
		k, err := r.Read(buf)
		n += int64(k)
		if step%2048 == 0 {
			most = max(most, heap())
		}
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
	}
	require.Equal(t, size, n)
	held := int64(most) - int64(before)
	t.Logf("%d MiB decoded, %.1f MiB held at most", size>>20, float64(held)/(1<<20))
	require.Less(t, held, int64(16<<20))
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

func FuzzSplice(f *testing.F) {
	f.Add([]byte{5 << 2, 5<<2 | 1, 1<<2 | 2, 'x'}, []byte("0123456789"))
	f.Fuzz(func(t *testing.T, script, from []byte) {
		r, err := codec.NewReader(release.Splice, bytes.NewReader(squeeze(t, script)), from)
		require.NoError(t, err)
		defer r.Close()
		out, err := io.ReadAll(io.LimitReader(r, 1<<20))
		if err == nil && len(out) > len(from)+len(script) {
			t.Fatalf("%d bytes out of %d and %d", len(out), len(from), len(script))
		}
	})
}

func BenchmarkSmall(b *testing.B) {
	stored := squeeze(b, bytes.Repeat([]byte("func main() { println(42) }\n"), 150))
	b.ReportAllocs()
	for b.Loop() {
		r, _ := codec.NewReader(release.Zstd, bytes.NewReader(stored), nil)
		_, _ = io.Copy(io.Discard, r)
		r.Close()
	}
}

// One decoder takes forms one after the other, also after one that was damaged.
func TestDecoder(t *testing.T) {
	var d codec.Decoder
	for i := range 50 {
		data := bytes.Repeat([]byte{byte(i), 'x'}, 100*i)
		c, stored := release.Zstd, squeeze(t, data)
		if i%3 == 0 {
			c, stored = release.Raw, data
		}
		r, err := d.Reader(c, bytes.NewReader(stored))
		require.NoError(t, err)
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, data, got)
		if r, err = d.Reader(release.Zstd, bytes.NewReader(squeeze(t, data)[:i%9])); err == nil {
			_, err = io.ReadAll(r)
		}
		require.True(t, err != nil || i%9 == 0, "%d bytes of a frame", i%9)
	}
	_, err := d.Reader("brotli", nil)
	require.ErrorIs(t, err, release.ErrFormat)
	_, err = d.Reader(release.Splice, nil)
	require.ErrorIs(t, err, release.ErrFormat)
}
