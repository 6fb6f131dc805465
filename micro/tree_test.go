//go:build linux

package micro

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// goSources copies folders of the Go toolchain's own source: thousands of real
// files that every machine has that runs this test.
func goSources(t testing.TB, dir string, folders ...string) {
	t.Helper()
	root, err := exec.Command(testneeds.Program(t, "go"), "env", "GOROOT").Output()
	require.NoError(t, err)
	for _, folder := range folders {
		from := filepath.Join(strings.TrimSpace(string(root)), "src", folder)
		require.NoError(t, os.CopyFS(filepath.Join(dir, folder), os.DirFS(from)))
	}
}

func regular(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	require.NoError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			all = append(all, p)
		}
		return err
	}))
	return all
}

// change turns a copy of v1 into v2: every kind of change there is.
func change(t testing.TB, dir string) {
	t.Helper()
	for i, p := range regular(t, dir) {
		switch {
		case i%100 == 0:
			data, err := os.ReadFile(p)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(p, append(data, "// changed\n"...), 0o644))
		case i%100 == 10:
			require.NoError(t, os.WriteFile(p+".added", []byte(p), 0o640))
		case i%100 == 20:
			require.NoError(t, os.Remove(p))
		case i%100 == 30:
			require.NoError(t, os.Remove(p))
			require.NoError(t, os.Symlink("../"+filepath.Base(p), p))
		case i%100 == 40:
			require.NoError(t, os.Remove(p))
			require.NoError(t, os.Mkdir(p, 0o750))
			require.NoError(t, os.WriteFile(filepath.Join(p, "inner"), []byte(p), 0o600))
		case i%100 == 50:
			require.NoError(t, os.Chmod(p, 0o755|fs.ModeSetuid))
		case i%100 == 60:
			require.NoError(t, unix.Setxattr(p, "user.pawl", []byte(p), 0))
		case i%100 == 70:
			require.NoError(t, os.Rename(p, p+".moved"))
		case i%100 == 80:
			require.NoError(t, os.Chmod(p, 0o444))
		case i%100 == 90 && os.Geteuid() == 0:
			require.NoError(t, os.Lchown(p, 123, 456))
			require.NoError(t, unix.Setxattr(p, "security.capability", []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0))
		}
	}
}

func TestRealTree(t *testing.T) {
	t.Parallel()
	v1, v2 := t.TempDir(), tempDir(t)
	goSources(t, v1, "go", "net", "crypto", "internal", "cmd/internal")
	goSources(t, v2, "go", "net", "crypto", "internal", "cmd/internal")
	change(t, v2)
	require.NoError(t, os.Chmod(filepath.Join(v2, "net"), 0o555))
	s1, s2 := newShop(t, v1), newShop(t, v2)
	want1, want2 := snapshot(t, v1), snapshot(t, v2)
	require.Greater(t, len(want1), 3000)
	d := newDevice(t)

	d.install("t1", s1)
	same(t, want1, snapshot(t, d.root), "v1 is installed")
	d.activate("t2", s2)
	same(t, want2, snapshot(t, d.root), "v2 is on trial")
	d.isWhole(s2)
	require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c))
	same(t, want1, snapshot(t, d.root), "v1 is back")
	d.isWhole(s1)

	d.install("t3", s2)
	same(t, want2, snapshot(t, d.root), "v2 is committed")
	require.DirExists(t, d.f.keptPath(s1.c.Digest()))
	same(t, want1, snapshot(t, d.f.keptPath(s1.c.Digest())), "v1 is kept")

	back := &shop{c: s1.c, blobs: s1.blobs, local: true}
	d.activate("t4", back)
	same(t, want1, snapshot(t, d.root), "offline back to v1")
	require.NoError(t, d.f.Revert(t.Context(), "t4", s1.c))
	same(t, want2, snapshot(t, d.root), "v2 is back")
	d.isWhole(s2)
	require.NoError(t, os.Chmod(filepath.Join(v2, "net"), 0o755))
}

func TestOnlyChangesAreFetched(t *testing.T) {
	v1, v2 := t.TempDir(), t.TempDir()
	goSources(t, v1, "net", "go")
	goSources(t, v2, "net", "go")
	require.NoError(t, os.WriteFile(filepath.Join(v2, "go", "new"), []byte("new"), 0o644))
	s1, s2 := newShop(t, v1), newShop(t, v2)
	d := newDevice(t)
	d.install("t1", s1)
	require.NoError(t, d.stage("t2", s2))
	require.Equal(t, s2.c.Index.Size+3, s2.fetched)
}

