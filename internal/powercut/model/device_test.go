//go:build linux && (amd64 || arm64)

package model

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/powercut"
)

// inMemory returns a folder of the test on a file system in memory, where there
// is one.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "pawl-model-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = removeAll(dir) })
	return dir
}

func TestDevices(t *testing.T) {
	dir := inMemory(t)
	scene := powercut.New(t, dir)
	stand, done := NewStand(dir)
	defer done()
	for _, w := range Devices(scene) {
		t.Run(w.Name, func(t *testing.T) {
			r, err := w.Run(t.Context(), stand, Options{States: 500})
			require.NoError(t, err)
			t.Log(r)
			for _, v := range r.Violations {
				t.Error(v.String())
			}
		})
	}
}
