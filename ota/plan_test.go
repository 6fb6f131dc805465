package ota_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
)

// inState has the state folder on the device's file system.
func inState(o *ota.Options) { o.Dir = "/state" }

// planned returns the plan of the release that is offered.
func planned(t *testing.T, d *otatest.Device) *ota.Plan {
	t.Helper()
	u := opened(t, d, inState)
	r, err := u.Check(d.Context())
	require.NoError(t, err)
	p, err := u.Plan(d.Context(), r)
	require.NoError(t, err)
	require.NoError(t, u.Close())
	d.Restart()
	return p
}

// What the plan says is what comes, and to ask for it leaves nothing behind.
func TestPlanIsWhatComes(t *testing.T) {
	l := newDownload(t, 100_000, 5000)
	before := l.device.Written("")
	p := planned(t, l.device)
	require.Equal(t, before, l.device.Written(""), "the plan left something")
	require.Equal(t, uint64(2), p.To.Seq)
	require.Len(t, p.Parts, 1)
	require.Equal(t, ota.PlanWay{Blobs: 2, Bytes: p.Write, Fetch: p.Fetch}, p.Parts[0].Pieces)
	require.Zero(t, p.Parts[0].Here)
	require.Equal(t, 1, p.Requests)
	require.NoError(t, p.Check())
	looked, _, _ := l.device.Received()
	fresh := download{l.device.Clone(), l.want}
	fresh.finish(t, nil)
	total, _, _ := fresh.device.Received()
	require.Equal(t, total, looked+p.Fetch, "beside index and table")

	l.device.AtRead(25, otatest.Kill) // now a part is here
	u := opened(t, l.device)
	_, err := u.Update(l.device.Context())
	require.Error(t, err)
	l.device.Restart()
	u = opened(t, l.device)
	again, err := u.Plan(l.device.Context(), u.Tx().Release())
	require.NoError(t, err)
	require.Less(t, again.Fetch, p.Fetch-80_000)
	require.Positive(t, again.Fetch)
}

// Stage refuses for want of memory and of room with all numbers, before the first
// byte of content.
func TestPrecheckRefuses(t *testing.T) {
	l := newDownload(t, 100_000, 0)
	p := planned(t, l.device)
	l.device.SetMemory(p.Memory - 1)
	bytes, _, _ := l.device.Received()
	u := opened(t, l.device, inState)
	_, err := u.Update(l.device.Context())
	require.ErrorIs(t, err, ota.ErrNoMemory)
	memory := new(ota.MemoryError)
	require.ErrorAs(t, err, &memory)
	require.Equal(t, ota.MemoryError{Need: p.Memory, Free: p.Memory - 1}, *memory)
	l.device.SetMemory(p.Memory)

	need := p.Space[0].NeedBytes - p.Spool
	l.device.SetFree(need+p.Space[0].Reserve-1, 1000)
	_, err = u.Update(l.device.Context())
	space := new(ota.SpaceError)
	require.ErrorAs(t, err, &space)
	require.Equal(t, p.Space[0].NeedBytes, space.NeedBytes)
	require.Equal(t, need+space.Reserve-1, space.FreeBytes)
	after, _, _ := l.device.Received()
	require.LessOrEqual(t, after-bytes, bytes, "more than index and table were fetched")
	l.device.SetFree(need+p.Space[0].Reserve, 1000)
	u2 := opened2(t, l.device, u)
	_, err = u2.Update(l.device.Context())
	require.NoError(t, err)
}

func opened2(t *testing.T, d *otatest.Device, old *ota.Updater) *ota.Updater {
	t.Helper()
	require.NoError(t, old.Close())
	d.Restart()
	return opened(t, d, inState)
}

// Where there is room for the content alone, nothing is set aside, and the
// update goes on without.
func TestNoRoomForSpool(t *testing.T) {
	l := newDownload(t, 100_000, 5000)
	p := planned(t, l.device)
	require.Positive(t, p.Spool)
	l.device.SetFree(p.Space[0].NeedBytes-p.Spool+p.Space[0].Reserve, 1000)
	tight := planned(t, l.device)
	require.Zero(t, tight.Spool)
	require.NoError(t, tight.Check())
	_, _, reads := l.device.Received()
	l.device.Log = true
	u := opened(t, l.device, inState, func(o *ota.Options) {
		o.Progress = func(p ota.Progress) {
			if p.Step == "fetch" {
				for _, name := range l.device.Written("spool/") {
					t.Errorf("%s was written", name)
				}
			}
		}
	})
	_, err := u.Update(l.device.Context())
	require.NoError(t, err)
	_, _, after := l.device.Received()
	require.Greater(t, after-reads, 20)
	require.Equal(t, l.want, l.device.Runs("part0-live"))
	require.NotContains(t, strings.Join(l.device.Trace(), "\n"), "persist spool")
}
