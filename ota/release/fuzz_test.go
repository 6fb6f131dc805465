package release_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

func FuzzParse(f *testing.F) {
	data, err := sampleRelease().Encode()
	require.NoError(f, err)
	f.Add(data)
	data, err = sampleScripts().Encode()
	require.NoError(f, err)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := release.Parse(data)
		if err != nil {
			return
		}
		again, err := r.Encode()
		require.NoError(t, err)
		require.Equal(t, data, again)
		require.Equal(t, release.Sum(data), r.Digest())
		seen := map[release.Blob]bool{}
		for _, b := range r.ScriptBlobs() {
			if seen[b] || b.Size <= 0 || b.Size > release.MaxScript {
				t.Fatalf("a program that cannot be: %+v", b)
			}
			seen[b] = true
		}
	})
}

func FuzzReadIndex(f *testing.F) {
	f.Add(encodeIndex(f, sampleIndex()))
	f.Fuzz(func(t *testing.T, data []byte) {
		ix, err := release.ReadIndex(bytes.NewReader(data), 1000)
		if err != nil {
			return
		}
		require.Equal(t, data, encodeIndex(t, ix))
	})
}

func FuzzParseLocator(f *testing.F) {
	data, err := sampleLocator(sampleTable(f)).Encode()
	require.NoError(f, err)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := release.ParseLocator(data)
		if err != nil {
			return
		}
		again, err := l.Encode()
		require.NoError(t, err)
		require.Equal(t, data, again)
		for _, p := range l.Patches {
			l.Place(p)
		}
		for _, d := range l.Deltas {
			if got, ok := l.Delta(d.Component, d.To, d.From); !ok || got.Start+got.Groups > l.Packs[got.Pack].Size {
				t.Fatalf("a delta outside of its pack: %+v", got)
			}
		}
	})
}

func FuzzParseTable(f *testing.F) {
	f.Add([]byte(smallTable), false)
	f.Add([]byte(cutTable), false)
	f.Add(sampleTable(f), true)
	f.Fuzz(func(t *testing.T, data []byte, packed bool) {
		if !packed {
			data = squeeze(t, data)
		}
		l := sampleLocator(data)
		table, err := release.ParseTable(data, l)
		if err != nil {
			return
		}
		size := map[string]int64{}
		for _, p := range l.Packs {
			size[p.Name] = p.Size
		}
		for b := range 256 {
			blob := release.Blob{Digest: release.Digest{byte(b)}, Size: int64(b)}
			p, one := table.Find(blob)
			pieces, ok := table.Pieces(blob)
			if one && (len(pieces) != 1 || pieces[0].Place != p) {
				t.Fatalf("one piece at %+v, pieces %+v", p, pieces)
			}
			all := int64(0)
			for _, p := range pieces {
				if p.Offset < 0 || p.Length < 0 || p.Offset+p.Length > size[p.Pack] {
					t.Fatalf("a place outside of its pack: %+v", p)
				}
				all += p.Size
			}
			if ok && all != blob.Size {
				t.Fatalf("pieces of %d bytes for a blob of %d", all, blob.Size)
			}
		}
	})
}

func FuzzParseEnclosed(f *testing.F) {
	stored, err := release.EncodeEnclosed(sampleEnclosed())
	require.NoError(f, err)
	f.Add(stored, true)
	f.Add([]byte("[{\"name\":\"a\",\"size\":2}]\nab"), false)
	f.Fuzz(func(t *testing.T, data []byte, packed bool) {
		if !packed {
			data = squeeze(t, data)
		}
		list, err := release.ParseEnclosed(data)
		for _, e := range list {
			require.NoError(t, err)
			require.Len(t, e.Data, e.Size)
			require.GreaterOrEqual(t, e.Offset, int64(0))
		}
	})
}

func FuzzParseDelta(f *testing.F) {
	stored, err := release.EncodeDelta(sampleDelta())
	require.NoError(f, err)
	f.Add(stored, true, 10, 10)
	f.Add([]byte(smallDelta), false, 2, 3)
	f.Fuzz(func(t *testing.T, data []byte, packed bool, from, to int) {
		if !packed {
			data = squeeze(t, data)
		}
		d := deltaOf(data)
		dir, err := release.ParseDelta(data, d, max(from, 0)%1000, max(to, 0)%1000)
		if err != nil {
			return
		}
		at, seen := int64(0), map[int]bool{}
		for _, g := range dir.Groups {
			if g.Offset != at || g.Length < 0 {
				t.Fatalf("a group of %d bytes at %d, not %d", g.Length, g.Offset, at)
			}
			at += g.Length
			for _, p := range g.Patches {
				if p.To < 0 || p.To >= max(to, 0)%1000 || p.From < -1 || p.From >= max(from, 0)%1000 || seen[p.To] {
					t.Fatalf("a patch that cannot be: %+v", p)
				}
				seen[p.To] = true
			}
		}
		require.Equal(t, d.Groups, at)
		again, err := release.EncodeDelta(dir)
		require.NoError(t, err)
		same, err := release.ParseDelta(again, deltaOf(again), max(from, 0)%1000, max(to, 0)%1000)
		require.NoError(t, err)
		require.Equal(t, dir, same)
	})
}

func FuzzParseDigest(f *testing.F) {
	f.Add(sum("x").String())
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := release.ParseDigest(s); err == nil {
			require.Equal(t, s, d.String())
		}
	})
}
