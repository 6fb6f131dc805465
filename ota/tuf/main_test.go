package tuf_test

import (
	"os"
	"testing"
)

// TestMain has the tests work in memory, where there is some: they make some
// thousand stores and repositories, and sync each. The long run is on the disk.
func TestMain(m *testing.M) {
	if os.Getenv("PAWL_CRASH") == "long" {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("/dev/shm", "pawl-tuf-")
	if err == nil {
		_ = os.Setenv("TMPDIR", dir)
	}
	code := m.Run()
	if err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}
