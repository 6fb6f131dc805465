//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

const mergeEtc = `{"paths":[{"path":"etc/*","localChanges":"merge","script":"merge-conf"}]}`

// withMerge gives a release a script that merges: what it makes says what it
// was made of.
func withMerge(s *shop) *shop {
	run := release.Blob{Digest: release.Sum([]byte("#!")), Size: 2}
	s.c.Scripts = []release.Script{{Name: "merge-conf", At: release.OnMerge, Run: run}}
	s.merge = func(env map[string]string) error {
		text := ""
		for _, name := range []string{"BASE", "LOCAL", "NEW"} {
			data, err := os.ReadFile(env["PAWL_MERGE_"+name])
			if err != nil && env["PAWL_MERGE_"+name] != "" {
				return err
			}
			text += "<" + string(data) + ">"
		}
		return os.WriteFile(env["PAWL_MERGE_OUT"], []byte(text), 0o777)
	}
	return s
}

func mergeShop(t testing.TB, content string) *shop {
	t.Helper()
	return withMerge(oneFile(t, "etc/conf", content, mergeEtc))
}

// edited is a device on "one" that was changed to "mine".
func edited(t testing.TB) (*placeDevice, *shop) {
	t.Helper()
	d, s1 := newPlaceDevice(t), mergeShop(t, "one")
	d.install("t1", s1)
	files(t, d.root, map[string]string{"etc/conf": "mine"})
	require.NoError(t, os.Chmod(filepath.Join(d.root, "etc/conf"), 0o600))
	return d, s1
}

func (d *rig[F]) inode(p string) at.ID {
	d.t.Helper()
	info, err := at.Lstat(filepath.Join(d.root, p))
	require.NoError(d.t, err)
	return info.ID
}

func TestMerge(t *testing.T) {
	d, s1 := edited(t)
	before, was := times(t, d.root), d.inode("etc/conf")
	dir := files(t, t.TempDir(), map[string]string{"etc/conf": "two"})
	require.NoError(t, unix.Setxattr(filepath.Join(dir, "etc/conf"), "user.x", []byte("2"), 0))
	require.NoError(t, os.Chmod(filepath.Join(dir, "etc/conf"), 0o640))
	s2 := withMerge(placeShop(t, dir, mergeEtc))
	merge, ran := s2.merge, 0
	s2.merge = func(env map[string]string) error {
		ran++
		require.Equal(t, "etc/conf", env["PAWL_MERGE_PATH"])
		info, err := os.Stat(filepath.Dir(env["PAWL_MERGE_OUT"]))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
		require.Len(t, env, 5)
		same(t, before, times(t, d.root), "nothing was changed yet")
		return merge(env)
	}
	d.activate("t2", s2)
	isMerged := func(content string) {
		t.Helper()
		require.Equal(t, content, d.read("etc/conf"))
		value := make([]byte, 8)
		n, err := unix.Lgetxattr(filepath.Join(d.root, "etc/conf"), "user.x", value)
		require.NoError(t, err)
		require.Equal(t, "2", string(value[:n]))
		info, err := os.Stat(filepath.Join(d.root, "etc/conf"))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o640), info.Mode())
		require.NoFileExists(t, filepath.Join(d.root, "etc/conf"+suffixNew))
	}
	isMerged("<one><mine><two>")
	d.isWhole(s2)
	d.revert("t2", s2)
	same(t, before, times(t, d.root), "back")
	require.Equal(t, was, d.inode("etc/conf"), "what is back is what was there")
	require.Equal(t, []string{s1.ix.Blobs()[0].Digest.String()}, listed(t, d.f.path(dirBase)))

	d.install("t2", s2)
	require.Equal(t, 2, ran)
	d.tidy("committed", s1)
	require.Empty(t, listed(t, d.f.path(dirKept, s1.c.Digest().String(), "merge")), "the script's files are gone")
	require.Empty(t, d.damage(s2), "it is the device's")
	left, err := d.f.Repair(t.Context(), s2.c, s2)
	require.NoError(t, err)
	require.Empty(t, left)
	isMerged("<one><mine><two>")
	d.lends(s1, "for a way back although nobody had it any more")
	d.lends(s2, "although it was never installed as it is")

	d.install("t3", mergeShop(t, "three"))
	require.Equal(t, "<two><<one><mine><two>><three>", d.read("etc/conf"))
	s4 := withMerge(placeShop(t, files(t, t.TempDir(), map[string]string{"etc/conf": "three", "more": "x"}), mergeEtc))
	s4.merge = nil
	d.install("t4", s4)
	require.Equal(t, "<two><<one><mine><two>><three>", d.read("etc/conf"), "it stays where the release does not change it")
	require.Empty(t, d.damage(s4))
	require.NoError(t, d.f.Prune(t.Context(), "app", nil, nil))
	require.Equal(t, []string{s4.ix.Entries[0].Digest.String()}, listed(t, d.f.path(dirBase)))
}

