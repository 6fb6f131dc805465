package e2e

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
)

// TestAppWritesToSharedFile has the app of a bad release write, during its
// trial, into a file that the two trees share. With a full local copy the way
// back puts the old content back, without a network.
func TestAppWritesToSharedFile(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	d := newDevice(t, m, t.TempDir())
	v1 := copyTree(t, filepath.Join(m.dir, "v1"), "net/http")
	v2 := cloneTree(t, v1, filepath.Join(m.dir, "v2"))
	write(t, v2, "bin/selftest", "echo broken >> net/http/server.go\nexit 1\n", 0o755)
	m.release("1.0.0", v1, "  keep: {previous: 1, repair: full}")
	d.must(0, "update")
	m.release("1.1.0", v2, "  keep: {previous: 1, repair: full}")

	a := d.must(10, "update")
	require.Equal(t, ota.Reverted, a.Result.State, a.Error)
	d.holds(v1)
	d.must(0, "verify")
}
