package ota

import (
	"encoding/json"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

// What comes is counted as what it is for, each byte once.
func TestFetchedByCause(t *testing.T) {
	base := newDepot(t, sizes...)
	for name, c := range map[string]struct {
		change func(*site)
		want   func(t *testing.T, s *site, f Fetched)
	}{
		"patches": {func(*site) {}, func(t *testing.T, s *site, f Fetched) {
			require.Equal(t, Fetched{Patches: s.bytes}, f)
		}},
		"pieces": {func(s *site) { s.locator.Deltas = nil }, func(t *testing.T, s *site, f Fetched) {
			require.Equal(t, s.locator.Table.Size, f.Metadata)
			require.NotZero(t, f.Pieces)
			require.NotZero(t, f.Whole)
			require.Zero(t, f.Patches+f.Index+f.Again)
		}},
		"wrong bytes": {func(s *site) {
			s.locator.Deltas = nil
			wrong := 3
			s.mend = func(_ string, _ int64, p []byte) {
				if wrong--; wrong == 0 {
					p[len(p)/2] ^= 1
				}
			}
		}, func(t *testing.T, s *site, f Fetched) {
			require.NotZero(t, s.again)
			require.Equal(t, s.again, f.Again)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, base.anew())
			c.change(s)
			s.restart()
			require.NoError(t, s.fetch(t))
			s.whole(t)
			f := s.u.fetchedNow(s.bytes)
			require.Equal(t, s.bytes, f.Total(), "%+v", f)
			c.want(t, s, f)
			require.Equal(t, Fetched{Metadata: 7}, s.u.fetchedNow(7), "what a source reads for itself")
		})
	}
}

// What comes beside something else is counted as what it is for too.
func TestFetchedBeside(t *testing.T) {
	s := newSite(t, newDepot(t, sizes...))
	places := s.content.deltaPlaces(s.part)
	beside := places[0].Length + places[1].Length
	s.content.stages(release.Component{}, nil)
	require.NoError(t, s.content.each(t.Context(), []release.Blob{blobOf(s.news[1])}, func(_ release.Blob, r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	}, places))
	f := s.u.fetchedNow(s.bytes)
	require.Equal(t, beside, f.Patches)
	require.Equal(t, s.bytes, f.Total(), "%+v", f)
	require.NotZero(t, f.Whole)
}

// A range is counted by what each part of it is for.
func TestChargeOfRange(t *testing.T) {
	all := []purpose{
		{span{"b", 100, 200}, forWhole}, {span{"a", 10, 20}, forIndex}, {span{"b", 100, 200}, forWhole}, {span{"b", 230, 300}, forPatches},
	}
	sortPurposes(all)
	for _, c := range []struct {
		s    span
		want Fetched
	}{
		{span{"a", 10, 20}, Fetched{Index: 10}},
		{span{"a", 0, 30}, Fetched{Index: 10, Between: 20}},
		{span{"b", 199, 231}, Fetched{Whole: 1, Between: 30, Patches: 1}},
		{span{"b", 150, 151}, Fetched{Whole: 1}},
		{span{"b", 120, 180}, Fetched{Whole: 40, Again: 20}},
		{span{"c", 0, 5}, Fetched{Between: 5}},
	} {
		var got Fetched
		got.charge(c.s, all, []span{{"b", 130, 150}, {"a", 30, 40}, {"c", 3, 3}})
		require.Equal(t, c.want, got, "%+v", c.s)
	}
}

// A history says it, and one of before says nothing.
func TestFetchedInHistory(t *testing.T) {
	data, err := json.Marshal(Result{Bytes: 5, Fetched: Fetched{Again: 5}})
	require.NoError(t, err)
	require.Contains(t, string(data), `"again":5`)
	data, err = json.Marshal(Result{Bytes: 5})
	require.NoError(t, err)
	require.NotContains(t, string(data), "fetched")
}
