//go:build linux

package publish

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

// TestLongBlobs: what is long goes through in pieces, and stays as it is where
// compression gains nothing.
func TestLongBlobs(t *testing.T) {
	f := newFixture(t)
	random := make([]byte, 4<<20+1)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(random)
	dir := tree{
		"long":         string(bytes.Repeat([]byte("all the same "), 1<<20)),
		"random":       string(random),
		"small":        "small and the same the same the same the same the same the same",
		"small random": string(random[:1000]),
	}.write(t)
	a, err := f.Release(t.Context(), spec("1", dir))
	require.NoError(t, err)
	v, err := f.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 5, v.Blobs)
	l := f.newest(t)
	table, err := f.disk.table(l.locator)
	require.NoError(t, err)
	codec := func(b release.Blob) (c release.Codec, n int) {
		pieces, ok := table.Pieces(b)
		require.True(t, ok)
		for _, p := range pieces {
			c = p.Codec
		}
		return c, len(pieces)
	}
	c, n := codec(blobOf(random))
	require.Equal(t, release.Raw, c)
	require.Greater(t, n, 16)
	c, n = codec(blobOf(random[:1000]))
	require.Equal(t, release.Raw, c)
	require.Equal(t, 1, n)
	c, n = codec(blobOf(bytes.Repeat([]byte("all the same "), 1<<20)))
	require.Equal(t, release.Zstd, c)
	require.Greater(t, n, 16)
	require.Less(t, a.Stored, int64(len(random)+20_000))
}

// TestPackList refuses packs whose list of blobs is damaged.
func TestPackList(t *testing.T) {
	f := newFixture(t)
	_, err := f.Release(t.Context(), spec("1", many(3, "").write(t)))
	require.NoError(t, err)
	state, err := f.disk.load(nil, start)
	require.NoError(t, err)
	all, err := f.disk.listed(state)
	require.NoError(t, err)
	pack := all[0].locator.Packs[0]
	data, err := os.ReadFile(f.disk.path(pack.Name))
	require.NoError(t, err)
	count := 0
	require.NoError(t, f.disk.readPack(pack, func(release.Digest, spot) { count++ }))
	require.Equal(t, 4, count)
	for i := len(data) - 200; i < len(data); i++ {
		for _, bit := range []byte{1, 0x80, 0xff} {
			broken := bytes.Clone(data)
			broken[i] ^= bit
			require.NoError(t, os.WriteFile(f.disk.path(pack.Name), broken, 0o644))
			err := f.disk.readPack(pack, func(_ release.Digest, s spot) {
				require.LessOrEqual(t, s.offset+s.length, pack.Size)
			})
			if i >= len(data)-int(packTail) {
				require.Error(t, err, "byte %d", i)
			}
		}
	}
	require.NoError(t, os.WriteFile(f.disk.path(pack.Name), data[1:], 0o644))
	require.Error(t, f.disk.readPack(pack, nil))
}

// TestOpenPlace: what lies at a place and is not the blob ends in an error, never
// in io.EOF.
func TestOpenPlace(t *testing.T) {
	f := newFixture(t)
	_, err := f.Release(t.Context(), spec("1", tree{"a": "aaa", "b": "bbb"}.write(t)))
	require.NoError(t, err)
	state, err := f.disk.load(nil, start)
	require.NoError(t, err)
	all, err := f.disk.listed(state)
	require.NoError(t, err)
	pack := all[0].locator.Packs[0]
	at := map[release.Digest]spot{}
	require.NoError(t, f.disk.readPack(pack, func(d release.Digest, s spot) { at[d] = s }))
	a := blobOf([]byte("aaa"))
	read := func(b release.Blob) error {
		r := f.disk.openPieces(b, []release.Piece{{Place: at[a.Digest].place(), Size: b.Size}})
		defer r.Close()
		_, err := io.ReadAll(r)
		return err
	}
	require.NoError(t, read(a))
	require.ErrorIs(t, read(blobOf([]byte("bbb"))), errBlob, "another blob")
	require.ErrorIs(t, read(release.Blob{Digest: a.Digest, Size: 2}), errBlob, "too long")
	require.ErrorIs(t, read(release.Blob{Digest: a.Digest, Size: 4}), errBlob, "too short")
}

