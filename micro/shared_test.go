//go:build linux

package micro

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// setOwner gives every entry of a release another owner.
func (s *shop) setOwner(t testing.TB, id uint32) {
	t.Helper()
	for i := range s.ix.Entries {
		s.ix.Entries[i].UID, s.ix.Entries[i].GID = id, id
	}
	var buf bytes.Buffer
	require.NoError(t, s.ix.Encode(&buf))
	s.c.Index = release.Blob{Digest: release.Sum(buf.Bytes()), Size: int64(buf.Len())}
	s.blobs[s.c.Index.Digest] = buf.Bytes()
}

func write(t testing.TB, p, data string) {
	t.Helper()
	f, err := os.OpenFile(p, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte(data), 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// linked skips where files are shared by reflink: nothing can happen there.
func linked(t testing.TB, a, b string) {
	t.Helper()
	x, err := os.Stat(a)
	require.NoError(t, err)
	y, err := os.Stat(b)
	require.NoError(t, err)
	if !os.SameFile(x, y) {
		testneeds.Missing(t, "a file system without reflinks")
	}
}

func TestSharedFileChangedInTrial(t *testing.T) {
	s1 := newShop(t, files(t, t.TempDir(), map[string]string{"a": "1", "same": "same", "mode": "mode", "twin": "same", "kept": "kept"}))
	s2 := newShop(t, files(t, t.TempDir(), map[string]string{"a": "2", "same": "same", "mode": "mode", "kept": "kept"}))
	d := newDevice(t)
	d.install("t1", s1)
	want := snapshot(t, d.root)
	require.NoError(t, d.stage("t2", s2))
	linked(t, filepath.Join(d.root, "same"), filepath.Join(d.f.treePath("t2"), "same"))
	require.NoError(t, d.f.Activate(t.Context(), "t2", s2.c))
	write(t, filepath.Join(d.root, "same"), "evil")
	require.NoError(t, os.Chmod(filepath.Join(d.root, "mode"), 0o777))
	require.NoError(t, os.Chtimes(filepath.Join(d.root, "kept"), time.Now(), time.Now()))
	require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c))
	same(t, want, snapshot(t, d.root), "the twin has the content, the release the mode")
	d.isWhole(s1)
}

func TestSharedFileLost(t *testing.T) {
	s1 := newShop(t, files(t, t.TempDir(), map[string]string{"a": "1", "lib/same": "same"}))
	s2 := newShop(t, files(t, t.TempDir(), map[string]string{"a": "2", "lib/same": "same"}))
	d := newDevice(t)
	d.install("t1", s1)
	want := snapshot(t, d.root)
	d.activate("t2", s2)
	linked(t, filepath.Join(d.root, "lib/same"), filepath.Join(d.f.treePath("t2"), "lib/same"))
	write(t, filepath.Join(d.root, "lib/same"), "evil")
	for range 2 {
		d.restart()
		err := d.f.Revert(t.Context(), "t2", s2.c)
		require.ErrorIs(t, err, ErrChanged)
		require.ErrorContains(t, err, "lib/same")
		d.isWhole(s1)
	}
	left, err := d.f.Repair(t.Context(), s1.c, s1)
	require.NoError(t, err)
	require.Empty(t, left)
	require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c))
	same(t, want, snapshot(t, d.root), "after the repair")
}

func TestSharedFileChangedAfterStage(t *testing.T) {
	s1, s2 := small(t)
	d := newDevice(t)
	d.install("t1", s1)
	require.NoError(t, d.stage("t2", s2))
	linked(t, filepath.Join(d.root, "bin/same"), filepath.Join(d.f.treePath("t2"), "bin/same"))
	write(t, filepath.Join(d.root, "bin/same"), "evil")
	err := d.f.Activate(t.Context(), "t2", s2.c)
	require.ErrorIs(t, err, ErrChanged)
	require.ErrorContains(t, err, "bin/same")
	require.NoError(t, d.stage("t2", s2))
	require.NoError(t, d.f.Activate(t.Context(), "t2", s2.c))
	d.isWhole(s2)
	found, err := d.f.Verify(t.Context(), s2.c, s2)
	require.NoError(t, err)
	require.Empty(t, found)
}

