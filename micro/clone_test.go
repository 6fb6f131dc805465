//go:build linux

package micro

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/testneeds"
)

// disk mounts a file system of its own from a file.
func disk(t *testing.T, mkfs string, args ...string) string {
	t.Helper()
	testneeds.Root(t)
	program := testneeds.Program(t, mkfs)
	dir := t.TempDir()
	image, point := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	f, err := os.Create(image)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(512<<20))
	require.NoError(t, f.Close())
	out, err := exec.Command(program, append(args, image)...).CombinedOutput()
	require.NoError(t, err, string(out))
	require.NoError(t, os.Mkdir(point, 0o755))
	if out, err := exec.Command("mount", "-o", "loop", image, point).CombinedOutput(); err != nil {
		testneeds.Missing(t, "the right to mount a loop device: "+string(out))
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", point).Run() })
	return point
}

// TestReflinks shares bytes, not files, where the file system can: a program
// that writes in place on trial changes nothing of the old tree.
func TestReflinks(t *testing.T) {
	for _, mkfs := range []string{"mkfs.btrfs", "mkfs.xfs"} {
		t.Run(mkfs, func(t *testing.T) {
			point := disk(t, mkfs, "-q")
			content := string(make([]byte, 8<<20))
			s1 := newShop(t, files(t, t.TempDir(), map[string]string{"a": "1", "big": content + "x", "mode": content}))
			v2 := files(t, t.TempDir(), map[string]string{"a": "2", "big": content + "x", "mode": content})
			require.NoError(t, os.Chmod(filepath.Join(v2, "mode"), 0o755))
			s2 := newShop(t, v2)
			d := &device{t: t, root: filepath.Join(point, "app")}
			d.restart()
			d.install("t1", s1)
			want := snapshot(t, d.root)
			free := freeBytes(t, point)
			require.NoError(t, d.stage("t2", s2))
			unix.Sync()
			require.Less(t, free-freeBytes(t, point), int64(4<<20), "no byte of the big files was written")
			x, err := os.Stat(filepath.Join(d.root, "big"))
			require.NoError(t, err)
			y, err := os.Stat(filepath.Join(d.f.treePath("t2"), "big"))
			require.NoError(t, err)
			require.False(t, os.SameFile(x, y))
			require.NoError(t, d.f.Activate(t.Context(), "t2", s2.c))
			write(t, filepath.Join(d.root, "big"), "evil")
			require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c))
			same(t, want, snapshot(t, d.root), "v1")
			d.isWhole(s1)
			require.NoError(t, exec.Command("umount", point).Run())
			require.NoError(t, exec.Command("mount", "-o", "loop", filepath.Join(filepath.Dir(point), "image"), point).Run())
			d.restart()
			d.isWhole(s1)
		})
	}
}

func freeBytes(t *testing.T, dir string) int64 {
	t.Helper()
	unix.Sync()
	var fs unix.Statfs_t
	require.NoError(t, unix.Statfs(dir, &fs))
	return int64(fs.Bavail) * int64(fs.Bsize)
}
