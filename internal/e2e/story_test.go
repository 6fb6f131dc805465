package e2e

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestStory is the main job on real input: an update that is kept, one that is
// taken back by itself and not tried again, a good one after it, and the way
// back without a network.
func TestStory(t *testing.T) { bothLayouts(t, story) }

func story(t *testing.T, layout string) {
	m := newMaker(t)
	d := newDevice(t, m, t.TempDir())
	d.layout(layout)

	v1 := copyTree(t, filepath.Join(m.dir, "v1"), "encoding", "net")
	write(t, v1, "bin/selftest", "exit 0\n", 0o755)
	m.release("1.0.0", v1)
	a := d.must(0, "check")
	require.Equal(t, "1.0.0", a.Available.Version)
	a = d.must(0, "update")
	require.Equal(t, "committed", string(a.Result.State))
	d.holds(v1)
	require.Contains(t, d.must(0, "update").Line, "nothing to do, runs 1.0.0")

	v2 := cloneTree(t, v1, filepath.Join(m.dir, "v2"))
	write(t, v2, "net/net.go", "package net // another one\n", 0o644)
	m.release("1.1.0", v2)
	a = d.must(0, "update")
	require.Contains(t, a.Line, "1.1.0 (seq 2) is installed over 1.0.0 (seq 1)")
	require.Less(t, a.Result.Bytes, int64(200_000), "more was fetched than what changed")
	f := a.Result.Fetched
	require.Equal(t, a.Result.Bytes, f.Total(), "%+v", f)
	require.True(t, min(f.Metadata, f.Index, f.Whole) > 0 && f.Between == 0 && f.Again == 0, "%+v", f)
	d.holds(v2)

	bad := cloneTree(t, v2, filepath.Join(m.dir, "bad"))
	write(t, bad, "bin/selftest", "echo no camera found >&2; exit 1\n", 0o755)
	m.release("1.2.0", bad)
	a = d.must(10, "update")
	require.Equal(t, "unhealthy", a.Kind)
	require.Contains(t, a.Error, "no camera found")
	d.holds(v2)
	a = d.must(11, "update")
	require.Equal(t, "condemned", a.Kind)
	require.Contains(t, a.Error, "no camera found", "held back without saying why")
	require.Equal(t, "1.2.0", d.must(11, "check").Available.Version)
	require.Len(t, d.must(0, "status").Status.Held, 1)
	d.must(10, "update", "-retry")
	d.holds(v2)

	v3 := cloneTree(t, v2, filepath.Join(m.dir, "v3"))
	write(t, v3, "new/file", "new\n", 0o600)
	m.release("1.3.0", v3)
	d.must(0, "update")
	d.holds(v3)
	require.Contains(t, d.must(0, "verify").Line, "is as published")

	m.server.Close()
	d.must(0, "rollback")
	d.holds(v2)
	require.Contains(t, d.must(0, "verify").Line, "is as published")
	d.must(1, "update")

	m.serve()
	d.set("source", "url", m.url)
	d.must(11, "update") // an operator went back from 1.3.0
	m.release("1.4.0", v1)
	d.must(0, "update")
	d.holds(v1)
	var versions []string
	for _, r := range d.must(0, "history").History {
		versions = append(versions, r.To.Version+" "+string(r.State))
	}
	require.Equal(t, []string{
		"1.0.0 committed", "1.1.0 committed", "1.2.0 reverted", "1.2.0 reverted", "1.3.0 committed", "1.1.0 committed", "1.4.0 committed",
	}, versions)
}

// TestRepair damages what is installed, and mends it without a network.
func TestRepair(t *testing.T) { bothLayouts(t, mends) }

func mends(t *testing.T, layout string) {
	m := newMaker(t)
	d := newDevice(t, m, t.TempDir())
	d.layout(layout)
	v1 := copyTree(t, filepath.Join(m.dir, "v1"), "net/http")
	m.release("1.0.0", v1, "  keep: {previous: 1, repair: full}")
	d.must(0, "update")
	m.server.Close()

	write(t, d.app, "net/http/client.go", "damaged", 0o644)
	write(t, d.app, "net/http/server.go", "damaged too", 0o600)
	a := d.must(1, "verify")
	require.Equal(t, "damaged", a.Kind)
	require.Len(t, a.Damage, 2)
	d.must(0, "repair")
	d.must(0, "verify")
	d.holds(v1)
}