// TestKeptTreeIsVerifiedBeforeUse has a kept tree that shares a file with the
// running one, which somebody wrote to.
func TestKeptTreeIsVerifiedBeforeUse(t *testing.T) {
	s1, s2 := small(t)
	d := newDevice(t)
	d.install("t1", s1)
	d.install("t2", s2)
	write(t, filepath.Join(d.root, "bin/same"), "evil")
	d.activate("t3", s1)
	got, err := os.ReadFile(filepath.Join(d.root, "bin/same"))
	require.NoError(t, err)
	require.Equal(t, "same", string(got))
	found, err := d.f.Verify(t.Context(), s1.c, s1)
	require.NoError(t, err)
	require.Empty(t, found)
}

func TestVerifyAndRepair(t *testing.T) {
	v := files(t, t.TempDir(), map[string]string{
		"a": "1", "b": "22", "c": "333", "d/e": "4", "d/f": "5", "g/h": "6", "link": "->a", "dir/x": "7", "file": "8", "twin1": "twin", "twin2": "twin", "mode": "9",
	})
	s := newShop(t, v, "data")
	want := snapshot(t, v)
	d := newDevice(t)
	d.install("t1", s)
	files(t, d.root, map[string]string{"data/db": "mine"})
	found, err := d.f.Verify(t.Context(), s.c, s)
	require.NoError(t, err)
	require.Empty(t, found)

	at := func(p string) string { return filepath.Join(d.root, p) }
	write(t, at("a"), "x")
	require.NoError(t, os.Truncate(at("b"), 1))
	require.NoError(t, os.Remove(at("c")))
	require.NoError(t, os.RemoveAll(at("d")))
	require.NoError(t, os.Chmod(at("g"), 0o700))
	require.NoError(t, os.Remove(at("link")))
	require.NoError(t, os.Symlink("b", at("link")))
	require.NoError(t, os.RemoveAll(at("dir")))
	require.NoError(t, os.WriteFile(at("dir"), nil, 0o644))
	require.NoError(t, os.Remove(at("file")))
	files(t, d.root, map[string]string{"file/in/the/way": "x", "extra": "x", "g/.pawl-tmp-h": "left over"})
	write(t, at("twin1"), "T")
	require.NoError(t, os.Chmod(at("mode"), 0o600))
	found, err = d.f.Verify(t.Context(), s.c, s)
	require.NoError(t, err)
	var paths []string
	for _, f := range found {
		paths = append(paths, f.Path)
	}
	require.Equal(t, []string{"a", "b", "c", "d", "d/e", "d/f", "dir", "dir/x", "file", "g", "link", "mode", "twin1", "extra"}, paths)

	left, err := d.f.Repair(t.Context(), s.c, &shop{c: s.c, local: true})
	require.NoError(t, err)
	require.NotEmpty(t, left, "without content")
	require.Contains(t, left[0].Reason, ota.ErrNotLocal.Error())
	left, err = d.f.Repair(t.Context(), s.c, s)
	require.NoError(t, err)
	require.Equal(t, []ota.Damage{{Component: "app", Path: "extra", Reason: extraReason}}, left)
	require.NoError(t, os.Remove(at("extra")))
	got := snapshot(t, d.root)
	delete(got, "data")
	delete(got, "data/db")
	same(t, want, got, "mended")
	require.FileExists(t, at("data/db"))
}

// TestRepairFromKept mends without any content but the kept tree.
func TestRepairFromKept(t *testing.T) {
	s1, s2 := small(t)
	d := newDevice(t)
	d.install("t1", s1)
	d.install("t2", s2)
	require.NoError(t, os.Remove(filepath.Join(d.root, "bin/same")))
	left, err := d.f.Repair(t.Context(), s2.c, nil)
	require.NoError(t, err)
	require.Empty(t, left)
	require.FileExists(t, filepath.Join(d.root, "bin/same"))
}

func TestRepairCutAnywhere(t *testing.T) {
	for n := 1; ; n++ {
		s1, _ := small(t)
		d := newDevice(t)
		d.install("t1", s1)
		want := snapshot(t, d.root)
		require.NoError(t, os.RemoveAll(filepath.Join(d.root, "bin")))
		d.cutAt(n)
		left, err := d.f.Repair(t.Context(), s1.c, s1)
		d.restart()
		if err == nil && len(left) == 0 {
			break
		}
		require.Less(t, n, 50)
		require.NoError(t, d.f.Revert(t.Context(), "t9", s1.c))
		left, err = d.f.Repair(t.Context(), s1.c, s1)
		require.NoError(t, err)
		require.Empty(t, left)
		same(t, want, snapshot(t, d.root), "mended")
	}
}

