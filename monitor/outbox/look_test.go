package outbox

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestLook: what is on the disk is told without the lock, while the outbox is
// open, after some of it was sent, and after it was closed; nothing is changed.
func TestLook(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "box")
	none, err := Look(dir)
	require.NoError(t, err)
	require.Equal(t, Stats{}, none)
	require.NoDirExists(t, dir)

	b := open(t, Options{Dir: dir, BatchItems: 4, Interval: time.Nanosecond})
	for n := range 10 {
		b.Append(true, fmt.Sprint("key ", n), fmt.Appendf(nil, "result %d", n))
		b.Append(false, "", fmt.Appendf(nil, "metric %d", n))
	}
	require.NoError(t, b.Flush(t.Context()))
	same := func() Stats {
		t.Helper()
		got, err := Look(dir)
		require.NoError(t, err)
		return got
	}
	got := same()
	require.EqualValues(t, []uint64{10, 10}, []uint64{got.Results, got.Metrics})
	require.Equal(t, b.Stats().Bytes, got.Bytes)

	r := &receiver{}
	drain(t, b, r)
	require.NoError(t, b.Close())
	before := snapshot(t, dir)
	require.Zero(t, same().Results+same().Metrics)
	require.Equal(t, before, snapshot(t, dir))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "results", "00000000000000ff"), []byte("nonsense"), 0o600))
	require.Len(t, same().Notes, 1)
	require.FileExists(t, filepath.Join(dir, "results", "00000000000000ff"))
}

func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			data, readErr := os.ReadFile(path)
			all[path], err = string(data), readErr
		}
		return err
	}))
	return all
}
