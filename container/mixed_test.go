package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

// mixed is a simulated device with files, and an app at a fake engine beside them:
// a release holds both, and the power of both goes at once.
type mixed struct {
	*rig
	dev    *otatest.Device
	source *otatest.Memory
	apps   [3]testApp
	rels   [3]*release.Release
	u      *ota.Updater
}

// newMixed returns a device that runs release 1, and is offered release 2, of which
// one component may be sick.
func newMixed(t *testing.T, sick string) *mixed {
	m := &mixed{rig: newRig(t, false), source: otatest.NewMemory(), apps: [3]testApp{{}, newApp(t, 0), newApp(t, 2)}}
	repo := otatest.NewRepo()
	for seq, health := range map[uint64]otatest.Health{1: otatest.Healthy(), 2: map[bool]otatest.Health{false: otatest.Healthy(), true: otatest.Sick()}[sick == "files"]} {
		rel := repo.Add(seq, health, otatest.Content{Part: "files", Label: fmt.Sprint(seq)})
		c := m.apps[seq].c
		c.Keep = release.Keep{Previous: 1, Repair: release.RepairFull}
		rel.Components = append(rel.Components, c)
		m.rels[seq] = rel
	}
	blobs := repo.Blobs()
	for seq := 1; seq <= 2; seq++ {
		maps.Copy(blobs, m.apps[seq].blobs)
	}
	for seq := 1; seq <= 2; seq++ {
		m.source.Put(m.rels[seq], slices.Collect(maps.Values(blobs))...)
	}
	m.behave = func(s boxSpec) (boxState, string, int) {
		if sick == "app" && s.Labels[labelRelease] == m.apps[2].c.Digest().String() && s.Service.Name == "web" {
			return exited, "", 3
		}
		return "", "", 0
	}
	m.dev = otatest.NewDevice(repo, otatest.Part{Name: "files", Effect: ota.Live})
	m.source.Offer(m.rels[1])
	m.start()
	_, err := m.u.Update(m.dev.Context())
	require.NoError(t, err)
	m.source.Offer(m.rels[2])
	m.changes, m.gone, m.onCut = true, func() bool { return !m.dev.Up() }, func() { m.dev.Cut(otatest.PowerCut) }
	return m
}

// start is the next process.
func (m *mixed) start() {
	o := m.dev.Options()
	o.Source, o.Backends["shop"] = m.source, m.b
	files := o.Health
	o.Health = func(ctx context.Context) error { return errors.Join(files(ctx), m.b.Healthy(ctx)) }
	u, err := ota.Open(m.dev.Context(), o)
	require.NoError(m.t, err)
	_, err = u.Resume(m.dev.Context())
	require.NoError(m.t, err)
	m.u = u
}

// runs checks that both components are wholly of one release, and returns its seq.
func (m *mixed) runs() uint64 {
	m.t.Helper()
	a, err := m.b.Active(m.t.Context(), "shop")
	require.NoError(m.t, err)
	for seq := uint64(1); seq <= 2; seq++ {
		if m.dev.Runs("files") == (otatest.Content{Part: "files", Label: fmt.Sprint(seq)}).Files() {
			require.True(m.t, a.Is(m.apps[seq].c.Digest()), "the files are of release %d, the app is %+v", seq, a)
			return seq
		}
	}
	m.t.Fatalf("the files are of no release: %v", m.dev.Runs("files"))
	return 0
}

// play updates with a power cut at one step of the device, or one call that changes
// something at the engine, and reports whether that was reached.
func (m *mixed) play(atDevice, atEngine int, late bool) bool {
	m.t.Helper()
	how := map[bool]fault{false: cutBefore, true: cutAfter}[late]
	m.arm(atEngine, how)
	if atDevice > 0 {
		m.dev.At(atDevice, otatest.PowerCut)
	}
	_, _ = m.u.Update(m.dev.Context())
	reached := m.off || !m.dev.Up()
	m.arm(0, "")
	if reached {
		m.dev.Cut(otatest.PowerCut)
		m.boot()
		m.dev.Boot()
		m.reopen()
		m.start()
		m.runs()
	}
	for range 4 {
		if _, err := m.u.Update(m.dev.Context()); err == nil || errors.Is(err, ota.ErrHeld) || errors.Is(err, ota.ErrUnhealthy) {
			break
		}
	}
	return reached
}

// TestFilesAndContainers takes a release of both kinds, of which none or one
// component is sick, through a power cut at each step of the device and each call
// to the engine: both components are always of one release, and in the end of the
// right one.
func TestFilesAndContainers(t *testing.T) {
	stride := 5
	switch {
	case os.Getenv("PAWL_CRASH") == "long":
		stride = 1
	case testing.Short():
		stride = 25
	}
	n := 0
	for _, sick := range []string{"", "files", "app"} {
		for _, where := range []string{"device", "engine before", "engine after"} {
			for at := 1; ; at += stride {
				m := newMixed(t, sick)
				atDevice, atEngine := at, 0
				if where != "device" {
					atDevice, atEngine = 0, at
				}
				reached := m.play(atDevice, atEngine, where == "engine after")
				want := uint64(2)
				if sick != "" {
					want = 1
				}
				require.Equal(t, want, m.runs(), "%q sick, cut at %d of the %s", sick, at, where)
				require.NoError(t, m.u.Close())
				require.Empty(t, m.dev.Broken())
				m.boot() // the engine by itself starts what stayed
				require.Empty(t, m.broken)
				m.expect(m.apps[want], slices.DeleteFunc([]testApp{m.apps[1]}, func(testApp) bool { return want == 1 })...)
				if !reached {
					break
				}
				n++
			}
		}
	}
	t.Logf("%d cuts", n)
}
