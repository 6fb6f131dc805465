package durable

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/seam"
)

// primitive is one function of the package over a folder in which "a" and "b"
// are files, "dir" and "full/below" are folders, with the steps that make it
// durable, in their order.
type primitive struct {
	name  string
	call  func(dir string) error
	steps string
}

var primitives = []primitive{
	{"WriteFile", func(d string) error { return WriteFile(d+"/a", []byte("new"), 0o600) }, "fsync a, rename a, fsyncdir ."},
	{"Rename", func(d string) error { return Rename(d+"/a", d+"/b") }, "rename b, fsyncdir ."},
	{"Rename to another folder", func(d string) error { return Rename(d+"/a", d+"/dir/a") }, "rename dir/a, fsyncdir dir, fsyncdir ."},
	{"RenameNew", func(d string) error { return RenameNew(d+"/a", d+"/c") }, "rename c, fsyncdir ."},
	{"Exchange", func(d string) error { return Exchange(d+"/a", d+"/b") }, "exchange b, fsyncdir ."},
	{"Exchange with another folder", func(d string) error { return Exchange(d+"/a", d+"/full/below") }, "exchange full/below, fsyncdir full, fsyncdir ."},
	{"Mkdir", func(d string) error { return Mkdir(d+"/new", 0o700) }, "mkdir new, fsyncdir ."},
	{"MkdirAll", func(d string) error { return MkdirAll(d+"/dir/x/y", 0o700) },
		"fsyncdir ., mkdir dir/x, fsyncdir dir, mkdir dir/x/y, fsyncdir dir/x"},
	{"MkdirAll of what is there", func(d string) error { return MkdirAll(d+"/full/below", 0o700) }, "fsyncdir full"},
	{"Remove", func(d string) error { return Remove(d + "/a") }, "remove a, fsyncdir ."},
	{"Remove of what is gone", func(d string) error { return Remove(d + "/gone") }, "remove gone, fsyncdir ."},
	{"RemoveAll", func(d string) error { return RemoveAll(d + "/full") }, "remove full, fsyncdir ."},
	{"SyncFile", func(d string) error { return SyncFile(d + "/a") }, "fsync a"},
	{"SyncDir", func(d string) error { return SyncDir(d + "/dir") }, "fsyncdir dir"},
	{"SyncTree", func(d string) error { return SyncTree(d + "/dir") }, "syncfs dir"},
	{"Dir.WriteFile", inDir(func(d *Dir) error { return d.WriteFile("a", []byte("new")) }), "fsync a, rename a, fsyncdir ."},
	{"Dir.WriteFile in a new folder", inDir(func(d *Dir) error { return d.WriteFile("new/a", nil) }),
		"mkdir new, fsyncdir ., fsync new/a, rename new/a, fsyncdir new"},
	{"Dir.Create and Commit", inDir(func(d *Dir) error {
		f, err := d.Create("dir/a")
		if err != nil {
			return err
		}
		return f.Commit()
	}), "fsync dir/a, rename dir/a, fsyncdir dir"},
	{"Dir.Create, Place and Sync", inDir(func(d *Dir) error {
		f, err := d.Create("dir/a")
		if err != nil {
			return err
		}
		return errors.Join(f.Place(), d.Sync())
	}), "rename dir/a, syncfs ."},
	{"Dir.Append and Persist", inDir(func(d *Dir) error {
		l, err := d.Append("dir/a", 0)
		if err != nil {
			return err
		}
		if err = l.Persist(); err == nil { // the second time the name is there
			err = l.Persist()
		}
		return errors.Join(err, l.Close())
	}), "fsync dir/a, fsyncdir dir, fsync dir/a"},
	{"Dir.Remove", inDir(func(d *Dir) error { return d.Remove("a") }), "remove a, fsyncdir ."},
	{"Dir.RemoveEach", inDir(func(d *Dir) error { return d.RemoveEach("full", []string{"gone", "file"}) }), "remove full/gone, remove full/file, fsyncdir full"},
}

func inDir(call func(*Dir) error) func(string) error {
	return func(path string) error {
		d, err := OpenDir(path)
		if err != nil {
			return err
		}
		d.reserve = true
		return errors.Join(call(d), d.Close())
	}
}

