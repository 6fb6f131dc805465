package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
)

// TestOneFileAlone has releases that list a single file each, among files of
// the app's own and of the system's: nothing else is touched, not even its
// times, and each file goes back to the version before.
func TestOneFileAlone(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	d := newDevice(t, m, t.TempDir())
	d.layout("inplace")
	d.health("true")
	system := copyTree(t, filepath.Join(d.dir, "app"), "net/http")
	write(t, system, "data/precious.db", "precious", 0o600)
	others := func() map[string]string {
		all := inodes(t, system)
		delete(all, "net/http/client.go")
		return all
	}
	before, times := others(), modified(t, system)
	was, err := os.ReadFile(filepath.Join(system, "net/http/client.go"))
	require.NoError(t, err)

	for i, content := range []string{"one\n", "two\n"} {
		tree := filepath.Join(m.dir, content)
		write(t, tree, "net/http/client.go", content, 0o640)
		m.release([]string{"1.0.0", "1.1.0"}[i], tree, "  partial: true")
		d.must(0, "update")
		got, err := os.ReadFile(filepath.Join(system, "net/http/client.go"))
		require.NoError(t, err)
		require.Equal(t, content, string(got))
	}
	d.must(0, "rollback")
	got, err := os.ReadFile(filepath.Join(system, "net/http/client.go"))
	require.NoError(t, err)
	require.Equal(t, "one\n", string(got))

	// The first release of all is taken back to what was there before it.
	fresh := newDevice(t, m, t.TempDir())
	fresh.layout("inplace")
	write(t, fresh.app, "net/http/client.go", string(was), 0o604)
	was1 := pictureOf(t, fresh.app)
	fresh.health("exit 1")
	fresh.set("trial", "deadline", "200ms")
	require.Equal(t, ota.Reverted, fresh.must(10, "update").Result.State)
	requireSame(t, was1, pictureOf(t, fresh.app))

	require.Equal(t, before, others(), "a file that no release lists was written anew")
	now := modified(t, system)
	for name, at := range times {
		if name != "net/http/client.go" {
			require.Equal(t, at, now[name], "the time of %s", name)
		}
	}
}

// modified returns the time of the last change of each file.
func modified(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	all := map[string]int64{}
	for _, name := range files(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		all[name] = info.ModTime().UnixNano()
	}
	return all
}

// TestLocalChange has a person change a managed file: the update stops before
// anything is touched and says which one, until the release says what becomes
// of it; a rollback brings the person's version back.
func TestLocalChange(t *testing.T) {
	t.Parallel()
	f := newFieldOf(t, t.TempDir(), "inplace")
	const name = "net/http/client.go"
	write(t, f.app, name, "by hand\n", 0o644)
	a := f.must(1, "update")
	require.Equal(t, "localchange", a.Kind)
	require.Contains(t, a.Error, name)
	require.Contains(t, f.reads("diff"), name)

	f.m.release("1.2.0", f.v2, `  options: {localChanges: overwrite}`)
	require.Contains(t, f.reads("diff"), name)
	f.health("false")
	f.set("trial", "deadline", "200ms")
	f.must(10, "update")
	content, err := os.ReadFile(filepath.Join(f.app, name))
	require.NoError(t, err)
	require.Equal(t, "by hand\n", string(content))

	f.health("true")
	f.set("trial", "deadline", "3s")
	f.m.release("1.3.0", f.v2, `  options: {localChanges: overwrite}`)
	f.installs(f.v2)
}
