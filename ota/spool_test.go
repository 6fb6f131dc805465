package ota_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
)

// download is a device that runs release 1, and release 2 of two files of about
// size bytes to be fetched by reads of chunk bytes.
type download struct {
	device *otatest.Device
	want   [2]string
}

func newDownload(t *testing.T, size, chunk int) download {
	t.Helper()
	parts := effects(ota.Live)
	repo := otatest.NewRepo()
	var text strings.Builder
	for i := 0; text.Len() < size; i++ {
		fmt.Fprintf(&text, "line %d\n", i)
	}
	next := otatest.Content{Part: parts[0].Name, Label: text.String()}
	one := repo.Add(1, otatest.Healthy(), otatest.Content{Part: parts[0].Name, Label: "v1"})
	two := repo.Add(2, otatest.Healthy(), next)
	d := otatest.NewDevice(repo, parts...)
	d.Offer(one)
	u, err := ota.Open(d.Context(), d.Options())
	require.NoError(t, err)
	_, err = u.Update(d.Context())
	require.NoError(t, err)
	require.NoError(t, u.Close())
	d.Offer(two)
	d = d.Clone()
	d.Trickle(chunk)
	return download{d, next.Files()}
}

// finish starts processes until one has installed the release.
func (l download) finish(t *testing.T, between func()) {
	t.Helper()
	for range 20 {
		if !l.device.Alive() {
			l.device.Restart()
		}
		u, err := ota.Open(l.device.Context(), l.device.Options())
		require.NoError(t, err)
		_, err = u.Update(l.device.Context())
		_ = u.Close()
		if err == nil && l.device.Alive() {
			require.Equal(t, l.want, l.device.Runs("part0-live"))
			require.Empty(t, l.device.Written("spool/"), "what came is dropped in the end")
			require.Empty(t, l.device.Broken())
			return
		}
		require.True(t, err == nil || !l.device.Alive() || strings.Contains(err.Error(), "the connection broke"), "%v", err)
		if between != nil {
			between()
		}
	}
	t.Fatal("the device did not come to rest")
}

// A download that is cut short at any read goes on where it was: no byte that
// came comes again, whether the process was killed or the connection broke.
func TestNoByteComesTwice(t *testing.T) {
	start := newDownload(t, 20_000, 1000)
	whole := download{start.device.Clone(), start.want}
	whole.device.Trickle(1000)
	whole.finish(t, nil)
	total, again, reads := whole.device.Received()
	require.Zero(t, again)
	require.Greater(t, reads, 40)
	for n := 1; n <= reads; n++ {
		for _, fault := range []otatest.Fault{otatest.Kill, otatest.Fail} {
			l := download{start.device.Clone(), start.want}
			l.device.Trickle(1000)
			l.device.AtRead(n, fault)
			l.finish(t, nil)
			bytes, again, _ := l.device.Received()
			require.Equal(t, 1, l.device.Faults())
			require.Zero(t, again, "%s at read %d of %d", fault, n, reads)
			require.Equal(t, total, bytes, "%s at read %d of %d", fault, n, reads)
		}
	}
}

// The same for a device that is killed at every second read, all the way.
func TestKilledAgainAndAgain(t *testing.T) {
	l := newDownload(t, 20_000, 3000)
	for n := 1; n < 60; n += 4 {
		l.device.AtRead(n, otatest.Kill)
	}
	l.finish(t, nil)
	_, again, _ := l.device.Received()
	require.Zero(t, again)
	require.Greater(t, l.device.Faults(), 3)
}

// After a power cut at any read at most what was not synced comes again.
func TestPowerCutInDownload(t *testing.T) {
	const chunk, most = 256 << 10, 4<<20 + 256<<10
	start := newDownload(t, 6<<20, chunk)
	whole := download{start.device.Clone(), start.want}
	whole.device.Trickle(chunk)
	whole.finish(t, nil)
	total, _, reads := whole.device.Received()
	require.Greater(t, total, int64(12<<20))
	kept := 0
	for n := 5; n <= reads; n += 9 {
		l := download{start.device.Clone(), start.want}
		l.device.Trickle(chunk)
		l.device.AtRead(n, otatest.PowerCut)
		l.finish(t, nil)
		_, again, _ := l.device.Received()
		require.LessOrEqual(t, again, int64(most), "cut at read %d of %d", n, reads)
		if int64(n)*chunk-again > most {
			kept++
		}
	}
	require.Greater(t, kept, reads/24, "nothing that was synced was used")
}

// A power cut at every step that lasts.
func TestPowerCutAtEachStepOfDownload(t *testing.T) {
	start := newDownload(t, 3<<20, 512<<10)
	for n := 1; ; n++ {
		l := download{start.device.Clone(), start.want}
		l.device.Trickle(512 << 10)
		l.device.At(n, otatest.PowerCut)
		l.finish(t, nil)
		if l.device.Faults() == 0 {
			require.Greater(t, n, 10)
			return
		}
	}
}

// Whatever happens to a spooled byte, the download completes with the right
// content, and what lies before the damage is not fetched again.
func TestDamagedSpool(t *testing.T) {
	start := newDownload(t, 20_000, 1000)
	damages := map[string]func(data []byte, i int) []byte{
		"flipped": func(data []byte, i int) []byte { data[i] ^= 1; return data },
		"cut":     func(data []byte, i int) []byte { return data[:i] },
		"zeroed":  func(data []byte, i int) []byte { clear(data[i:]); return data },
		"doubled": func(data []byte, i int) []byte { return append(data[:i:i], data...) },
		"grown":   func(data []byte, i int) []byte { return append(data, bytes.Repeat([]byte{7}, i+1)...) },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			for at := 0; at < 25_000; at += 317 {
				l := download{start.device.Clone(), start.want}
				l.device.Trickle(1000)
				l.device.AtRead(30, otatest.Kill)
				hit := -1
				l.finish(t, func() {
					names := l.device.Written("spool/")
					require.NotEmpty(t, names)
					l.device.Corrupt(names[0], func(data []byte) []byte {
						if at >= len(data) {
							return data
						}
						hit = len(data) - at
						return damage(data, at)
					})
				})
				if hit < 0 {
					return
				}
				_, again, _ := l.device.Received()
				require.LessOrEqual(t, again, int64(hit+1100), "damage at %d", at)
			}
		})
	}
}

// An update that is given up leaves nothing of what came behind.
func TestSpoolOfDroppedUpdate(t *testing.T) {
	l := newDownload(t, 20_000, 1000)
	l.device.AtRead(30, otatest.Fail)
	u := opened(t, l.device)
	_, err := u.Update(l.device.Context())
	require.Error(t, err)
	require.NotEmpty(t, l.device.Written("spool/"))
	require.NoError(t, u.Tx().Rollback(l.device.Context(), "not wanted"))
	require.Empty(t, l.device.Written("spool/"))
}
