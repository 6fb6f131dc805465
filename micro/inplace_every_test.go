//go:build linux

package micro

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/seam"
)

// TestInPlaceEveryEntryFails has each call that Activate, Revert and Commit make
// fail once with EIO, and has each of them killed before each step, in a release
// of 200 entries on an ext4 and a tmpfs below it. Every time the device ends
// exactly on the old or the new release, with nothing left over.
//
// What is on either side stays the same inodes all the time, so that to compare
// them is enough; content is compared now and then, and by the long run always.
func TestInPlaceEveryEntryFails(t *testing.T) {
	n := 200
	if testing.Short() {
		n = 30
	}
	e := newEvery(t, n)
	for _, kind := range []string{"EIO", "kill"} {
		t.Run("there and back/"+kind, func(t *testing.T) { e.thereAndBack(t, kind) })
		t.Run("drop/"+kind, func(t *testing.T) { e.drop(t, kind) })
		t.Run("commit/"+kind, func(t *testing.T) { e.commits(t, kind) })
	}
	t.Logf("%d entries; faults: %v", len(e.s2.ix.Entries), e.faults)
}

// every is a device with a release staged that all faults are tried on.
type every struct {
	*placeDevice
	mnt                    string
	s1, s2                 *shop
	staged                 []byte // the record of Stage, which a way back drops
	oldInodes, newInodes   map[string]string
	oldContent, newContent map[string]string
	round                  int
	faults                 map[string]int
}

func newEvery(t *testing.T, n int) *every {
	point := disk(t, "mkfs.ext4", "-q")
	d := newPlaceDevice(t)
	d.root = filepath.Join(point, "sys")
	require.NoError(t, os.Mkdir(d.root, 0o755))
	d.restart()
	e := &every{placeDevice: d, mnt: twoVolumes(t, d), faults: map[string]int{}}
	e.s1, e.s2 = twoVolumeShops(t, n)
	d.install("t1", e.s1)
	e.oldInodes, e.oldContent = inodes(t, d.root), times(t, d.root)
	e.stageAgain(t)
	e.ready(t)
	e.newContent = snapshotLines(t, d.root)
	e.goBack(t)
	return e
}

// stageAgain stages, and notes what Stage recorded.
func (e *every) stageAgain(t *testing.T) {
	e.restart()
	require.NoError(t, e.stage("t2", e.s2))
	var err error
	e.staged, err = os.ReadFile(e.f.txPath("t2", "staged"))
	require.NoError(t, err)
	e.newInodes = nil
}

// inodes tells what has each path, and when it was last changed.
func inodes(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == ".pawl.app" {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		all[p] = fmt.Sprint(st.Dev, st.Ino, st.Mode, st.Uid, st.Gid, st.Size, st.Mtim.Nano())
		return nil
	}))
	return all
}

// content says that this time all content is compared.
func (e *every) content() bool { e.round++; return e.round%40 == 0 || long() }

func (e *every) isOld(t *testing.T) {
	t.Helper()
	same(t, e.oldInodes, inodes(t, e.root), "old")
	if e.content() {
		same(t, e.oldContent, times(t, e.root), "old")
	}
	e.isWhole(e.s1)
}

// isNew compares files and links alone: the times of folders are those of the
// switch.
func (e *every) isNew(t *testing.T) {
	t.Helper()
	now := inodes(t, e.root)
	for p := range now {
		if info, err := os.Lstat(p); err == nil && info.IsDir() {
			now[p] = ""
		}
	}
	if e.newInodes == nil {
		e.newInodes = now
	}
	same(t, e.newInodes, now, "new")
	if e.newContent != nil && e.content() {
		same(t, e.newContent, snapshotLines(t, e.root), "new")
	}
	e.isWhole(e.s2)
}

// clean checks that neither spool holds anything of a transaction.
func (e *every) clean(t *testing.T) {
	t.Helper()
	for _, spool := range []string{e.f.path(), filepath.Join(e.mnt, ".pawl.app")} {
		for _, dir := range []string{dirTx, dirTrash} {
			require.Empty(t, listed(t, filepath.Join(spool, dir)))
		}
	}
}

// ready activates, without a fault.
func (e *every) ready(t *testing.T) {
	t.Helper()
	e.restart()
	require.NoError(t, e.activate())
	e.isNew(t)
}

// goBack is the way back except that what was staged stays, for the next time.
func (e *every) goBack(t *testing.T) {
	t.Helper()
	e.restart()
	require.NoError(t, e.back())
	require.NoError(t, os.WriteFile(e.f.txPath("t2", "staged"), e.staged, 0o600))
	e.isOld(t)
}

func (e *every) activate() error { return e.f.Activate(e.t.Context(), "t2", e.s2.c) }
func (e *every) revert() error   { return e.f.Revert(e.t.Context(), "t2", e.s2.c) }
func (e *every) commit() error   { return e.f.Commit(e.t.Context(), "t2", e.s2.c) }

func (e *every) back() error {
	p, err := e.f.readChanges("t2", "plan")
	if err != nil || p == nil {
		return err
	}
	return e.f.takeBack(e.t.Context(), "t2", p)
}

// fault runs verb with its nth call or step failing, in a new process, and
// reports whether it came to that.
func (e *every) fault(t *testing.T, kind string, n int, verb func() error) bool {
	t.Helper()
	e.restart()
	count, want := 0, error(unix.EIO)
	if kind == "kill" { // whoever is killed does nothing more
		want = errCut
		e.f.before = func(string, string) error {
			if count++; count >= n {
				return errCut
			}
			return nil
		}
	} else {
		hook := func(_, _ string, call func() error) error {
			if count++; count == n {
				return unix.EIO
			}
			return call()
		}
		seam.Step.Store(&hook)
	}
	err := verb()
	seam.Step.Store(nil)
	if !errors.Is(err, want) {
		require.NoError(t, err, "%s %d", kind, n)
	}
	if count >= n {
		e.faults[kind]++
	}
	return count >= n
}

// thereAndBack fails the switch, goes on in spite of it, mostly, and then fails
// the way back.
func (e *every) thereAndBack(t *testing.T, kind string) {
	for n, there, back := 1, true, true; there || back; n++ {
		if there = e.fault(t, kind, n, e.activate); n%4 != 0 {
			e.ready(t)
		}
		back = e.fault(t, kind, n, e.back)
		e.goBack(t)
	}
}

// drop fails what Revert does when all is back.
func (e *every) drop(t *testing.T, kind string) {
	for n := 1; e.fault(t, kind, n, e.revert); n++ {
		e.restart()
		require.NoError(t, e.revert())
		e.isOld(t)
		e.clean(t)
		e.stageAgain(t)
	}
	e.stageAgain(t)
}

// commits fails the Commit, and installs the old release again.
func (e *every) commits(t *testing.T, kind string) {
	for n, more := 1, true; more; n++ {
		e.ready(t)
		more = e.fault(t, kind, n, e.commit)
		e.restart()
		e.isNew(t)
		require.NoError(t, e.commit())
		e.isNew(t)
		e.clean(t)
		e.lends(e.s1)
		e.install("t1", e.s1)
		e.clean(t)
		e.oldInodes, e.oldContent = inodes(t, e.root), times(t, e.root)
		e.stageAgain(t)
	}
}