func TestFirstInstall(t *testing.T) {
	s := newShop(t, files(t, t.TempDir(), map[string]string{"a": "1", "b/c": "2"}))
	d := newDevice(t)
	require.Equal(t, ota.None, d.active().State)
	d.activate("t1", s)
	d.isWhole(s)
	require.NoError(t, d.f.Revert(t.Context(), "t1", s.c))
	require.NoFileExists(t, d.root)
	require.Equal(t, ota.None, d.active().State)

	require.NoError(t, os.Mkdir(d.root, 0o711))
	before := snapshot(t, d.root)
	require.Equal(t, ota.None, d.active().State)
	d.activate("t2", s)
	d.isWhole(s)
	require.NoError(t, d.f.Revert(t.Context(), "t2", s.c))
	same(t, before, snapshot(t, d.root), "the empty root is back")
	d.install("t3", s)
	d.isWhole(s)
	require.Empty(t, listed(t, d.f.path(dirKept)), "nothing was there to be kept")
}

func listed(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestSameComponentAgain(t *testing.T) {
	s := newShop(t, files(t, t.TempDir(), map[string]string{"a": "1"}))
	d := newDevice(t)
	d.install("t1", s)
	before, err := os.Stat(d.root)
	require.NoError(t, err)
	d.install("t2", s)
	d.activate("t3", s)
	require.NoError(t, d.f.Revert(t.Context(), "t3", s.c))
	after, err := os.Stat(d.root)
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after))
	d.isWhole(s)
}

func TestKeepNone(t *testing.T) {
	s1 := newShop(t, files(t, t.TempDir(), map[string]string{"a": "1"}))
	s2 := newShop(t, files(t, t.TempDir(), map[string]string{"a": "2"}))
	s2.c.Keep.Previous = 0
	d := newDevice(t)
	d.install("t1", s1)
	d.install("t2", s2)
	require.Empty(t, listed(t, d.f.path(dirKept)))
	require.Empty(t, listed(t, d.f.path(dirTx)))
	require.Empty(t, listed(t, d.f.path(dirTrash)))
}

// TestWayBackSharesTheKeptTree goes back to a kept release with nothing but
// what is on the device: in a new folder, whose files are the kept ones.
func TestWayBackSharesTheKeptTree(t *testing.T) {
	s1 := newShop(t, files(t, t.TempDir(), map[string]string{"bin/app": "1", "lib/same": "same", "lib/gone": "gone"}))
	s2 := newShop(t, files(t, t.TempDir(), map[string]string{"bin/app": "2", "lib/same": "same"}))
	d := newDevice(t)
	d.install("t1", s1)
	want := snapshot(t, d.root)
	d.install("t2", s2)
	kept := d.f.keptPath(s1.c.Digest())
	s1.local = true
	d.install("t3", s1)
	same(t, want, snapshot(t, d.root), "v1")
	require.DirExists(t, kept)
	linked(t, filepath.Join(kept, "bin/app"), filepath.Join(d.root, "bin/app"))
	linked(t, filepath.Join(kept, "lib/gone"), filepath.Join(d.root, "lib/gone"))

	running, before := []release.Digest{s1.c.Digest(), s2.c.Digest()}, snapshot(t, d.root)
	require.NoError(t, d.stage("t4", s2))
	require.NoError(t, d.f.Prune(t.Context(), "app", running, []ota.TxID{"t4"}))
	require.DirExists(t, kept, "a transaction is open")
	require.NoError(t, d.f.Revert(t.Context(), "t4", s2.c))
	require.NoError(t, d.f.Prune(t.Context(), "app", running, nil))
	require.Equal(t, []string{s2.c.Digest().String()}, listed(t, d.f.path(dirKept)), "what runs needs no kept one beside it")
	require.Len(t, indexesOf(t, d.f.path(dirIndex)), 2)
	same(t, before, snapshot(t, d.root), "v1")
	d.isWhole(s1)
	s2.local = true
	d.install("t5", s2)
	require.NoError(t, d.f.Prune(t.Context(), "app", running, nil))
	d.isWhole(s2)
	require.Equal(t, []string{s1.c.Digest().String()}, listed(t, d.f.path(dirKept)))
}
