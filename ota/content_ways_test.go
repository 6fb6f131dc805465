package ota

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

// sizes of files of which some are cut into pieces.
var sizes = []int{700_000, 3_000, 400_000, 2_000, 300_000, 5_000}

// A device that has what the patches start from needs no table, and few bytes.
func TestEachByDelta(t *testing.T) {
	base := newDepot(t, sizes...)
	for _, inOrder := range []bool{false, true} {
		s := newSite(t, base.anew())
		s.inOrder = inOrder
		require.NoError(t, s.fetch(t))
		s.whole(t)
		require.Zero(t, s.askedFor(".table"), "%v", s.asked)
		require.LessOrEqual(t, len(s.asked), 2, "%v", s.asked)
		require.Equal(t, int64(len(s.files[s.locator.Packs[1].Name])), s.bytes)
		require.Zero(t, s.again)
	}
}

// Two groups of patches are applied at once, where the backend takes it: the
// first blobs of two meet.
func TestEachAtOnce(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	}
	s := newSite(t, newDepot(t, sizes...))
	var blobs []release.Blob
	for _, b := range s.news {
		blobs = append(blobs, blobOf(b))
	}
	var begun atomic.Int64
	meet := make(chan struct{})
	err := s.content.EachAtOnce(t.Context(), blobs, func(_ release.Blob, r io.Reader) error {
		if begun.Add(1) == 2 {
			close(meet)
		}
		select {
		case <-meet:
		case <-time.After(10 * time.Second):
			return errors.New("nobody came")
		}
		_, err := io.Copy(io.Discard, r)
		return err
	})
	require.NoError(t, err)
	require.EqualValues(t, len(blobs), begun.Load())
	require.Zero(t, s.again)

	s = newSite(t, s.anew())
	err = s.content.EachAtOnce(t.Context(), blobs, func(release.Blob, io.Reader) error { return fs.ErrInvalid })
	require.ErrorIs(t, err, fs.ErrInvalid)
}

// Without a delta the pieces that changed are fetched, and the others taken
// from the files that they are in.
func TestEachByPieces(t *testing.T) {
	s := newSite(t, newDepot(t, sizes...))
	s.locator.Deltas = nil
	require.NoError(t, s.fetch(t))
	s.whole(t)
	require.Less(t, s.bytes, int64(len(s.files[s.locator.Packs[0].Name]))*6/10, "pieces on the device were fetched")
	require.Positive(t, s.backend.cuts)
	fresh := newSite(t, newDepot(t, sizes...))
	fresh.locator.Deltas, fresh.backend.has = nil, nil
	require.NoError(t, fresh.fetch(t))
	fresh.whole(t)
	require.Len(t, fresh.asked, 2, "the table and the pack: %v", fresh.asked)
}

// Each of the files that patches start from, damaged or gone: only what was to
// come from it is brought in pieces.
func TestDamagedInput(t *testing.T) {
	base := newDepot(t, sizes...)
	for i := range base.olds {
		for _, damage := range []func([]byte) []byte{
			func(b []byte) []byte { b[10] ^= 1; return b },
			func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
			func(b []byte) []byte { return b[:len(b)-1] },
			func(b []byte) []byte { return append(b, 'x') },
			func([]byte) []byte { return nil },
		} {
			s := newSite(t, base.anew())
			old := release.Sum(s.olds[i])
			s.backend.has[old] = damage(s.backend.has[old])
			if s.backend.has[old] == nil {
				delete(s.backend.has, old)
			}
			require.NoError(t, s.fetch(t), "file %d", i)
			s.whole(t)
			require.Zero(t, s.again)
			require.LessOrEqual(t, s.askedFor(".table"), 1)
		}
	}
}

// A pack that is not there is no end while there is another way.
func TestMissingPacks(t *testing.T) {
	names := func(s *site) []string {
		return []string{s.locator.Packs[0].Name, s.locator.Packs[1].Name, release.TableName(s.locator.Table.Digest)}
	}
	base := newDepot(t, sizes...)
	for gone := range 8 {
		s := newSite(t, base.anew())
		for i, name := range names(s) {
			s.missing[name] = gone>>i&1 == 1
		}
		err := s.fetch(t)
		if s.missing[names(s)[1]] && gone != 2 {
			require.ErrorIs(t, err, fs.ErrNotExist, "gone %b", gone)
			continue
		}
		require.NoError(t, err, "gone %b", gone)
		s.whole(t)
	}
}

// The repository was packed anew: the new locator is asked for, once.
func TestMovedContent(t *testing.T) {
	s := newSite(t, newDepot(t, sizes...))
	moved := *s.locator
	old := moved.Packs[1].Name
	data := append([]byte("moved"), s.files[old]...)
	name := release.PackName(release.Sum(data))
	s.files[name], s.missing[old] = data, true
	moved.Packs = []release.Pack{moved.Packs[0], {Name: name, Size: int64(len(data))}}
	moved.Deltas = []release.Delta{moved.Deltas[0]}
	moved.Deltas[0].Offset += 5
	moved.Deltas[0].Start += 5
	asked := 0
	s.content.relocate = func(context.Context) (*release.Locator, error) { asked++; return &moved, nil }
	require.NoError(t, s.fetch(t))
	s.whole(t)
	require.Equal(t, 1, asked)
	require.Zero(t, s.askedFor(".table"))
}