// TestOrderOfSteps holds the order that survives a power cut: content before
// its name, a name before success.
func TestOrderOfSteps(t *testing.T) {
	for _, p := range allPrimitives() {
		t.Run(p.name, func(t *testing.T) {
			dir := folder(t)
			var steps []string
			recordSteps(t, dir, func(step string) error { steps = append(steps, step); return nil })
			require.NoError(t, p.call(dir))
			require.Equal(t, p.steps, strings.Join(steps, ", "))
		})
	}
}

// TestFailedStep fails every step of every primitive in turn: the error comes
// back, nothing is done after it but to clean up, and no fsync is tried again.
func TestFailedStep(t *testing.T) {
	for _, p := range allPrimitives() {
		for n, failing := range strings.Split(p.steps, ", ") {
			t.Run(p.name+"/"+failing, func(t *testing.T) {
				dir := folder(t)
				seen := 0
				recordSteps(t, dir, func(string) error {
					if seen++; seen == n+1 {
						return syscall.EIO
					}
					return nil
				})
				err := p.call(dir)
				require.ErrorIs(t, err, syscall.EIO)
				require.Equal(t, strings.HasPrefix(failing, "fsync") || strings.HasPrefix(failing, "syncfs"), errors.Is(err, ErrSync), "%v", err)
				if !strings.HasSuffix(p.name, "Place and Sync") {
					require.Equal(t, n+1, seen, "steps after the one that failed")
				}
				require.Empty(t, leftovers(t, dir))
			})
		}
	}
}

// recordSteps calls see with every step below dir, as its operation and the
// path from there, and makes the step when see returns nil.
func recordSteps(t *testing.T, dir string, see func(string) error) {
	t.Helper()
	h := func(op, path string, call func() error) error {
		if filepath.IsAbs(path) {
			var err error
			if path, err = filepath.Rel(dir, path); err != nil {
				return err
			}
		}
		if err := see(op + " " + path); err != nil {
			return err
		}
		return call()
	}
	seam.Step.Store(&h)
	t.Cleanup(func() { seam.Step.Store(nil) })
}

// folder returns a folder as the primitives expect it.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	require.NoError(t, os.WriteFile(dir+"/a", []byte("a"), 0o600))
	require.NoError(t, os.WriteFile(dir+"/b", []byte("b"), 0o600))
	require.NoError(t, os.Mkdir(dir+"/dir", 0o700))
	require.NoError(t, os.MkdirAll(dir+"/full/below", 0o700))
	require.NoError(t, os.WriteFile(dir+"/full/file", []byte("file"), 0o600))
	return dir
}

// leftovers returns the temporary files anywhere below dir.
func leftovers(t *testing.T, dir string) (left []string) {
	t.Helper()
	for _, pattern := range []string{dir + "/" + tempPrefix + "*", dir + "/*/" + tempPrefix + "*"} {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		left = append(left, found...)
	}
	return left
}

// TestFolderWithoutFsync falls back to the file system as a whole.
func TestFolderWithoutFsync(t *testing.T) {
	dir := folder(t)
	var steps []string
	recordSteps(t, dir, func(step string) error {
		steps = append(steps, step)
		if strings.HasPrefix(step, "fsyncdir") {
			return syscall.EINVAL
		}
		return nil
	})
	require.NoError(t, Rename(dir+"/a", dir+"/b"))
	require.Equal(t, []string{"rename b", "fsyncdir .", "syncfs ."}, steps)
}

// TestTreeWithoutSyncfs walks: every file, then the folders from below.
func TestTreeWithoutSyncfs(t *testing.T) {
	dir := folder(t)
	var steps []string
	recordSteps(t, dir, func(step string) error {
		steps = append(steps, step)
		if strings.HasPrefix(step, "syncfs") {
			return syscall.ENOSYS
		}
		return nil
	})
	require.NoError(t, SyncTree(dir))
	require.Equal(t, []string{"syncfs .", "fsync a", "fsync b", "fsync full/file", "fsyncdir full/below", "fsyncdir full", "fsyncdir dir", "fsyncdir ."}, steps)
}

// TestLockIsNoStep: taking the lock changes nothing that has to survive.
func TestLockIsNoStep(t *testing.T) {
	dir := folder(t)
	d, err := OpenDir(dir)
	require.NoError(t, err)
	recordSteps(t, dir, func(step string) error { return errors.New("a step: " + step) })
	unlock, err := d.Lock(context.Background(), 0)
	require.NoError(t, err)
	require.NoError(t, unlock())
	require.NoError(t, d.Close())
}
