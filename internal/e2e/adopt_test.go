package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAdopt is a device from a factory that knows nothing of pawl: its files are
// recognised as a release, and the next one comes as a delta, of which check
// -plan says beforehand what it takes.
func TestAdopt(t *testing.T) { bothLayouts(t, adopt) }

func adopt(t *testing.T, layout string) {
	m := newMaker(t)
	d := newDevice(t, m, t.TempDir())
	d.layout(layout)
	v1 := copyTree(t, filepath.Join(m.dir, "v1"), "encoding", "net")
	m.release("1.0.0", v1)
	v2 := cloneTree(t, v1, filepath.Join(m.dir, "v2"))
	for _, name := range files(t, v2)[:20] {
		appendTo(t, filepath.Join(v2, name), "// one line more\n")
	}
	m.release("1.1.0", v2)
	fill := func() {
		require.NoError(t, os.RemoveAll(d.app))
		cloneTree(t, v1, d.app)
	}

	fill()
	write(t, d.app, "net/net.go", "package net // somebody's own\n", 0o644)
	a := d.must(1, "adopt")
	require.Equal(t, "differs", a.Kind)
	require.Equal(t, 1, len(a.Damage))
	require.Equal(t, "1.0.0", a.Available.Version, "the nearest")
	fill()
	a = d.must(0, "adopt")
	require.Equal(t, "1.0.0", a.Available.Version)
	d.holds(v1)
	require.Equal(t, "1.0.0", d.must(0, "status").Status.Running.Version)
	require.Contains(t, d.must(0, "verify").Line, "is as published")
	d.must(1, "adopt")

	a = d.must(0, "check", "-plan")
	require.Equal(t, "1.1.0", a.Available.Version)
	require.NotNil(t, a.Need)
	require.NoError(t, a.Need.Check())
	require.Equal(t, 20, a.Need.Parts[0].Patched.Blobs, "%+v", a.Need)
	require.Less(t, a.Need.Fetch, int64(3000))
	looked := a.Need.Fetch
	a = d.must(0, "update")
	require.Less(t, a.Result.Bytes, looked+40_000)
	d.holds(v2)
	d.must(0, "rollback")
	d.holds(v1)
}