// Each byte of the repository is wrong, once or for ever: what comes is right, or
// an error says that it is not.
func TestWrongBytes(t *testing.T) {
	base := newDepot(t, 200_000, 3_000, 5_000)
	for name, data := range base.files {
		for at := 0; at < len(data); at += 1 + len(data)/60 {
			for _, always := range []bool{false, true} {
				d := base.anew()
				s := newSite(t, d)
				if name == d.locator.Packs[0].Name {
					s.locator.Deltas = nil
				}
				times := 0
				d.mend = func(file string, offset int64, p []byte) {
					if i := int64(at) - offset; file == name && i >= 0 && i < int64(len(p)) {
						if times++; times == 1 || always {
							p[i] ^= 0x41
						}
					}
				}
				err := s.fetch(t)
				if !always {
					require.NoError(t, err, "byte %d of %s wrong once", at, name)
				}
				if err == nil {
					s.whole(t)
				} else {
					require.Truef(t, isWrong(err), "byte %d of %s: %v", at, name, err)
				}
			}
		}
	}
}

// isWrong reports whether err says that content was wrong.
func isWrong(err error) bool {
	return errors.Is(err, ErrDigest) || errors.Is(err, ErrLength) || errors.Is(err, release.ErrInvalid)
}

// A source that ends early, never ends, or ends in errors.
func TestOddSources(t *testing.T) {
	s := newSite(t, newDepot(t, sizes...))
	s.endless = true
	require.NoError(t, s.fetch(t))
	s.whole(t)
	s = newSite(t, newDepot(t, sizes...))
	s.short = 1
	err := s.fetch(t)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	s.restart()
	for range 40 { // each time one byte less than asked for
		if err = s.fetch(t); err == nil {
			break
		}
		if len(s.asked) > 100 {
			break
		}
		s.short = 0
	}
	require.NoError(t, err)
	s.whole(t)
	require.Zero(t, s.again)
}

// Killed at any read, by delta and by pieces: no byte that came comes again.
func TestCutAtEachRead(t *testing.T) {
	base := newDepot(t, 200_000, 3_000, 150_000, 5_000)
	for _, deltas := range []bool{true, false} {
		for n := 1; ; n++ {
			d := base.anew()
			d.limit, d.breakAt = 7, n
			s := newSite(t, d)
			if !deltas {
				d.limit = 1500
				s.locator.Deltas = nil
			}
			err := s.fetch(t)
			if s.reads < n {
				require.NoError(t, err)
				require.Greater(t, n, 20)
				break
			}
			if err != nil { // a table that is not needed may be left out
				require.ErrorIs(t, err, io.ErrUnexpectedEOF)
				s.restart()
				require.NoError(t, s.fetch(t))
			}
			s.whole(t)
			require.Zero(t, s.again, "cut at read %d", n)
		}
	}
}

// What an input is read for is what it holds now: a file that changes while
// patches are applied is found out.
func TestInputThatChanges(t *testing.T) {
	s := newSite(t, newDepot(t, sizes...))
	first := release.Sum(s.olds[0])
	err := s.content.Each(t.Context(), []release.Blob{blobOf(s.news[0]), blobOf(s.news[1])}, func(b release.Blob, r io.Reader) error {
		if len(s.got) == 0 {
			_, _ = r.Read(make([]byte, 1))
			copy(s.backend.has[first], bytes.Repeat([]byte{'x'}, 100_000))
			s.got[b.Digest] = []byte{}
			_, err := io.Copy(io.Discard, r)
			return err
		}
		data, err := io.ReadAll(r)
		s.got[b.Digest] = data
		return err
	})
	require.NoError(t, err)
	require.Equal(t, s.news[0], s.got[release.Sum(s.news[0])])
}

// A file that changes after its pieces were found lends nothing any more: they
// are fetched.
func TestLenderThatChanges(t *testing.T) {
	s := newSite(t, newDepot(t, 700_000, 400_000, 5_000))
	s.locator.Deltas = nil
	p, err := s.content.plan(t.Context(), []release.Blob{blobOf(s.news[0]), blobOf(s.news[1])}, true)
	require.NoError(t, err)
	require.Positive(t, p.lent)
	for _, data := range s.backend.has {
		copy(data[len(data)/3:], bytes.Repeat([]byte{'x'}, len(data)/3))
	}
	require.NoError(t, s.fetch(t))
	s.whole(t)
	require.Zero(t, s.again)
}

// Of a range with a part in its middle that is here, only the two others are
// asked for.
func TestHoleInSpool(t *testing.T) {
	s := newSite(t, newDepot(t, sizes...))
	s.locator.Deltas, s.backend.has = nil, nil
	pack := s.locator.Packs[0]
	in := s.content.intake(&contentPlan{})
	require.NoError(t, in.fill(t.Context(), []release.Place{{Pack: pack.Name, Offset: pack.Size / 3, Length: pack.Size / 3}}))
	require.NoError(t, in.Close())
	s.restart()
	require.NoError(t, s.fetch(t))
	s.whole(t)
	require.Zero(t, s.again)
	require.Len(t, s.asked, 4, "%v", s.asked)
}

// A group of patches that came wrong is fetched again, once, before anything
// else is tried.
func TestGroupThatCameWrong(t *testing.T) {
	s := newSite(t, newDepot(t, 700_000, 400_000, 5_000))
	pack := s.locator.Packs[1].Name
	at, times := s.locator.Deltas[0].Start+s.locator.Deltas[0].Groups/3, 0
	s.mend = func(file string, offset int64, p []byte) {
		if i := at - offset; file == pack && i >= 0 && i < int64(len(p)) {
			if times++; times == 1 {
				p[i] ^= 0x41
			}
		}
	}
	require.NoError(t, s.fetch(t))
	s.whole(t)
	require.Equal(t, 2, times)
	for byte := range s.came {
		require.NotEqual(t, s.locator.Packs[0].Name, byte.file, "a piece was fetched: %v", s.asked)
	}
}
