//go:build linux

package publish

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

// TestFetches: what is said to be fetched is what the packs hold.
func TestFetches(t *testing.T) {
	f := newFixture(t)
	f.opts.Deltas = 2
	base := noise(1, 400_000)
	for i := range 5 {
		tr := tree{"app": edited(base, 399_000+100*i), "etc/conf": noise(byte(i), 5_000), "same": noise(9, 70_000)}
		_, err := f.Release(t.Context(), spec("1", tr.write(t)))
		require.NoError(t, err)
	}
	f.mustAddNew(t, "arm")
	all, err := f.Fetches(t.Context(), true)
	require.NoError(t, err)
	require.Len(t, all, 1+1+2+3+4+5)
	some, err := f.Fetches(t.Context(), false)
	require.NoError(t, err)
	require.Equal(t, append(all[:1:1], all[len(all)-5:]...), some)
	byFrom := map[uint64]Fetch{}
	for _, x := range some[1:] {
		require.Equal(t, release.ID{Product: "gateway", Variant: "default", Seq: 5}, x.To)
		require.Equal(t, x.Bytes, x.Indexes+x.Table+x.Deltas+x.Pieces)
		byFrom[x.From] = x
	}
	l := f.newest(t)
	require.Len(t, l.locator.Deltas, 2)
	d, patch := l.locator.Deltas[0], l.locator.Patches[0]
	require.Equal(t, Fetch{To: l.id(), From: 4, Bytes: patch.Length + d.Length + d.Groups, Indexes: patch.Length,
		Deltas: d.Length + d.Groups, Packs: 1}, byFrom[4])
	require.Positive(t, byFrom[3].Deltas)
	for _, from := range []uint64{0, 1, 2} {
		require.Zero(t, byFrom[from].Deltas)
		require.Equal(t, l.locator.Table.Size, byFrom[from].Table)
	}
	require.Greater(t, byFrom[0].Pieces, int64(470_000))
	require.Less(t, byFrom[1].Pieces, int64(270_000))
	require.Greater(t, byFrom[1].Pieces, byFrom[4].Deltas)
}

// mustAddNew adds a release of another variant.
func (f *fixture) mustAddNew(t testing.TB, variant string) {
	s := spec("1", tree{"a": "a"}.write(t))
	s.Variant = variant
	_, err := f.Release(t.Context(), s)
	require.NoError(t, err)
}
