package durable

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/seam"
)

// TestNewFileMakesItsFolderDurable: the process that made the state folder may have
// been killed before that was durable, and with it all that is put there. A file
// that is replaced needs no more than its own folder.
func TestNewFileMakesItsFolderDurable(t *testing.T) {
	parent := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(parent, "state"), 0o700))
	d, err := OpenDir(filepath.Join(parent, "state"))
	require.NoError(t, err)
	defer d.Close()
	var synced []string
	hook := func(op, path string, call func() error) error {
		if op == "fsyncdir" {
			synced = append(synced, path)
		}
		return call()
	}
	seam.Step.Store(&hook)
	defer seam.Step.Store(nil)
	require.NoError(t, d.WriteFile("record", []byte("one")))
	require.Contains(t, synced, parent)
	synced = nil
	require.NoError(t, d.WriteFile("record", []byte("two")))
	require.NotContains(t, synced, parent)
	synced = nil
	require.NoError(t, d.SyncNames("."))
	require.Len(t, synced, 1)
	require.NoError(t, d.SyncNames("nothing"))
	require.ErrorIs(t, d.SyncNames("../x"), ErrName)
}
