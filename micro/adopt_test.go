//go:build linux

package micro

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

// factory is a device whose root was filled without pawl, and a repository of
// three releases.
type factory[F eitherLayout] struct {
	*rig[F]
	t      *testing.T
	state  string
	memory *otatest.Memory
	shops  []*shop
	dirs   []string
	u      *ota.Updater
}

func newFactory[F eitherLayout](t *testing.T, d *rig[F], shopOf func(dir string) *shop) *factory[F] {
	f := &factory[F]{rig: d, t: t, state: filepath.Join(t.TempDir(), "state"), memory: otatest.NewMemory()}
	for i := range 3 {
		dir := files(t, filepath.Join(tempDir(t), fmt.Sprint(i)), map[string]string{
			"bin/app": fmt.Sprint("version ", i), "lib/same": "same", "etc/conf": fmt.Sprint("set ", i/2), "link": "->bin/app",
		})
		s := shopOf(dir)
		r := &release.Release{
			Format: release.Format, ID: release.ID{Product: "p", Variant: "v", Seq: uint64(i + 1)}, Version: fmt.Sprint(i + 1),
			Issued: time.Unix(1e9, 0).UTC(), Components: []release.Component{s.c},
		}
		f.memory.Put(r, slices.Collect(maps.Values(s.blobs))...)
		f.shops, f.dirs = append(f.shops, s), append(f.dirs, dir)
		f.memory.Offer(r)
	}
	require.NoError(t, os.MkdirAll(d.root, 0o755))
	require.NoError(t, os.CopyFS(d.root, os.DirFS(f.dirs[1])))
	for p := range snapshot(t, d.root) {
		copyMode(t, filepath.Join(f.dirs[1], p), filepath.Join(d.root, p))
	}
	f.open()
	return f
}

func copyMode(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Lstat(from)
	require.NoError(t, err)
	if info.Mode()&os.ModeSymlink == 0 {
		require.NoError(t, os.Chmod(to, info.Mode().Perm()))
	}
}

// open is a new process.
func (f *factory[F]) open() {
	f.t.Helper()
	if f.u != nil {
		require.NoError(f.t, f.u.Close())
	}
	f.restart()
	u, err := ota.Open(f.t.Context(), ota.Options{
		Dir: f.state, Device: ota.Device{Product: "p", Variant: "v"}, Source: f.memory, Backends: map[string]ota.Backend{"app": f.f},
	})
	require.NoError(f.t, err)
	f.u = u
	f.t.Cleanup(func() { _ = u.Close() })
	_, err = u.Resume(f.t.Context())
	require.NoError(f.t, err)
}

func TestAdopt(t *testing.T) {
	t.Run("tree", func(t *testing.T) {
		adopts(t, newDevice, func(dir string) *shop { return newShop(t, dir) })
	})
	t.Run("inplace", func(t *testing.T) {
		adopts(t, newPlaceDevice, func(dir string) *shop { return placeShop(t, dir, "") })
	})
}

func adopts[F eitherLayout](t *testing.T, fresh func(testing.TB) *rig[F], shopOf func(string) *shop) {
	t.Run("update and way back", func(t *testing.T) {
		f := newFactory(t, fresh(t), shopOf)
		before := snapshot(t, f.root)
		inodes := times(t, f.root)
		to, found, err := f.u.Adopt(t.Context(), 0)
		require.NoError(t, err)
		require.Empty(t, found)
		require.Equal(t, uint64(2), to.Seq)
		require.Equal(t, uint64(2), f.u.Status().Running.Seq)
		require.True(t, f.active().Is(f.shops[1].c.Digest()))
		require.Equal(t, before, snapshot(t, f.root))
		require.Equal(t, inodes, times(t, f.root))
		_, _, err = f.u.Adopt(t.Context(), 0)
		require.ErrorIs(t, err, ota.ErrState, "a release runs")
		f.open()
		res, err := f.u.Update(t.Context())
		require.NoError(t, err)
		require.Equal(t, ota.Committed, res.State)
		require.Equal(t, uint64(3), f.u.Status().Running.Seq)
		require.Equal(t, "version 2", fileText(t, f.root, "bin/app"))
		_, err = f.u.Rollback(t.Context(), 2)
		require.NoError(t, err)
		require.Equal(t, "version 1", fileText(t, f.root, "bin/app"))
	})
	t.Run("what differs", func(t *testing.T) {
		f := newFactory(t, fresh(t), shopOf)
		require.NoError(t, os.WriteFile(filepath.Join(f.root, "etc/conf"), []byte("else!"), 0o644))
		to, found, err := f.u.Adopt(t.Context(), 0)
		require.NoError(t, err)
		require.Equal(t, uint64(2), to.Seq, "the one that differs least")
		require.Len(t, found, 1)
		require.Equal(t, "etc/conf", found[0].Path)
		_, found, err = f.u.Adopt(t.Context(), 1)
		require.NoError(t, err)
		require.Len(t, found, 2)
		require.Zero(t, f.u.Status().Running.Seq)
		_, _, err = f.u.Adopt(t.Context(), 9)
		require.ErrorIs(t, err, ota.ErrNoRelease)
	})
	t.Run("cut at each step", func(t *testing.T) {
		for n := 1; ; n++ {
			f := newFactory(t, fresh(t), shopOf)
			before := snapshot(t, f.root)
			seen := 0
			f.f.common().before = func(string, string) error {
				if seen++; seen >= n {
					return syscall.EIO
				}
				return nil
			}
			_, found, err := f.u.Adopt(t.Context(), 2)
			if seen < n {
				require.NoError(t, err)
				require.Greater(t, n, 1)
				return
			}
			require.Error(t, err)
			require.Empty(t, found)
			f.open()
			require.Zero(t, f.u.Status().Running.Seq)
			_, found, err = f.u.Adopt(t.Context(), 2)
			require.NoError(t, err)
			require.Empty(t, found)
			require.Equal(t, before, snapshot(t, f.root))
			require.True(t, f.active().Is(f.shops[1].c.Digest()))
		}
	})
}

func fileText(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return string(data)
}

// The files that a file is like are those with its path, then those with its
// name, and only long ones.
func TestSimilar(t *testing.T) {
	long := func(c byte) string { return string(make([]byte, 200_000)) + string(c) }
	d := newDevice(t)
	old := newShop(t, files(t, t.TempDir(), map[string]string{"a/app": long('1'), "b/app": long('2'), "c/short": "s", "d/lib": long('3')}))
	d.install("1", old)
	next := newShop(t, files(t, t.TempDir(), map[string]string{"b/app": long('4'), "e/lib": long('5'), "c/short": "t", "f/new": long('6')}))
	blob := func(s *shop, p string) release.Blob { return s.ix.Find(p).Blob }
	for p, want := range map[string][]release.Blob{
		"b/app": {blob(old, "b/app"), blob(old, "a/app")}, "e/lib": {blob(old, "d/lib")}, "c/short": nil, "f/new": nil,
	} {
		got, err := d.f.Similar(t.Context(), next.c, blob(next, p), next)
		require.NoError(t, err)
		require.Equal(t, want, got, p)
	}
}
