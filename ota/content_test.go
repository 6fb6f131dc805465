package ota

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

func blobOf(data []byte) release.Blob {
	return release.Blob{Digest: release.Sum(data), Size: int64(len(data))}
}

// A verifying reader ends in io.EOF for the right bytes only, however they
// come.
func TestVerified(t *testing.T) {
	data := bytes.Repeat([]byte("pawl "), 1000)
	broken := errors.New("the line broke")
	for _, c := range []struct {
		name string
		r    io.Reader
		want error
	}{
		{"right", bytes.NewReader(data), nil},
		{"byte by byte", iotest.OneByteReader(bytes.NewReader(data)), nil},
		{"data with EOF", iotest.DataErrReader(bytes.NewReader(data)), nil},
		{"short", bytes.NewReader(data[:len(data)-1]), ErrLength},
		{"empty", bytes.NewReader(nil), ErrLength},
		{"long", bytes.NewReader(append(bytes.Clone(data), 'x')), ErrLength},
		{"endless", endless{}, ErrLength},
		{"changed", bytes.NewReader(append([]byte("P"), data[1:]...)), ErrDigest},
		{"broken", io.MultiReader(bytes.NewReader(data[:7]), iotest.ErrReader(broken)), broken},
		{"cut", io.MultiReader(bytes.NewReader(data[:7]), iotest.ErrReader(io.ErrUnexpectedEOF)), io.ErrUnexpectedEOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newVerified(c.r, blobOf(data))
			got, err := io.ReadAll(v)
			if c.want == nil {
				require.NoError(t, err)
				require.Equal(t, data, got)
				require.True(t, v.ok())
				return
			}
			require.ErrorIs(t, err, c.want)
			require.False(t, v.ok())
			require.True(t, v.bad())
			_, err = v.Read(make([]byte, 1))
			require.ErrorIs(t, err, c.want, "the error stays")
		})
	}
	empty := newVerified(bytes.NewReader(nil), blobOf(nil))
	_, err := io.ReadAll(empty)
	require.NoError(t, err)
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// shelf is a Source whose content lies in one pack.
type shelf struct {
	pack     []byte
	files    map[string][]byte
	requests []string
}

func (s *shelf) Latest(context.Context, Device) (*release.Release, error) { return nil, ErrNoRelease }

func (s *shelf) Locator(context.Context, *release.Release) (*release.Locator, error) {
	return nil, ErrNoRelease
}

func (s *shelf) Open(_ context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	s.requests = append(s.requests, fmt.Sprintf("%s %d+%d", name[len(name)-6:], offset, length))
	data, ok := s.files[name]
	if !ok {
		return nil, fmt.Errorf("no file %s", name)
	}
	return io.NopCloser(bytes.NewReader(data[offset : offset+length])), nil
}

// stocked returns content over a shelf that holds the blobs, with a hole of
// the given length before each, and an empty local copy.
func stocked(t *testing.T, hole int, blobs ...[]byte) (*content, *shelf) {
	s := &shelf{files: map[string][]byte{}}
	enc, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	var rows []release.TableRow
	for i, b := range blobs {
		s.pack = append(s.pack, make([]byte, hole)...)
		stored, c := b, release.Raw
		if i%2 == 0 {
			stored, c = enc.EncodeAll(b, nil), release.Zstd
		}
		rows = append(rows, release.TableRow{
			Digest: release.Sum(b), Pack: 0, Offset: int64(len(s.pack)), Length: int64(len(stored)), Codec: c,
		})
		s.pack = append(s.pack, stored...)
	}
	name := release.PackName(release.Sum(s.pack))
	s.files[name] = s.pack
	table, err := release.EncodeTable(rows, nil, 1)
	require.NoError(t, err)
	s.files[release.TableName(release.Sum(table))] = table
	dir, err := durable.OpenDir(t.TempDir() + "/state")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, dir.Close()) })
	u := &Updater{dir: dir}
	c := newContent(u)
	c.source, c.locator = s, &release.Locator{
		Packs: []release.Pack{{Name: name, Size: int64(len(s.pack))}}, Table: blobOf(table),
	}
	return c, s
}

func some(n int) [][]byte {
	var blobs [][]byte
	for i := range n {
		blobs = append(blobs, bytes.Repeat([]byte{byte(i), byte(i >> 8), 'x'}, 100+i))
	}
	return blobs
}

func TestEachMergesRequests(t *testing.T) {
	blobs := some(50)
	for _, c := range []struct {
		hole, requests int
	}{{0, 1}, {mergeGap, 1}, {mergeGap + 1, 50}} {
		t.Run(fmt.Sprint(c.hole), func(t *testing.T) {
			content, shelf := stocked(t, c.hole, blobs...)
			var want []release.Blob
			for _, b := range blobs {
				want = append(want, blobOf(b), blobOf(b)) // each named twice
			}
			got := map[release.Digest][]byte{}
			err := content.Each(t.Context(), want, func(b release.Blob, r io.Reader) error {
				require.NotContains(t, got, b.Digest)
				data, err := io.ReadAll(r)
				got[b.Digest] = data
				return err
			})
			require.NoError(t, err)
			require.Len(t, got, len(blobs))
			for _, b := range blobs {
				require.Equal(t, b, got[release.Sum(b)])
			}
			require.Len(t, shelf.requests, 1+c.requests, "the table, then the packs: %v", shelf.requests)
		})
	}
}

