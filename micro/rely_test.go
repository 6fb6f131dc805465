//go:build linux

package micro

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
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
			spools, err := f.spools()
			require.NoError(t, err)
			require.Equal(t, layout == Tree, len(spools) == 0, "Stage synced it")
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

// TestSpoolThatCannotBeReliedUpon: where the spool cannot be made durable, a verb
// that drops something ends there, and the next one tries before it does anything.
func TestSpoolThatCannotBeReliedUpon(t *testing.T) {
	s := newShop(t, files(t, t.TempDir(), map[string]string{"a": "11111"}))
	blobs := otatest.NewBlobs()
	for _, b := range s.blobs {
		blobs.Add(b)
	}
	verbs := map[string]func(*Files) error{
		"revert": func(f *Files) error { return f.Revert(t.Context(), "t1", s.c) },
		"commit": func(f *Files) error { return f.Commit(t.Context(), "t1", s.c) },
		"prune":  func(f *Files) error { return f.Prune(t.Context(), "app", []release.Digest{s.c.Digest()}, nil) },
	}
	for name, verb := range verbs {
		t.Run(name, func(t *testing.T) {
			o := Options{Name: "app", Root: filepath.Join(tempDir(t), "app")}
			f, err := New(o)
			require.NoError(t, err)
			_, err = f.Stage(t.Context(), "t1", s.c, blobs)
			require.NoError(t, err)
			if name == "commit" {
				require.NoError(t, f.Activate(t.Context(), "t1", s.c))
			}
			f, err = New(o)
			require.NoError(t, err)
			var steps []string
			onStep(t, func(op, _ string, call func() error) error {
				if steps = append(steps, op); len(steps) == 1 {
					return syscall.EIO
				}
				return call()
			})
			require.ErrorIs(t, verb(f), syscall.EIO)
			require.Equal(t, []string{"syncfs"}, steps, "nothing else was done")
			require.NoError(t, verb(f))
			require.Equal(t, "syncfs", steps[1])
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
