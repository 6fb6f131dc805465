//go:build linux

package micro

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
)

// rootGone is a device whose root was removed by somebody, and what was in it.
func rootGone(t *testing.T, mode os.FileMode) (*device, *shop, map[string]string) {
	t.Helper()
	v := files(t, t.TempDir(), map[string]string{"a": "1", "b/c": "2", "b/d/e": "3", "link": "->a", "empty/": ""})
	require.NoError(t, os.Chmod(v, mode))
	s := newShop(t, v, "data")
	d := newDevice(t)
	d.install("t1", s)
	want := snapshot(t, d.root)
	require.NoError(t, os.RemoveAll(d.root))
	d.restart()
	return d, s, want
}

func TestRepairRootThatIsGone(t *testing.T) {
	for _, mode := range []os.FileMode{0o750, 0o711} {
		for name, harm := range map[string]func(d *device) error{
			"root":    func(*device) error { return nil },
			"state":   func(d *device) error { return os.Remove(d.f.path("state")) },
			"all":     func(d *device) error { return os.RemoveAll(filepath.Dir(d.root)) },
			"indexes": func(d *device) error { return os.RemoveAll(d.f.path(dirIndex)) },
		} {
			d, s, want := rootGone(t, mode)
			require.NoError(t, harm(d))
			left, err := d.f.Repair(t.Context(), s.c, s)
			require.NoError(t, err, name)
			require.Empty(t, left, name)
			same(t, want, snapshot(t, d.root), name)
			d.isWhole(s)
			require.True(t, knows(t, d, s), name)
			require.FileExists(t, d.f.indexPath(s.c.Digest()), name)
		}
	}
}

// knows reports whether the evidence alone says that the root holds s.
func knows(t *testing.T, d *device, s *shop) bool {
	t.Helper()
	root, err := d.f.root()
	require.NoError(t, err)
	k, ok := d.f.identify(root, nil)
	return ok && k.Digest == s.c.Digest()
}

func TestRepairRootThatIsGoneCutAnywhere(t *testing.T) {
	for n := 1; ; n++ {
		require.Less(t, n, 60)
		d, s, want := rootGone(t, 0o750)
		d.cutAt(n)
		left, err := d.f.Repair(t.Context(), s.c, s)
		d.restart()
		if err == nil && len(left) == 0 {
			require.Greater(t, n, 10)
			break
		}
		a := d.active()
		require.True(t, !a.Is(s.c.Digest()) || len(snapshot(t, d.root)) == len(want), "%d: whole only when all is there", n)
		left, err = d.f.Repair(t.Context(), s.c, s)
		require.NoError(t, err, n)
		require.Empty(t, left, n)
		same(t, want, snapshot(t, d.root), "mended")
		require.True(t, knows(t, d, s))
		if n%5 == 0 {
			d.install("t2", newShop(t, files(t, t.TempDir(), map[string]string{"a": "2"}), "data"))
		}
	}
}

// TestRepairWithoutContent makes a root that holds what there is, and says what
// is missing: that is not the release.
func TestRepairWithoutContent(t *testing.T) {
	d, s, _ := rootGone(t, 0o755)
	s.local = true
	left, err := d.f.Repair(t.Context(), s.c, s)
	require.NoError(t, err)
	require.Len(t, left, 3)
	require.Contains(t, left[0].Reason, ota.ErrNotLocal.Error())
	require.Equal(t, ota.Mixed, d.active().State)
	s.local = false
	left, err = d.f.Repair(t.Context(), s.c, s)
	require.NoError(t, err)
	require.Empty(t, left)
	d.isWhole(s)
}

func TestRepairLeavesAnotherRootAlone(t *testing.T) {
	d, s, _ := rootGone(t, 0o755)
	require.NoError(t, os.Symlink(t.TempDir(), d.root))
	_, err := d.f.Repair(t.Context(), s.c, s)
	require.ErrorContains(t, err, "not a folder")
}