func (d *rig[F]) damage(s *shop) []ota.Damage {
	d.t.Helper()
	found, err := d.f.Verify(d.t.Context(), s.c, s)
	require.NoError(d.t, err)
	return found
}

// TestMergeRefused has the script end in every way that leaves no merged file.
func TestMergeRefused(t *testing.T) {
	failed := errors.New("exit code 3")
	out := func(make func(name string) error) func(map[string]string) error {
		return func(env map[string]string) error { return make(env["PAWL_MERGE_OUT"]) }
	}
	for name, c := range map[string]struct {
		merge func(map[string]string) error
		says  string
		later bool
	}{
		"later":    {merge: func(map[string]string) error { return fmt.Errorf("75: %w", ota.ErrLater) }, says: "75", later: true},
		"cut off":  {merge: func(map[string]string) error { return context.Canceled }, says: "the script merge-conf did not merge it: context canceled"},
		"fails":    {merge: func(map[string]string) error { return failed }, says: "the script merge-conf did not merge it: exit code 3"},
		"nothing":  {merge: func(map[string]string) error { return nil }, says: "there is no file PAWL_MERGE_OUT"},
		"link":     {merge: out(func(p string) error { return os.Symlink("/etc/passwd", p) }), says: "not a regular file"},
		"folder":   {merge: out(func(p string) error { return os.Mkdir(p, 0o755) }), says: "not a regular file"},
		"pipe":     {merge: out(func(p string) error { return unix.Mkfifo(p, 0o644) }), says: "not a regular file"},
		"too big":  {merge: out(func(p string) error { return sized(p, maxMerge+1) }), says: "16777217 bytes"},
		"all gone": {merge: out(func(p string) error { return os.RemoveAll(filepath.Dir(p)) }), says: "there is no file PAWL_MERGE_OUT"},
	} {
		t.Run(name, func(t *testing.T) {
			d, s1 := edited(t)
			before := times(t, d.root)
			s2 := mergeShop(t, "two")
			good := s2.merge
			s2.merge = c.merge
			err := d.stage("t2", s2)
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, "etc/conf")
			require.Equal(t, c.later, errors.Is(err, ota.ErrLater))
			require.Equal(t, !c.later, errors.Is(err, ErrLocalChange))
			require.Equal(t, name == "fails", errors.Is(err, failed), "the cause is there for who asks")
			same(t, before, times(t, d.root), "nothing was changed")
			d.isWhole(s1)
			require.Error(t, d.f.Activate(t.Context(), "t2", s2.c))
			d.revert("t2", s2)
			same(t, before, times(t, d.root), "nothing was changed")
			d.tidy("back")
			s2.merge = good
			d.install("t2", s2)
			require.Equal(t, "<one><mine><two>", d.read("etc/conf"))
		})
	}
}

func sized(p string, size int64) error {
	return errors.Join(os.WriteFile(p, nil, 0o644), os.Truncate(p, size))
}

func TestMergeLargest(t *testing.T) {
	d, _ := edited(t)
	s2 := mergeShop(t, "two")
	s2.merge = func(env map[string]string) error { return sized(env["PAWL_MERGE_OUT"], maxMerge) }
	d.install("t2", s2)
	require.Len(t, d.read("etc/conf"), maxMerge)
	require.NoError(t, sized(filepath.Join(d.root, "etc/conf"), maxMerge+1))
	d.install("t3", mergeShop(t, "three"))
	require.Len(t, d.read("etc/conf"), maxMerge+1, "kept")
	require.Equal(t, "three", d.read("etc/conf"+suffixNew))
}

