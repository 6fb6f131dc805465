//go:build linux

package micro

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/otatest"
)

// TestSpoolIsDurableBeforeItIsReliedUpon: a process that was killed may have left
// what the next power cut takes. The first verb of the next one makes it durable
// before it drops anything, and no other does again.
func TestSpoolIsDurableBeforeItIsReliedUpon(t *testing.T) {
	for _, layout := range []Layout{Tree, InPlace} {
		t.Run(string(layout), func(t *testing.T) {
			root := filepath.Join(tempDir(t), "app")
			require.NoError(t, os.Mkdir(root, 0o755))
			s := newShop(t, files(t, t.TempDir(), map[string]string{"a": "11111"}))
			blobs := otatest.NewBlobs()
			for _, b := range s.blobs {
				blobs.Add(b)
			}
			open := func() *Files {
				f, err := New(Options{Name: "app", Root: root, Layout: layout})
				require.NoError(t, err)
				return f
			}
			f := open()
			if layout == Tree {
				require.NoError(t, os.Remove(root))
			}
			_, err := f.Stage(t.Context(), "t1", s.c, blobs)
			require.NoError(t, err)
			var steps []string
			onStep(t, func(op, path string, call func() error) error {
				steps = append(steps, op+" "+filepath.Base(path))
				return call()
			})
			f = open()
			require.NoError(t, f.Revert(t.Context(), "t1", s.c))
			require.Equal(t, "syncfs "+filepath.Base(f.svc.path()), steps[0])
			steps = nil
			require.NoError(t, f.Revert(t.Context(), "t1", s.c))
			require.NotContains(t, steps, "syncfs "+filepath.Base(f.svc.path()))
		})
	}
}

// TestRevertWithoutTrash: a power cut in the first Stage may leave the folder of
// the transaction, and not that of what is being removed.
func TestRevertWithoutTrash(t *testing.T) {
	d := newDevice(t)
	s := newShop(t, files(t, t.TempDir(), map[string]string{"a": "11111"}))
	require.NoError(t, d.stage("t1", s))
	require.NoError(t, os.Remove(d.f.path(dirTrash)))
	d.restart()
	require.NoError(t, d.f.Revert(t.Context(), "t1", s.c))
	require.NoDirExists(t, d.f.txPath("t1"))
}
