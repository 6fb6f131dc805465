package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestRealTrees moves thousands of files through every kind of change and
// back: after the update the folder is the new tree exactly, after the
// rollback the old one, in content, type, mode, owner and extended attributes.
// One repository serves a device of each layout.
func TestRealTrees(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	folders := []string{"net"}
	if !testing.Short() {
		folders = append(folders, "crypto")
	}
	if os.Getenv("PAWL_CRASH") == "long" {
		folders = append(folders, "internal")
	}
	v1 := copyTree(t, filepath.Join(m.dir, "v1"), folders...)
	garnish(t, v1)
	t.Logf("%d files", len(files(t, v1)))
	m.release("1.0.0", v1)
	devices := []*device{newDevice(t, m, t.TempDir()), newDevice(t, m, t.TempDir())}
	devices[1].layout("inplace")
	for _, d := range devices {
		d.must(0, "update")
		d.holds(v1)
	}

	v2 := cloneTree(t, v1, filepath.Join(m.dir, "v2"))
	counts := change(t, v2)
	t.Logf("changes: %v", counts)
	m.release("2.0.0", v2)
	for _, d := range devices {
		d.must(0, "update")
		d.holds(v2)
		d.must(0, "verify")
		d.must(0, "rollback")
		d.holds(v1)
	}

	// The same, taken back by itself.
	write(t, v2, "one-more", "x", 0o644)
	m.release("3.0.0", v2)
	for _, d := range devices {
		write(t, d.dir, "sick", "", 0o644)
		d.set("trial", "deadline", "300ms")
		d.must(10, "update")
		require.NoError(t, os.Remove(filepath.Join(d.dir, "sick")))
		d.holds(v1)
	}
}

// garnish gives a tree what sources do not have: links, odd modes, attributes,
// empty files and folders, names that are hard to quote, other owners.
func garnish(t testing.TB, dir string) {
	t.Helper()
	write(t, dir, "bin/run", "#!/bin/sh\n", 0o755)
	write(t, dir, "secret", "s3cret", 0o400)
	write(t, dir, "empty", "", 0o644)
	write(t, dir, "setuid", "#!/bin/sh\n", 0o755)
	require.NoError(t, os.Chmod(filepath.Join(dir, "setuid"), 0o755|os.ModeSetuid))
	write(t, dir, "names/with blank", "1", 0o644)
	write(t, dir, "names/with\nnewline", "2", 0o644)
	write(t, dir, "names/ünïcödé", "3", 0o644)
	write(t, dir, "names/-rf", "4", 0o644)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "hollow/deep/deeper"), 0o750))
	require.NoError(t, os.Chmod(filepath.Join(dir, "hollow"), 0o1777&0o777|os.ModeSticky))
	require.NoError(t, os.Symlink("bin/run", filepath.Join(dir, "link")))
	require.NoError(t, os.Symlink("/nowhere/at/all", filepath.Join(dir, "dangling")))
	require.NoError(t, os.Symlink("../../../..", filepath.Join(dir, "names/up")))
	err := unix.Setxattr(filepath.Join(dir, "bin/run"), "user.origin", []byte("v1\x00\xff"), 0)
	if err == nil {
		require.NoError(t, unix.Setxattr(filepath.Join(dir, "names"), "user.folder", []byte("x"), 0))
	}
	if os.Geteuid() == 0 {
		require.NoError(t, os.Lchown(filepath.Join(dir, "secret"), 1234, 5678))
		require.NoError(t, os.Lchown(filepath.Join(dir, "link"), 4321, 8765))
		require.NoError(t, os.Lchown(filepath.Join(dir, "names"), 1234, 5678))
	}
}

// change goes through the files and does something else to each of every 160
// or so; it returns how often it did what.
func change(t testing.TB, dir string) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for i, name := range files(t, dir) {
		if filepath.Dir(name) == "names" || filepath.Dir(name) == "." {
			continue
		}
		path := filepath.Join(dir, name)
		var what string
		switch i % 20 {
		case 0:
			what = "changed"
			appendTo(t, path, "// changed\n")
		case 3:
			what = "removed"
			require.NoError(t, os.Remove(path))
		case 6:
			what = "added"
			write(t, dir, name+".added", "added "+name, 0o640)
		case 9:
			what = "made executable"
			require.NoError(t, os.Chmod(path, 0o755))
		case 12:
			what = "turned into a symlink"
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Symlink("elsewhere", path))
		case 15:
			what = "turned into a folder"
			require.NoError(t, os.Remove(path))
			write(t, path, "inside", name, 0o644)
		default:
			continue
		}
		counts[what]++
	}
	// And back: links and folders become files, modes and attributes change.
	require.NoError(t, os.Remove(filepath.Join(dir, "link")))
	write(t, dir, "link", "now a file", 0o644)
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "hollow")))
	write(t, dir, "hollow", "now a file", 0o600)
	require.NoError(t, os.Chmod(filepath.Join(dir, "setuid"), 0o755))
	require.NoError(t, os.Chmod(filepath.Join(dir, "names"), 0o700))
	if unix.Setxattr(filepath.Join(dir, "bin/run"), "user.origin", []byte("v2"), 0) == nil {
		require.NoError(t, unix.Removexattr(filepath.Join(dir, "names"), "user.folder"))
	}
	return counts
}

func appendTo(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(text)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}