// TestMergeWithoutScript: one side alone needs none.
func TestMergeWithoutScript(t *testing.T) {
	for name, c := range map[string]struct {
		local, next string
		mode        os.FileMode // of the release
		want        string
		kept        bool
	}{
		"both did the same":           {local: "two", next: "two", mode: 0o644, want: "two"},
		"no content of its own":       {local: "one", next: "two", mode: 0o644, want: "two"},
		"the release changes a mode":  {local: "mine", next: "one", mode: 0o640, want: "mine", kept: true},
		"neither changes any content": {local: "one", next: "one", mode: 0o640, want: "one"},
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := edited(t)
			files(t, d.root, map[string]string{"etc/conf": c.local})
			before := times(t, d.root)
			dir := files(t, t.TempDir(), map[string]string{"etc/conf": c.next})
			require.NoError(t, os.Chmod(filepath.Join(dir, "etc/conf"), c.mode))
			s2 := withMerge(placeShop(t, dir, mergeEtc))
			s2.merge = nil
			d.activate("t2", s2)
			d.revert("t2", s2)
			same(t, before, times(t, d.root), "back")
			d.install("t2", s2)
			require.Equal(t, c.want, d.read("etc/conf"))
			info, err := os.Stat(filepath.Join(d.root, "etc/conf"))
			require.NoError(t, err)
			require.Equal(t, c.mode, info.Mode())
			require.Empty(t, d.damage(s2))
			files(t, d.root, map[string]string{"etc/conf": "later"})
			require.Equal(t, c.kept, len(d.damage(s2)) == 0)
		})
	}
}

// TestMergeIsTheRelease: a merge that makes what the release has leaves no
// local change.
func TestMergeIsTheRelease(t *testing.T) {
	d, _ := edited(t)
	s2 := mergeShop(t, "two")
	s2.merge = func(env map[string]string) error { return os.Rename(env["PAWL_MERGE_NEW"], env["PAWL_MERGE_OUT"]) }
	d.install("t2", s2)
	require.Equal(t, "two", d.read("etc/conf"))
	require.Empty(t, d.damage(s2))
	files(t, d.root, map[string]string{"etc/conf": "later"})
	require.Len(t, d.damage(s2), 1)
}

// TestMergeWithoutBase: nobody asked for a merge when the old version came.
func TestMergeWithoutBase(t *testing.T) {
	d := newPlaceDevice(t)
	d.install("t1", oneFile(t, "etc/conf", "one", ""))
	files(t, d.root, map[string]string{"etc/conf": "mine"})
	s2 := mergeShop(t, "two")
	merge := s2.merge
	s2.merge = func(env map[string]string) error {
		base, there := env["PAWL_MERGE_BASE"]
		require.True(t, there)
		require.Empty(t, base)
		return merge(env)
	}
	d.install("t2", s2)
	require.Equal(t, "<><mine><two>", d.read("etc/conf"))
}

// TestMergeBaseIsTorn: a version that was not durable yet is not believed, and
// taken from elsewhere where it is to be had.
func TestMergeBaseIsTorn(t *testing.T) {
	for _, elsewhere := range []string{"", "one"} {
		d, s1 := edited(t)
		one := s1.ix.Blobs()[0].Digest
		require.NoError(t, os.WriteFile(d.f.path(dirBase, one.String()), []byte("0ne"), 0o600))
		s2 := mergeShop(t, "two")
		if elsewhere != "" {
			s2.blobs[one] = []byte(elsewhere)
		}
		d.install("t2", s2)
		require.Equal(t, "<"+elsewhere+"><mine><two>", d.read("etc/conf"))
	}
}

// TestMergeBudget compares what Stage was said to take with what it takes while
// the script runs, which is the most.
func TestMergeBudget(t *testing.T) {
	d, s1 := newPlaceDevice(t), mergeShop(t, string(make([]byte, 3<<20)))
	bytes, inodes := d.used()
	all, err := d.f.Budget(t.Context(), s1.c, s1)
	require.NoError(t, err)
	d.install("t1", s1)
	fits := func(need ota.Need, of int64) {
		t.Helper()
		more, moreInodes := d.used()
		require.GreaterOrEqual(t, need.Bytes, more-bytes)
		require.Less(t, need.Bytes, more-bytes+of)
		require.GreaterOrEqual(t, need.Inodes, moreInodes-inodes)
	}
	fits(all[0], 1<<20)
	require.NoError(t, os.WriteFile(filepath.Join(d.root, "etc/conf"), append(make([]byte, 3<<20), "mine"...), 0o644))
	bytes, inodes = d.used()
	s2 := mergeShop(t, string(append(make([]byte, 3<<20), "two"...)))
	all, err = d.f.Budget(t.Context(), s2.c, s2)
	require.NoError(t, err)
	merge, ran := s2.merge, false
	s2.merge = func(env map[string]string) error {
		err := merge(env)
		require.NoError(t, os.Truncate(env["PAWL_MERGE_OUT"], 3<<20+4))
		fits(all[0], 5<<20)
		ran = true
		return err
	}
	require.NoError(t, d.stage("t2", s2))
	fits(all[0], 16<<20)
	require.True(t, ran)
}

