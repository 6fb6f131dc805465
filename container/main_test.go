package container

import (
	"os"
	"strings"
	"testing"

	"github.com/pawl-ota/pawl/internal/seam"
)

// TestMain leaves out what only a real power cut would show: the engine's calls
// and the writes of the record are counted, and the disk of the machine that
// tests is not asked to keep up.
func TestMain(m *testing.M) {
	leave := func(op string) bool { return strings.Contains(op, "sync") }
	if os.Getenv(diskWork) == "" {
		seam.Leave.Store(&leave)
	}
	os.Exit(m.Run())
}

// diskWork is set in the environment of a process that works on a disk whose power
// is cut.
const diskWork = "PAWL_CONTAINER_DISK"
