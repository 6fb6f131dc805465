//go:build linux && (amd64 || arm64)

package model

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/powercut"
	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/internal/trace"
)

func TestMain(m *testing.M) {
	ran, err := Child(everything(nil))
	if !ran {
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// everything is every workload of the tests, for the processes that are recorded.
func everything(scene *powercut.Scene) []Workload {
	all := append(append(Devices(scene, 16), KilledDevices(scene, 16)...), workload("durable", steps), journaling(), trusting(nil), distrusting(nil))
	for _, a := range allAlone() {
		all = append(all, a.workload(1))
	}
	for n := range foreign {
		all = append(all, workload(foreignName(n), foreign[n:n+1]))
	}
	return all
}

// states is how many are looked at: few in an ordinary run, or many, or as many
// as the environment says.
func states(few, many int) int {
	n, err := strconv.Atoi(os.Getenv("PAWL_MODEL_STATES"))
	switch {
	case err == nil:
		return n
	case os.Getenv("PAWL_CRASH") == "long":
		return many
	case testing.Short() || os.Geteuid() != 0:
		return max(min(few, 20), few/40)
	}
	return few
}

// inMemory returns a folder of the test on a file system in memory, where there
// is one.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "pawl-model-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = removeAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

func newStand(t *testing.T) *Stand {
	t.Helper()
	if err := trace.Available(); errors.Is(err, trace.ErrUnavailable) {
		testneeds.Missing(t, "to trace processes: "+err.Error())
	}
	stand, done := NewStand(inMemory(t))
	t.Cleanup(done)
	return stand
}