// BenchmarkLongFile publishes a file of 1 GiB, and fails when more is held than
// the tables of the compression take.
func BenchmarkLongFile(b *testing.B) {
	dir := b.TempDir()
	writeLongFile(b, filepath.Join(dir, "image"), 1024)
	b.SetBytes(1 << 30)
	for b.Loop() {
		f := newFixture(b)
		before, most, steps := heapInUse(), uint64(0), 0
		r, err := Open(Options{Dir: f.dir, Keys: f.keys, Now: f.opts.Now, Progress: func(Progress) {
			if steps++; steps%64 == 0 {
				most = max(most, heapInUse())
			}
		}})
		require.NoError(b, err)
		a, err := r.Release(b.Context(), spec("1", dir))
		require.NoError(b, err)
		b.ReportMetric(float64(most-before)/(1<<20), "MiB-held")
		b.ReportMetric(float64(a.Stored)/(1<<20), "MiB-stored")
		require.Less(b, most-before, uint64(min(runtime.GOMAXPROCS(0), maxEncoders)+1)*100<<20)
		_, err = r.Verify(b.Context(), nil)
		require.NoError(b, err)
	}
}

// writeLongFile writes n MiB, of which a quarter cannot be compressed.
func writeLongFile(t testing.TB, path string, n int) {
	out, err := os.Create(path)
	require.NoError(t, err)
	block := make([]byte, 1<<20)
	rnd := rand.NewChaCha8([32]byte{2})
	for range n {
		_, _ = rnd.Read(block[:len(block)/4])
		_, err := out.Write(block)
		require.NoError(t, err)
	}
	require.NoError(t, out.Close())
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// TestPackListGolden reads the list of a pack as it was written when format 1
// was made: publishers have to read it for ever.
func TestPackListGolden(t *testing.T) {
	path := filepath.Join("testdata", "format-1", "pack")
	file, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer file.Close()
	p := newPacker(file)
	_, err = p.piece(blobOf([]byte("index")), release.Raw, strings.NewReader("index"))
	require.NoError(t, err)
	_, _, err = p.other(strings.NewReader("patch"))
	require.NoError(t, err)
	_, err = p.piece(blobOf(bytes.Repeat([]byte("file"), 100)), release.Zstd, strings.NewReader("stored"))
	require.NoError(t, err)
	b, err := p.finish()
	require.NoError(t, err)
	made, err := os.ReadFile(file.Name())
	require.NoError(t, err)
	require.Equal(t, blobOf(made), b)
	if os.Getenv("PAWL_UPDATE") != "" {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, made, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, made)

	d := &disk{dir: t.TempDir()}
	pack := release.Pack{Name: release.PackName(release.Sum(want)), Size: int64(len(want))}
	require.NoError(t, d.writeFile(pack.Name, want))
	var got []shelved
	require.NoError(t, d.readPack(pack, func(b release.Digest, s spot) { got = append(got, shelved{release.Blob{Digest: b, Size: s.size}, s}) }))
	digest, err := pack.Digest()
	require.NoError(t, err)
	require.Equal(t, []shelved{
		{blobOf([]byte("index")), spot{pack: digest, offset: 0, length: 5, size: 5, codec: release.Raw}},
		{blobOf(bytes.Repeat([]byte("file"), 100)), spot{pack: digest, offset: 10, length: 6, size: 400, codec: release.Zstd}},
	}, got)
}

func FuzzPackList(f *testing.F) {
	f.Add([]byte{packOther, 5}, int64(5))
	f.Add(append(append([]byte{1}, make([]byte, 32)...), 9, 5), int64(5))
	f.Fuzz(func(t *testing.T, list []byte, size int64) {
		size = max(0, size)
		at := int64(0)
		err := parsePackList(list, release.Digest{1}, size, func(_ release.Digest, s spot) {
			if s.offset < at || s.length < 0 || s.offset+s.length > size || s.size < 0 || s.size > release.MaxBlob {
				t.Fatalf("a piece that cannot be: %+v", s)
			}
			at = s.offset + s.length
		})
		if err == nil && at > size {
			t.Fatal("beyond the end")
		}
	})
}
