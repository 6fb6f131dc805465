//go:build linux

package publish

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// fetched returns how many bytes a device reads to find the newest release.
func (d *device) fetched(t *testing.T) int64 {
	s, err := tuf.New(d.o)
	require.NoError(t, err)
	defer s.Close()
	r, err := s.Latest(t.Context(), ota.Device{ID: "7", Product: "gateway", Variant: "default"})
	require.NoError(t, err)
	_, err = s.Locator(t.Context(), r)
	require.NoError(t, err)
	return s.Bytes()
}

// TestPollsStaySmall states what a device reads from a repository that had 200
// releases, of which the last ones are kept in the metadata.
func TestPollsStaySmall(t *testing.T) {
	f := newFixture(t)
	f.mustAdd(t, "default")
	state, err := f.disk.load(nil, start)
	require.NoError(t, err)
	list, err := f.disk.listed(state)
	require.NoError(t, err)
	e := &edit{}
	meta := e.bump(state, Targets, start.Add(day))
	for i := range uint64(199) {
		r, l := *list[0].release, *list[0].locator
		r.Seq, r.Version = i+2, fmt.Sprintf("1.%d.0", i)
		l.ID, l.Release = r.ID, r.Digest()
		_, err := f.addDocuments(meta, &r, &l)
		require.NoError(t, err)
	}
	require.NoError(t, f.finish(state, e))
	d := f.newDevice(t)
	all := d.fetched(t)
	again := d.fetched(t)
	_, err = f.KeepLast(t.Context(), "default", 5)
	require.NoError(t, err)
	few := f.newDevice(t).fetched(t)
	after := d.fetched(t)
	idle := d.fetched(t)
	t.Logf("200 releases listed: %d bytes for a new device, %d when nothing changed; 5 listed: %d and %d, %d when nothing changed",
		all, again, few, after, idle)
	require.Less(t, few, int64(12_000))
	require.Less(t, idle, int64(3_000))
	require.EqualValues(t, 201, f.mustAdd(t, "default"))
	require.EqualValues(t, 201, d.seq(t, "default"))
}