func TestMergeChangedAfterStage(t *testing.T) {
	d, _ := edited(t)
	s2 := mergeShop(t, "two")
	require.NoError(t, d.stage("t2", s2))
	files(t, d.root, map[string]string{"etc/conf": "mine again"})
	before := times(t, d.root)
	require.ErrorIs(t, d.f.Activate(t.Context(), "t2", s2.c), ErrLocalChange)
	d.revert("t2", s2)
	same(t, before, times(t, d.root), "the change is there as before")
	d.install("t3", s2)
	require.Equal(t, "<one><mine again><two>", d.read("etc/conf"))
}

func TestMergeChangedWhileStaging(t *testing.T) {
	d, _ := edited(t)
	s2 := mergeShop(t, "two")
	d.f.before = func(op, _ string) error {
		if op == "merge" {
			files(t, d.root, map[string]string{"etc/conf": "mine again"})
		}
		return nil
	}
	err := d.stage("t2", s2)
	require.ErrorIs(t, err, ErrLocalChange)
	require.ErrorContains(t, err, "it was changed while it was staged")
	d.restart()
	d.install("t2", s2)
	require.Equal(t, "<one><mine again><two>", d.read("etc/conf"))
}

func TestMergeNeedsItsScript(t *testing.T) {
	d, _ := edited(t)
	s2 := mergeShop(t, "two")
	s2.c.Scripts[0].At = release.AfterStage
	require.ErrorContains(t, d.stage("t2", s2), `no script "merge-conf"`)
	s2 = mergeShop(t, "two")
	_, err := d.f.Stage(t.Context(), "t2", s2.c, struct{ ota.Content }{s2})
	require.ErrorContains(t, err, "no script can be run here")
}

// TestMergeOverStuck: a newer release over one that was not finished merges
// what that one made.
func TestMergeOverStuck(t *testing.T) {
	d, _ := edited(t)
	before := times(t, d.root)
	s2, s3 := mergeShop(t, "two"), mergeShop(t, "three")
	d.activate("t2", s2)
	d.restart()
	d.activate("t3", s3)
	require.Equal(t, "<two><<one><mine><two>><three>", d.read("etc/conf"))
	d.revert("t3", s3)
	d.revert("t2", s2)
	same(t, before, times(t, d.root), "both are undone")
}

// newMergeScene is a scene of the in-place layout with a file to be merged.
func newMergeScene(t testing.TB) *scene[*inPlaceFiles] {
	t.Helper()
	version := func(v string) *shop {
		return withMerge(placeShop(t, files(t, t.TempDir(), map[string]string{"etc/conf": v, "etc/plain": v, "bin/app": v}), mergeEtc))
	}
	sc := &scene[*inPlaceFiles]{rig: newPlaceDevice(t), s1: version("one"), s2: version("two"), s3: version("three"), look: times, own: []string{"etc/own"}}
	files(t, sc.root, map[string]string{"etc/own": "own"})
	sc.install("t1", sc.s1)
	files(t, sc.root, map[string]string{"etc/conf": "mine"})
	sc.want1 = times(t, sc.root)
	sc.want2 = snapshot(t, files(t, t.TempDir(), map[string]string{"etc/conf": "<one><mine><two>", "etc/plain": "two", "bin/app": "two", "etc/own": "own"}))
	sc.want2["."] = snapshotLine(t, sc.root, ".")
	return sc
}

// TestMergeCut cuts every verb of an update that merges at every step.
func TestMergeCut(t *testing.T) {
	for _, verb := range []string{"stage", "activate", "revert"} {
		t.Run("revert/"+verb, func(t *testing.T) { t.Parallel(); cutThenRevert(t, newMergeScene, verb) })
	}
	for _, verb := range []string{"stage", "activate", "commit"} {
		t.Run("again/"+verb, func(t *testing.T) { t.Parallel(); cutThenAgain(t, newMergeScene, verb) })
	}
}
