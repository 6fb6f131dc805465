package ota

import (
	"bytes"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/seam"
)

// namesDir notes which folders' names are made durable.
type namesDir struct {
	seam.Dir
	synced []string
	stored []byte
}

func (d *namesDir) SyncNames(folder string) error {
	d.synced = append(d.synced, folder)
	return nil
}

func (d *namesDir) ReadFile(string, int64) ([]byte, error) {
	if d.stored == nil {
		return nil, fs.ErrNotExist
	}
	return d.stored, nil
}

func (d *namesDir) WriteFile(_ string, data []byte) error {
	d.stored = bytes.Clone(data)
	return nil
}

// TestRecordIsDurableBeforeItIsReliedUpon: a process that was killed may have left a
// record that the next power cut takes. Nothing follows from an idle one.
func TestRecordIsDurableBeforeItIsReliedUpon(t *testing.T) {
	for name, u := range map[string]*Updater{
		"open":     {rec: &record{Tx: &txState{}}},
		"stuck":    {rec: &record{Over: []txState{{}}}},
		"owed":     {rec: &record{Owed: true}},
		"fallback": {rec: &record{}, fallback: true},
	} {
		d := &namesDir{}
		u.dir = d
		require.NoError(t, u.rely(), name)
		require.Equal(t, []string{"."}, d.synced, name)
		u.settled = true
		require.NoError(t, u.rely(), name)
		require.Len(t, d.synced, 1, "%s: once in a process", name)
	}
	idle := &namesDir{}
	require.NoError(t, (&Updater{rec: &record{}, dir: idle}).rely())
	require.Empty(t, idle.synced)
}

// TestStoredDocumentIsDurable: one that is found may be of a process that was killed
// before it made the name durable, and a record is about to name it.
func TestStoredDocumentIsDurable(t *testing.T) {
	d := &namesDir{}
	for range 2 {
		_, err := store{d}.putDocument([]byte("document"))
		require.NoError(t, err)
	}
	require.Equal(t, []string{blobFolder}, d.synced, "the one that was found, not the one that was written")
}