func TestXattrsAndModes(t *testing.T) {
	var shops []*shop
	var want []map[string]string
	for i, value := range []string{"one", "two"} {
		v := files(t, t.TempDir(), map[string]string{"a": "same", "ro": "same too", "dir/x": "x", "link": "->a"})
		for _, p := range []string{"a", "ro", "dir"} {
			if err := unix.Setxattr(filepath.Join(v, p), "user.k", []byte(value), 0); errors.Is(err, unix.ENOTSUP) {
				testneeds.Missing(t, "a file system with extended attributes")
			}
		}
		require.NoError(t, os.Chmod(filepath.Join(v, "ro"), 0o444))
		require.NoError(t, os.Chmod(filepath.Join(v, "a"), 0o755|fs.ModeSetuid|fs.ModeSetgid))
		require.NoError(t, os.Chmod(filepath.Join(v, "dir"), 0o777|fs.ModeSticky))
		if os.Geteuid() == 0 {
			require.NoError(t, os.Lchown(filepath.Join(v, "link"), 7+i, 8))
			require.NoError(t, os.Lchown(filepath.Join(v, "dir"), 7, 8+i))
			require.NoError(t, unix.Lsetxattr(filepath.Join(v, "link"), "trusted.k", []byte(value), 0))
		}
		shops, want = append(shops, newShop(t, v)), append(want, snapshot(t, v))
	}
	d := newDevice(t)
	d.install("t1", shops[0])
	same(t, want[0], snapshot(t, d.root), "installed")
	d.activate("t2", shops[1])
	same(t, want[1], snapshot(t, d.root), "on trial")
	require.NoError(t, d.f.Revert(t.Context(), "t2", shops[1].c))
	same(t, want[0], snapshot(t, d.root), "back")
	require.NoError(t, unix.Setxattr(filepath.Join(d.root, "a"), "user.k", []byte("bad"), 0))
	require.NoError(t, unix.Setxattr(filepath.Join(d.root, "dir"), "user.more", []byte("bad"), 0))
	left, err := d.f.Repair(t.Context(), shops[0].c, shops[0])
	require.NoError(t, err)
	require.Empty(t, left)
	same(t, want[0], snapshot(t, d.root), "repaired")
}

// TestStartedAtOnce starts programs right after they were installed while
// other goroutines start processes: none is busy.
func TestStartedAtOnce(t *testing.T) {
	self, err := os.ReadFile(testneeds.Program(t, "true"))
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var forks sync.WaitGroup
	for range 4 {
		forks.Go(func() {
			for ctx.Err() == nil {
				_ = exec.Command("true").Run()
			}
		})
	}
	d := newDevice(t)
	for i := range 10 {
		v := files(t, t.TempDir(), map[string]string{"run": string(self) + strings.Repeat("x", i)})
		require.NoError(t, os.Chmod(filepath.Join(v, "run"), 0o755))
		s := newShop(t, v)
		d.install(ota.TxID("t"+string(rune('0'+i))), s)
		require.NoError(t, exec.Command(filepath.Join(d.root, "run")).Run())
	}
	stop()
	forks.Wait()
}

// TestStageWaitsForForks has a fork under way when the files are done: its
// child may still have them open.
func TestStageWaitsForForks(t *testing.T) {
	s, _ := small(t)
	d := newDevice(t)
	var forking atomic.Bool
	finished, synced := make(chan struct{}), make(chan struct{})
	d.f.before = func(op, path string) error {
		switch {
		case op == "finish" && path == d.f.treePath("t1"):
			close(finished)
		case op == "sync":
			if forking.Load() {
				return errors.New("did not wait")
			}
			close(synced)
		}
		return nil
	}
	forking.Store(true)
	syscall.ForkLock.Lock()
	done := make(chan error, 1)
	go func() { done <- d.stage("t1", s) }()
	<-finished
	var err error
	select {
	case <-synced:
	case err = <-done:
	case <-time.After(50 * time.Millisecond):
	}
	forking.Store(false)
	syscall.ForkLock.Unlock()
	require.NoError(t, err)
	<-synced
	require.NoError(t, <-done)
}
