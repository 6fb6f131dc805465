package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// mountTmpfs puts a small file system on dir for the time of the test.
func mountTmpfs(t testing.TB, dir, options string) {
	t.Helper()
	testneeds.Root(t)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		testneeds.Missing(t, "the right to mount: "+err.Error())
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}

// TestFullDisk has a device whose disk is too small for the release: the
// refusal states the numbers before anything is fetched. When there is room
// it installs.
func TestFullDisk(t *testing.T) { bothLayouts(t, fullDisk) }

func fullDisk(t *testing.T, layout string) {
	dir := filepath.Join(t.TempDir(), "disk")
	mountTmpfs(t, dir, "size=24m")
	f := newFieldOf(t, dir, layout)
	big := cloneTree(t, f.v2, filepath.Join(f.m.dir, "big"))
	write(t, big, "blob", noise(18<<20), 0o644)
	f.m.release("1.2.0", big)
	write(t, dir, "ballast", strings.Repeat("x", 10<<20), 0o644)
	sent := f.m.sent.Load()
	a := f.refused(1, "space")
	require.Contains(t, a.Error, "bytes")
	require.Less(t, f.m.sent.Load()-sent, int64(1<<20), "content was fetched for a release that has no room")

	require.NoError(t, os.Remove(filepath.Join(dir, "ballast")))
	f.must(0, "update")
	require.NoError(t, os.Remove(filepath.Join(dir, "agent.json")))
	requireSame(t, pictureOf(t, big), pictureOf(t, f.app))
}

// TestDiskFillsUp has the disk fill up to the last byte in the middle: the
// journal still says what happened, and the old release stays.
func TestDiskFillsUp(t *testing.T) { bothLayouts(t, diskFillsUp) }

func diskFillsUp(t *testing.T, layout string) {
	dir := filepath.Join(t.TempDir(), "disk")
	mountTmpfs(t, dir, "size=24m")
	f := newFieldOf(t, dir, layout)
	fill := func() {
		ballast, err := os.Create(filepath.Join(dir, "ballast"))
		require.NoError(t, err)
		defer ballast.Close()
		block := make([]byte, 4096)
		for i := 0; i < 24<<20/len(block); i++ {
			if _, err := ballast.Write(block); err != nil {
				return
			}
		}
	}
	fill()
	f.refused(1, "space")
	f.must(0, "status")
	require.NoError(t, os.Remove(filepath.Join(dir, "ballast")))
	f.installs(f.v2)
}

// TestReadOnlyRoot has the app on a file system that cannot be written.
func TestReadOnlyRoot(t *testing.T) { bothLayouts(t, readOnlyRoot) }

func readOnlyRoot(t *testing.T, layout string) {
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	mountTmpfs(t, disk, "size=32m")
	m := newMaker(t)
	d := newDevice(t, m, dir)
	d.app = filepath.Join(disk, "app")
	d.config["components"].(map[string]any)["app"].(map[string]any)["root"] = d.app
	d.layout(layout)
	d.health("true")
	v1 := copyTree(t, filepath.Join(m.dir, "v1"), "net/http")
	m.release("1.0.0", v1)
	d.must(0, "update")
	v2 := cloneTree(t, v1, filepath.Join(m.dir, "v2"))
	write(t, v2, "new", "new", 0o644)
	m.release("1.1.0", v2)
	f := &field{device: d, m: m, v1: v1, v2: v2}

	require.NoError(t, unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	f.refused(1, "readonly")
	require.NoError(t, unix.Mount("", disk, "", unix.MS_REMOUNT, ""))
	f.installs(v2)
}
