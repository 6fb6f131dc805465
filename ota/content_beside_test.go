package ota

import (
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

// A piece that came wrong is asked for beside the request that it came with:
// that one goes on, so that nothing of it is on the way in vain.
func TestWrongPieceIsAskedForBeside(t *testing.T) {
	base := newDepot(t, 700_000, 400_000, 5_000)
	for _, spooled := range []bool{true, false} {
		s := newSite(t, base.anew())
		s.locator.Deltas, s.backend.has = nil, nil
		if !spooled {
			s.content.spool = nil
		}
		require.NoError(t, s.content.readTable(t.Context()))
		pieces, ok := s.content.table.Pieces(blobOf(s.news[0]))
		require.True(t, ok)
		require.Greater(t, len(pieces), 5)
		bad, times := pieces[2], 0
		s.mend = func(file string, offset int64, p []byte) {
			if i := bad.Offset + bad.Length/2 - offset; file == bad.Pack && i >= 0 && i < int64(len(p)) {
				if times++; times == 1 {
					p[i] ^= 0x41
				}
			}
		}
		s.asked = nil
		require.NoError(t, s.fetch(t))
		s.whole(t)
		require.Equal(t, 2, times)
		require.Len(t, s.asked, 2, "%v", s.asked)
		require.Contains(t, s.asked[1], fmt.Sprintf(" %d+%d", bad.Offset, bad.Length))
		require.LessOrEqual(t, s.again, bad.Length)
	}
}

// takeIn reads places in their order through one intake, which knows all of them.
func (s *site) takeIn(t *testing.T, places []release.Place) {
	t.Helper()
	in := s.content.intake(&contentPlan{spans: spansOf(slices.Clone(places))})
	for _, at := range places {
		data, err := io.ReadAll(in.read(t.Context(), at.Pack, at.Offset, at.Length))
		require.NoError(t, err)
		require.Equal(t, s.files[at.Pack][at.Offset:at.Offset+at.Length], data)
	}
	require.NoError(t, in.Close())
}

// A blob whose pieces lie in two packs in turn costs one request for each of
// them: the rest of one is set aside before the other is asked.
func TestPiecesInTwoPacksInTurn(t *testing.T) {
	s := newSite(t, newDepot(t, 700_000, 400_000, 5_000))
	packs := []string{s.locator.Packs[0].Name, s.add(text(77, 500_000))}
	var places []release.Place
	for i := range 12 {
		places = append(places, release.Place{Pack: packs[i%2], Offset: int64(i) * 6_000, Length: 6_000})
	}
	s.takeIn(t, places)
	require.Len(t, s.asked, 2, "%v", s.asked)
	require.Zero(t, s.again)
}

// A blob whose first piece lies in another pack has the request of its later
// ones begin in the middle of what is wanted of theirs: what lies before costs one
// request more, however many pieces it is, and no byte comes twice.
func TestPiecesBeforeTheRequest(t *testing.T) {
	s := newSite(t, newDepot(t, 700_000, 400_000, 5_000))
	first, second := s.locator.Packs[0].Name, s.add(text(77, 500_000))
	places := []release.Place{{Pack: first, Length: 5_000}, {Pack: second, Offset: 300_000, Length: 50_000}}
	for i := range 60 {
		places = append(places, release.Place{Pack: second, Offset: int64(i) * 5_000, Length: 5_000})
	}
	places = append(places, release.Place{Pack: second, Offset: 350_000, Length: 50_000})
	s.takeIn(t, places)
	require.Len(t, s.asked, 3, "%v", s.asked)
	require.Zero(t, s.again)
}
