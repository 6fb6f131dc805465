//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// TestStateLostOrDamaged falls back to comparing by content.
func TestStateLostOrDamaged(t *testing.T) {
	s1, s2 := small(t)
	for name, harm := range map[string]func(p string) error{
		"lost":   os.Remove,
		"zeroed": func(p string) error { return os.WriteFile(p, make([]byte, 512), 0o600) },
		"torn":   func(p string) error { return os.Truncate(p, 90) },
		"future": func(p string) error { return os.WriteFile(p, []byte("pawl-micro-state/9 x\n{}\n"), 0o600) },
		"flipped": func(p string) error {
			data, err := os.ReadFile(p)
			from, to := s2.c.Digest().String(), s1.c.Digest().String()
			data = []byte(strings.NewReplacer(from, to, to, from).Replace(string(data)))
			return errors.Join(err, os.WriteFile(p, data, 0o600))
		},
		"foreign": func(p string) error { return os.WriteFile(p, []byte("hello"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			d.install("t1", s1)
			d.install("t2", s2)
			require.NoError(t, harm(d.f.path("state")))
			d.restart()
			d.isWhole(s2)
			require.NoError(t, readRecord(d.f.path("state"), formatState, &state{}), "what was found is written down")
			d.install("t3", s1)
			d.isWhole(s1)
		})
	}
}

func TestRootCopied(t *testing.T) {
	s1, s2 := small(t)
	d := newDevice(t)
	d.install("t1", s1)
	other := d.root + ".copy"
	require.NoError(t, exec.Command("cp", "-a", d.root, other).Run())
	require.NoError(t, os.RemoveAll(d.root))
	require.NoError(t, os.Rename(other, d.root))
	d.isWhole(s1)
	require.NoError(t, os.WriteFile(filepath.Join(d.root, "bin/a"), []byte("?"), 0o644))
	d.install("t2", s2)

	require.NoError(t, os.RemoveAll(d.root))
	require.Equal(t, ota.None, d.active().State)
	files(t, d.root, map[string]string{"bin/a": "3"})
	require.Equal(t, ota.Mixed, d.active().State)
}

func TestRevertFindsForeignRoot(t *testing.T) {
	s1, s2 := small(t)
	d := newDevice(t)
	d.install("t1", s1)
	want := snapshot(t, d.root)
	d.activate("t2", s2)
	aside := d.root + ".aside"
	require.NoError(t, os.Rename(d.root, aside))
	files(t, d.root, map[string]string{"x": "by hand"})
	require.ErrorIs(t, d.f.Revert(t.Context(), "t2", s2.c), ErrForeign)
	ok, err := d.f.CanRevert(t.Context(), "t2", s2.c)
	require.NoError(t, err)
	require.False(t, ok)
	require.ErrorIs(t, d.f.Commit(t.Context(), "t2", s2.c), ErrForeign)
	require.NoError(t, os.RemoveAll(d.root))
	require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c), "a root that is gone comes back")
	same(t, want, snapshot(t, d.root), "v1")
}

func TestPlanOfTheFutureIsKept(t *testing.T) {
	s1, s2 := small(t)
	d := newDevice(t)
	d.install("t1", s1)
	d.activate("t2", s2)
	p := d.f.txPath("t2", "plan")
	body := []byte("{}\n")
	require.NoError(t, os.WriteFile(p, fmt.Appendf(nil, "pawl-micro-plan/9 %s\n%s", release.Sum(body), body), 0o600))
	require.ErrorIs(t, d.f.Revert(t.Context(), "t2", s2.c), ota.ErrJournal)
	require.DirExists(t, d.f.treePath("t2"))
}

func TestActiveIsQuick(t *testing.T) {
	s := newShop(t, files(t, t.TempDir(), map[string]string{"00/00": "x"}))
	one := s.ix.Entries
	s.ix.Entries = one[:1]
	for i := range 100 {
		dir, file := one[1], one[2]
		dir.Path = fmt.Sprintf("%02d", i)
		s.ix.Entries = append(s.ix.Entries, dir)
		for j := range 100 {
			file.Path = fmt.Sprintf("%02d/%02d", i, j)
			s.ix.Entries = append(s.ix.Entries, file)
		}
	}
	s.setOwner(t, uint32(os.Geteuid()))
	d := newDevice(t)
	d.activate("t1", s)
	require.Less(t, d.quickest(s), time.Second)
}

func TestCanRevert(t *testing.T) {
	s1, s2 := small(t)
	d := newDevice(t)
	can := func(want bool, why string) {
		t.Helper()
		ok, err := d.f.CanRevert(t.Context(), "t2", s2.c)
		require.NoError(t, err)
		require.Equal(t, want, ok, why)
	}
	d.install("t1", s1)
	can(true, "never staged")
	require.NoError(t, d.stage("t2", s2))
	can(true, "staged")
	require.NoError(t, d.f.Activate(t.Context(), "t2", s2.c))
	can(true, "on trial")
	require.NoError(t, os.Rename(d.f.treePath("t2"), d.f.path("lost")))
	can(false, "the old tree is gone")
	require.NoError(t, os.Rename(d.f.path("lost"), d.f.treePath("t2")))
	require.NoError(t, d.f.Commit(t.Context(), "t2", s2.c))
	can(false, "committed")
}

