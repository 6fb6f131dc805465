package ota

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// endlessPack is a repository of one long blob, made as it is read: pieces of
// noise, stored as they are.
type endlessPack struct {
	Source
	pieces int
	name   string
	table  []byte
}

const noisePiece = 256 << 10

func (p *endlessPack) piece(i int) []byte {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], uint64(i))
	data := make([]byte, noisePiece)
	_, _ = rand.NewChaCha8(seed).Read(data)
	return data
}

func (p *endlessPack) Open(_ context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if name != p.name {
		return io.NopCloser(io.NewSectionReader(tableReader(p.table), offset, length)), nil
	}
	return io.NopCloser(io.NewSectionReader(p, offset, length)), nil
}

func (p *endlessPack) ReadAt(b []byte, at int64) (int, error) {
	return copy(b, p.piece(int(at / noisePiece))[at%noisePiece:]), nil
}

type tableReader []byte

func (r tableReader) ReadAt(b []byte, at int64) (int, error) { return copy(b, r[at:]), nil }

// TestMemoryOfLongBlob: what is held does not grow with a blob.
func TestMemoryOfLongBlob(t *testing.T) {
	size := 1 << 30
	if testing.Short() {
		size = 64 << 20
	}
	p := &endlessPack{pieces: size / noisePiece, name: release.PackName(release.Sum(nil))}
	cut, whole := release.TableCut{}, sha256.New()
	for i := range p.pieces {
		data := p.piece(i)
		whole.Write(data)
		cut.Pieces = append(cut.Pieces, release.TableRow{
			Digest: release.Sum(data), Offset: int64(i) * noisePiece, Length: noisePiece, Codec: release.Raw, Size: noisePiece,
		})
	}
	cut.Digest = release.Digest(whole.Sum(nil))
	var err error
	p.table, err = release.EncodeTable(nil, []release.TableCut{cut}, 1)
	require.NoError(t, err)
	dir, err := durable.OpenDir(t.TempDir() + "/state")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, dir.Close()) })
	c := newContent(&Updater{dir: dir, rec: &record{}})
	c.source, c.spool = p, newSpool(dir)
	c.locator = &release.Locator{Packs: []release.Pack{{Name: p.name, Size: int64(size)}}, Table: blobOf(p.table)}

	before, most := heapInUse(), uint64(0)
	b := release.Blob{Digest: cut.Digest, Size: int64(size)}
	require.NoError(t, c.Each(t.Context(), []release.Blob{b}, func(_ release.Blob, r io.Reader) error {
		buf := make([]byte, 64<<10)
		for n := 0; ; n++ {
			if n%1024 == 0 {
				most = max(most, heapInUse())
			}
			if _, err := r.Read(buf); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
	}))
	held := int64(most) - int64(before)
	t.Logf("%d MiB in pieces, %.1f MiB held at most", size>>20, float64(held)/(1<<20))
	require.Less(t, held, int64(8<<20))
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}
