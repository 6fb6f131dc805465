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
	})
}

func FuzzParseTable(f *testing.F) {
	f.Add([]byte("pawl-table/0\n\x02\x04\x01\x01\x00\x01\x00\x05\x09\x03aaaabbbb"), false)
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
			p, ok := table.Find(release.Blob{Digest: release.Digest{byte(b)}})
			if ok && (p.Offset < 0 || p.Length < 0 || p.Offset+p.Length > size[p.Pack]) {
				t.Fatalf("a place outside of its pack: %+v", p)
			}
		}
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
