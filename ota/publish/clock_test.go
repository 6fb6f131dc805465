//go:build linux

package publish

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/tuf"
)

// TestPublisherWithAWrongClock: nothing is signed by a clock that cannot be
// right, and a time of years ahead that devices took is got rid of by new keys.
func TestPublisherWithAWrongClock(t *testing.T) {
	f := newFixture(t)
	f.mustAdd(t, "default")
	d := f.newDevice(t)
	require.EqualValues(t, 1, d.seq(t, "default"))
	right := f.now
	before, err := os.ReadFile(f.dir + "/metadata/timestamp.json")
	require.NoError(t, err)
	for _, wrong := range []time.Time{time.Unix(0, 0).UTC(), right.AddDate(0, 0, -2), right.AddDate(80, 0, 0)} {
		f.now = wrong
		_, err := f.Refresh(t.Context())
		require.ErrorIs(t, err, ErrClock, "%v", wrong)
		after, err := os.ReadFile(f.dir + "/metadata/timestamp.json")
		require.NoError(t, err)
		require.Equal(t, before, after, "%v", wrong)
	}
	f.now = right.Add(-time.Hour) // two machines that are not quite of one mind
	_, err = f.Refresh(t.Context())
	require.NoError(t, err)

	// Three years ahead nothing but the files of that time shows it.
	f.now = right.AddDate(3, 0, 0)
	_, err = f.Refresh(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, d.seq(t, "default"))
	f.now = right
	_, err = f.Refresh(t.Context())
	require.ErrorIs(t, err, ErrClock)
	require.NoError(t, f.Rotate(t.Context(), f.replace(t, Timestamp, f.keys[Timestamp][0], newKey(t))))
	_, err = f.Refresh(t.Context())
	require.NoError(t, err)
	_, err = d.latest(t.Context(), "default")
	require.NotErrorIs(t, err, tuf.ErrExpired, "the device holds on to the wrong time")
	require.NoError(t, err)
}
