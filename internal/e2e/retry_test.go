package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRetry: the publisher has a release tried again where it failed, when the
// reason was elsewhere; a device that runs it does nothing.
func TestRetry(t *testing.T) {
	m := newMaker(t)
	sick, well := newDevice(t, m, t.TempDir()), newDevice(t, m, t.TempDir())
	tree := filepath.Join(m.dir, "tree")
	write(t, tree, "bin/hello", "one", 0o755)
	m.release("1.0.0", tree)
	sick.must(0, "update")
	write(t, tree, "bin/hello", "two", 0o755)
	m.release("1.1.0", tree)
	reason := filepath.Join(sick.dir, "sick")
	require.NoError(t, os.WriteFile(reason, nil, 0o644))
	sick.must(10, "update")
	well.must(0, "update")
	require.NoError(t, os.Remove(reason))
	sick.must(11, "update") // it does not try again by itself

	m.publisher("retry", "-repo", m.repo, "-keys", m.keys, "-variant", "arm", "-seq", "2")
	sick.must(0, "update")
	sick.holds(tree)
	require.Contains(t, well.must(0, "update").Line, "nothing to do, runs 1.1.0")
	require.Len(t, well.must(0, "history").History, 1)
}