// Whatever byte of a pack is flipped, Each ends well only with the right
// bytes, and nothing wrong is kept. (Some bits of a frame's header change
// nothing, and the holes are not read.)
func TestEachRefusesWrongBytes(t *testing.T) {
	blobs := some(4)
	content, shelf := stocked(t, 3, blobs...)
	content.keeps = true
	var want []release.Blob
	for _, b := range blobs {
		want = append(want, blobOf(b))
	}
	clean := bytes.Clone(shelf.pack)
	refused := 0
	for i := range clean {
		copy(shelf.pack, clean)
		shelf.pack[i] ^= 0x10
		var got [][]byte
		err := content.Each(t.Context(), want, func(_ release.Blob, r io.Reader) error {
			data, err := io.ReadAll(r)
			got = append(got, data)
			return err
		})
		if err == nil {
			require.Equal(t, blobs, got)
		} else {
			refused++
		}
		for _, b := range want {
			if n, err := content.u.dir.Size(content.u.store().name(b.Digest)); err == nil {
				require.Equal(t, b.Size, n)
				_, err := content.u.store().get(b.Digest, b.Size)
				require.NoError(t, err, "something wrong was kept")
			}
			require.NoError(t, content.u.dir.Remove(content.u.store().name(b.Digest)))
		}
	}
	require.Greater(t, refused, len(clean)*9/10)
}

// Nothing is asked for to get an empty blob.
func TestEmptyBlob(t *testing.T) {
	content, shelf := stocked(t, 0, some(1)...)
	puts := 0
	require.NoError(t, content.Each(t.Context(), []release.Blob{blobOf(nil)}, func(_ release.Blob, r io.Reader) error {
		puts++
		data, err := io.ReadAll(r)
		require.Empty(t, data)
		return err
	}))
	require.Equal(t, 1, puts)
	r, err := content.Open(t.Context(), blobOf(nil))
	require.NoError(t, err)
	_, err = io.ReadAll(r)
	require.NoError(t, err)
	require.Empty(t, shelf.requests)
	wrong := release.Blob{Digest: release.Sum([]byte("x"))}
	require.ErrorIs(t, content.Each(t.Context(), []release.Blob{wrong}, func(_ release.Blob, r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	}), ErrDigest)
}

// A put that fails, or does not read to the end, ends Each with its reason.
func TestEachPassesOnWhatPutSays(t *testing.T) {
	blobs := some(2)
	content, _ := stocked(t, 0, blobs...)
	mine := errors.New("my disk is full")
	err := content.Each(t.Context(), []release.Blob{blobOf(blobs[0])}, func(release.Blob, io.Reader) error { return mine })
	require.ErrorIs(t, err, mine)
	err = content.Each(t.Context(), []release.Blob{blobOf(blobs[0])}, func(release.Blob, io.Reader) error { return nil })
	require.ErrorContains(t, err, "not read to its end")
}

// failingSync is a state folder whose disk does not take what was written.
type failingSync struct{ seam.Dir }

func (failingSync) Sync() error { return syscall.EIO }

// What a failed sync leaves reads well and may not be on the disk: it is
// dropped, to be fetched and written anew.
func TestFailedSyncKeepsNothing(t *testing.T) {
	blobs := some(3)
	content, _ := stocked(t, 0, blobs...)
	require.NoError(t, content.u.keepAll(t.Context(), content, []release.Blob{blobOf(blobs[0])}, nil))
	require.NoError(t, content.u.syncPlaced())
	require.NoError(t, content.u.keepAll(t.Context(), content, []release.Blob{blobOf(blobs[1])}, nil))
	good := content.u.dir
	content.u.dir = failingSync{good}
	require.ErrorIs(t, content.u.syncPlaced(), syscall.EIO)
	content.u.dir = good
	require.True(t, content.u.store().has(blobOf(blobs[0])), "what was durable before stays")
	require.False(t, content.u.store().has(blobOf(blobs[1])))
}

// What is kept is used before the source is asked, and a damaged copy is not.
func TestLocalCopyComesFirst(t *testing.T) {
	blobs := some(2)
	content, shelf := stocked(t, 0, blobs...)
	read := func() {
		r, err := content.Open(t.Context(), blobOf(blobs[0]))
		require.NoError(t, err)
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		require.Equal(t, blobs[0], got)
	}
	read()
	asked := len(shelf.requests)
	require.NoError(t, content.u.keepAll(t.Context(), content, []release.Blob{blobOf(blobs[0])}, nil))
	asked += 1
	read()
	require.Len(t, shelf.requests, asked)
	damaged := bytes.Clone(blobs[0])
	damaged[5] ^= 1
	require.NoError(t, content.u.dir.WriteFile(content.u.store().name(release.Sum(blobs[0])), damaged))
	read()
	require.Len(t, shelf.requests, asked+1)
	content.source = nil
	_, err := content.Open(t.Context(), blobOf(blobs[1]))
	require.ErrorIs(t, err, ErrNotLocal)
}