func TestSeedsAndBlobs(t *testing.T) {
	s1, s2 := small(t)
	d := newDevice(t)
	read := func(s *shop, path string) (string, bool) {
		t.Helper()
		r, ok, err := d.f.Seed(t.Context(), "app", s.ix.Find(path).Blob)
		require.NoError(t, err)
		if !ok {
			return "", false
		}
		data, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		return string(data), true
	}
	_, ok := read(s1, "bin/a")
	require.False(t, ok, "nothing is installed")
	d.install("t1", s1)
	_, ok = read(s2, "bin/a")
	require.False(t, ok)
	d.install("t2", s2)
	for s, want := range map[*shop]string{s1: "1", s2: "2"} {
		got, ok := read(s, "bin/a")
		require.True(t, ok)
		require.Equal(t, want, got)
	}
	blobs, err := d.f.Blobs(t.Context(), s1.c, s1)
	require.NoError(t, err)
	require.Equal(t, s1.ix.Blobs(), blobs)
}

// TestBudget compares what was promised with what the file system says.
func TestBudget(t *testing.T) {
	t.Parallel()
	v1, v2 := t.TempDir(), t.TempDir()
	goSources(t, v1, "go", "crypto")
	goSources(t, v2, "go", "crypto", "encoding")
	change(t, v2)
	s1, s2 := newShop(t, v1), newShop(t, v2)
	d := newDevice(t)
	for i, s := range []*shop{s1, s2} {
		tx := ota.TxID(fmt.Sprint("t", i))
		need, err := d.f.Budget(t.Context(), s.c, s)
		require.NoError(t, err)
		require.Len(t, need, 1)
		bytes0, inodes0 := d.used()
		require.NoError(t, d.stage(tx, s))
		require.NoError(t, d.f.Activate(t.Context(), tx, s.c))
		bytes, inodes := d.used()
		bytes, inodes = bytes-bytes0, inodes-inodes0
		t.Logf("bytes %d of %d, inodes %d of %d", bytes, need[0].Bytes, inodes, need[0].Inodes)
		require.LessOrEqual(t, bytes, need[0].Bytes)
		require.LessOrEqual(t, inodes, need[0].Inodes)
		require.Less(t, need[0].Bytes-bytes, bytes/5+1<<20)
		require.Less(t, need[0].Inodes-inodes, inodes/10+100)
		require.NoError(t, d.f.Commit(t.Context(), tx, s.c))
	}
}

// TestBudgetAfterInterruptedStage asks for what is missing, not for all again.
func TestBudgetAfterInterruptedStage(t *testing.T) {
	d := newDevice(t)
	content := map[string]string{}
	for i := range 20 {
		content[fmt.Sprintf("d%d/f%d", i%4, i)] = strings.Repeat(fmt.Sprintf("%02d", i), 50<<10)
	}
	s := newShop(t, files(t, t.TempDir(), content))
	bytes0, inodes0 := d.used()
	all, err := d.f.Budget(t.Context(), s.c, s)
	require.NoError(t, err)
	count := 0
	s.fail = func(release.Blob) error {
		if count++; count > 11 {
			return io.ErrUnexpectedEOF
		}
		return nil
	}
	require.ErrorIs(t, d.stage("t1", s), io.ErrUnexpectedEOF)
	bytes, inodes := d.used()
	rest, err := d.f.Budget(t.Context(), s.c, nil)
	require.NoError(t, err)
	const records = 200 << 10
	require.InDelta(t, all[0].Bytes-(bytes-bytes0), rest[0].Bytes, records)
	require.InDelta(t, all[0].Inodes-(inodes-inodes0), rest[0].Inodes, 20)
	s.fail = nil
	require.NoError(t, d.stage("t1", s))
	more, moreInodes := d.used()
	require.LessOrEqual(t, more-bytes, rest[0].Bytes)
	require.LessOrEqual(t, moreInodes-inodes, rest[0].Inodes)

	none, err := d.f.Budget(t.Context(), s.c, nil)
	require.NoError(t, err)
	require.Less(t, none[0].Bytes, int64(records), "all is there")
	require.NoError(t, os.WriteFile(filepath.Join(d.f.treePath("t1"), "d1/f1"), []byte("short"), 0o644))
	one, err := d.f.Budget(t.Context(), s.c, nil)
	require.NoError(t, err)
	require.GreaterOrEqual(t, one[0].Bytes, none[0].Bytes+100<<10)
	require.NoError(t, d.f.Revert(t.Context(), "t1", s.c))
}

// used adds up what the root and the spool take, each inode once.
func (d *rig[F]) used() (bytes, inodes int64) {
	seen := map[uint64]bool{}
	_ = filepath.WalkDir(filepath.Dir(d.root), func(p string, _ os.DirEntry, _ error) error {
		var st unix.Stat_t
		if unix.Lstat(p, &st) == nil && !seen[st.Ino] {
			seen[st.Ino] = true
			inodes++
			bytes += st.Blocks * 512
		}
		return nil
	})
	return bytes, inodes
}

func TestCancel(t *testing.T) {
	s1, s2 := small(t)
	d := newDevice(t)
	d.install("t1", s1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := d.f.Stage(ctx, "t2", s2.c, s2)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c))
	d.isWhole(s1)
}

func TestUnmanagedMessage(t *testing.T) {
	err := &UnmanagedError{Root: "/srv/app", Paths: []string{"a", "b"}, More: 3}
	require.True(t, strings.Contains(err.Error(), "a, b, and 3 more"), err.Error())
}

// TestRevertByName knows what to drop although the release is not told.
func TestRevertByName(t *testing.T) {
	s1, _ := small(t)
	d := newDevice(t)
	d.activate("t1", s1)
	require.NoError(t, d.f.Revert(t.Context(), "t1", release.Component{Name: "app"}))
	require.Equal(t, ota.None, d.active().State)
	require.Empty(t, listed(t, d.f.path(dirTx)))
	require.Empty(t, listed(t, d.f.path(dirIndex)))
	require.ErrorContains(t, d.f.Revert(t.Context(), "t1", release.Component{Name: "other"}), "backend of")
}
