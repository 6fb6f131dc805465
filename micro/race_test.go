//go:build linux

package micro

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
)

// carriers are two releases that carry the same path, on a device whose app
// has not made it yet.
func carriers(t *testing.T) (*device, *shop, *shop) {
	t.Helper()
	s1 := newShop(t, files(t, t.TempDir(), map[string]string{"a": "1"}), "data")
	s2 := newShop(t, files(t, t.TempDir(), map[string]string{"a": "2"}), "data")
	d := newDevice(t)
	d.install("t1", s1)
	return d, s1, s2
}

func TestCarriedPathMadeOnTrial(t *testing.T) {
	d, _, s2 := carriers(t)
	d.activate("t2", s2)
	files(t, d.root, map[string]string{"data/db": "made on trial"})
	require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c))
	require.Equal(t, "made on trial", d.read("data/db"))
	require.Equal(t, "1", d.read("a"))
}

// TestAppWritesUpToTheExchange has the app make its path in the very last
// moment before the exchange.
func TestAppWritesUpToTheExchange(t *testing.T) {
	d, _, s2 := carriers(t)
	require.NoError(t, d.stage("t2", s2))
	d.f.before = func(op, _ string) error {
		if op == "exchange" {
			files(t, d.root, map[string]string{"data/db": "late"})
		}
		return nil
	}
	require.NoError(t, d.f.Activate(t.Context(), "t2", s2.c))
	require.Equal(t, "late", d.read("data/db"))
	require.Equal(t, "2", d.read("a"))
}

// TestAppWritesDuringTheMove has the app make a path anew before the real one
// could follow: nothing is overwritten, and the way back is open.
func TestAppWritesDuringTheMove(t *testing.T) {
	d, s1, s2 := carriers(t)
	files(t, d.root, map[string]string{"data/db": "real"})
	require.NoError(t, d.stage("t2", s2))
	once := true
	d.f.before = func(op, _ string) error {
		if op == "move" && once {
			once = false
			files(t, d.root, map[string]string{"data/db": "hasty"})
		}
		return nil
	}
	require.ErrorIs(t, d.f.Activate(t.Context(), "t2", s2.c), os.ErrExist)
	require.ErrorContains(t, d.f.Activate(t.Context(), "t2", s2.c), "has to rest")
	d.restart()
	require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c))
	require.Equal(t, "real", d.read("data/db"))
	d.isWhole(s1)
}

// TestStagedTreeReplaced does not give the root's name to a tree that Stage
// did not finish.
func TestStagedTreeReplaced(t *testing.T) {
	d, s1, s2 := carriers(t)
	require.NoError(t, d.stage("t2", s2))
	tree := d.f.treePath("t2")
	require.NoError(t, exec.Command("cp", "-a", tree, tree+".copy").Run())
	require.NoError(t, os.RemoveAll(tree))
	require.NoError(t, os.Rename(tree+".copy", tree))
	require.ErrorIs(t, d.f.Activate(t.Context(), "t2", s2.c), ota.ErrState)
	d.isWhole(s1)
	require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c))
}
