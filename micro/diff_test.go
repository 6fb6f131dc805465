//go:build linux

package micro

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// diff returns the changes, one line each, and checks that none was made.
func (d *rig[F]) diff(s *shop) []string {
	d.t.Helper()
	dir := filepath.Dir(d.root)
	before := untouched(d.t, dir)
	all, err := d.f.Diff(d.t.Context(), s.c, s)
	require.NoError(d.t, err)
	same(d.t, before, untouched(d.t, dir), "nothing was written")
	var lines []string
	for i, c := range all {
		require.Equal(d.t, "app", c.Component)
		require.True(d.t, i == 0 || all[i-1].Path < c.Path, "sorted, and each path once: %s", c.Path)
		lines = append(lines, fmt.Sprintf("%s %s: %s", c.Path, c.What, c.Detail))
	}
	return lines
}

// untouched describes all in dir, with the times and inodes of everything.
func untouched(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := snapshot(t, dir)
	for p, line := range all {
		var st unix.Stat_t
		require.NoError(t, unix.Lstat(filepath.Join(dir, p), &st))
		all[p] = fmt.Sprint(line, " ", st.Ino, st.Mtim, st.Ctim)
	}
	return all
}

// diffTrees are two versions that differ in every way.
func diffTrees(t testing.TB) (v1, v2 string) {
	t.Helper()
	many := map[string]string{
		"bin/app": string(make([]byte, 12288)), "bin/tool": "tool", "etc/conf": "12 bytes old", "etc/gone": "x", "lib/link": "->a", "lib/same": "same",
		"type1": "file", "type2/inner": "x", "data/file": "shipped",
	}
	v1 = files(t, t.TempDir(), many)
	for p, content := range map[string]string{"bin/app": string(make([]byte, 12416)), "etc/conf": "12 bytes new", "lib/link": "->b", "type1": "->x"} {
		many[p] = content
	}
	for _, p := range []string{"etc/gone", "type2/inner"} {
		delete(many, p)
	}
	many["new/deep"], many["type2"] = "1234567", "file"
	v2 = files(t, t.TempDir(), many)
	require.NoError(t, os.Chmod(filepath.Join(v2, "bin/tool"), 0o755))
	require.NoError(t, os.Chmod(filepath.Join(v2, "bin/app"), 0o600))
	require.NoError(t, unix.Setxattr(filepath.Join(v2, "lib/same"), "user.x", []byte("1"), 0))
	return v1, v2
}

func TestDiffTree(t *testing.T) {
	v1, v2 := diffTrees(t)
	d := newDevice(t)
	s1, s2 := newShop(t, v1), newShop(t, v2, "data", "var")
	require.Len(t, d.diff(s1), len(s1.ix.Entries))
	for _, line := range d.diff(s1) {
		require.Contains(t, line, " added: a ")
	}
	d.install("t1", s1)
	require.Empty(t, d.diff(s1), "it is there")
	want := []string{
		"bin/app changed: 12,288 → 12,416 bytes; mode 0644 → 0600",
		"bin/tool metadata: mode 0644 → 0755",
		"etc/conf changed: 12 bytes as before, with other content",
		"etc/gone removed: a file of 1 bytes",
		`lib/link changed: points to "a" → "b"`,
		"lib/same metadata: other extended attributes",
		"new added: a folder",
		"new/deep added: a file of 7 bytes",
		`type1 changed: a file of 4 bytes becomes a symbolic link to "x"`,
		"type2 changed: a folder becomes a file of 4 bytes",
		"type2/inner removed: a file of 1 bytes",
	}
	require.Equal(t, want, d.diff(s2))
	require.NoError(t, d.stage("t2", s2))
	require.Equal(t, want, d.diff(s2), "staged")
	d.revert("t2", s2)

	files(t, d.root, map[string]string{"lib/same": "edited"})
	require.Empty(t, d.diff(s1), "it would change nothing")
	files(t, d.root, map[string]string{"etc/gone": "edited", "stray/x": "own", "var/log": "the app's", "data/file": "the app's"})
	require.NoError(t, os.Remove(filepath.Join(d.root, "etc/conf")))
	got := d.diff(s2)
	for _, line := range []string{
		"etc/conf local: changed on this device: it is missing; would be replaced, and comes back with a rollback; 12 bytes as before, with other content",
		"etc/gone local: changed on this device: it has 6 bytes instead of 1; would be removed, and comes back with a rollback",
		"lib/same local: changed on this device: it has 6 bytes instead of 4; would be replaced, and comes back with a rollback; other extended attributes",
		"stray local: no release lists it; the release would be refused",
	} {
		require.Contains(t, got, line)
	}
	require.Len(t, got, len(want)+1, "nothing of what is carried")
	require.ErrorIs(t, d.stage("t2", s2), ErrUnmanaged)
	d.revert("t2", s2)

	require.NoError(t, os.RemoveAll(filepath.Join(d.root, "stray")))
	d.install("t3", s2)
	back := newShop(t, v1)
	got = d.diff(back)
	require.Contains(t, got, "data/file changed: 9 → 7 bytes; no release put there what there is")
	require.Contains(t, got, "var removed: it is the app's, and stays with the old release")
}

// TestDiffTreeUnknown compares with a root that nothing is known of any more.
func TestDiffTreeUnknown(t *testing.T) {
	v1, v2 := diffTrees(t)
	d := newDevice(t)
	s1, s2 := newShop(t, v1), newShop(t, v2)
	d.install("t1", s1)
	want := d.diff(s2)
	require.NoError(t, os.Remove(d.f.path("state")))
	d.restart()
	require.Equal(t, want, d.diff(s2), "found by content, and not written down")
	require.NoFileExists(t, d.f.path("state"))
	require.NoError(t, os.RemoveAll(d.f.path()))
	require.Contains(t, d.diff(s2), "bin/tool metadata: mode 0644 → 0755; no release put there what there is")
}

func TestDiffInPlace(t *testing.T) {
	v1, v2 := diffTrees(t)
	const options = `{"paths":[{"path":"etc/conf","localChanges":"keep"},{"path":"etc/m","localChanges":"merge","script":"merge-conf"},
		{"path":"lib","localChanges":"overwrite"}]}`
	d := newPlaceDevice(t)
	files(t, v1, map[string]string{"etc/m": "one"})
	files(t, v2, map[string]string{"etc/m": "three", "etc/own": "over the device's own"})
	s1, s2 := withMerge(placeShop(t, v1, options)), withMerge(placeShop(t, v2, options, "etc/old", "never"))
	for _, line := range d.diff(s1) {
		require.Contains(t, line, " added: a ")
	}
	files(t, d.root, map[string]string{"etc/own": "own", "etc/old": "own", "etc/other": "own", "type2/": ""})
	d.install("t1", s1)
	require.Empty(t, d.diff(s1), "it is there")
	require.Equal(t, []string{
		"bin/app changed: 12,288 → 12,416 bytes; mode 0644 → 0600",
		"bin/tool metadata: mode 0644 → 0755",
		"etc/conf changed: 12 bytes as before, with other content",
		"etc/gone removed: a file of 1 bytes",
		"etc/m changed: 3 → 5 bytes",
		"etc/old removed: no release put there what there is, and comes back with a rollback",
		"etc/own changed: 3 → 21 bytes; no release put there what there is, and comes back with a rollback",
		`lib/link changed: points to "a" → "b"`,
		"lib/same metadata: other extended attributes",
		"new added: a folder",
		"new/deep added: a file of 7 bytes",
		`type1 changed: a file of 4 bytes becomes a symbolic link to "x"`,
		"type2 changed: a folder becomes a file of 4 bytes; no release put there what there is, and comes back with a rollback",
		"type2/inner removed: a file of 1 bytes",
	}, d.diff(s2))

	files(t, d.root, map[string]string{"etc/conf": "mine"})
	require.Empty(t, d.diff(s1), "it would change nothing")
	files(t, d.root, map[string]string{"etc/m": "mine", "lib/same": "mine", "bin/tool": "mine", "etc/gone": "mine", "type2/own": "mine"})
	got := d.diff(s2)
	for _, line := range []string{
		"bin/tool local: changed on this device: its content differs; the release would be refused; mode 0644 → 0755",
		"etc/conf local: changed on this device: it has 4 bytes instead of 12; would stay, with the release's version beside it as conf.pawl-new; 12 bytes as before, with other content",
		"etc/conf.pawl-new added: a file of 12 bytes; the release's version of what stays as it was changed",
		"etc/gone local: changed on this device: it has 4 bytes instead of 1; the release would be refused",
		"etc/m local: changed on this device: it has 4 bytes instead of 3; would be merged by the script merge-conf; 3 → 5 bytes",
		"lib/same local: changed on this device: its content differs; would be replaced, and comes back with a rollback; other extended attributes",
		"type2/own local: no release lists it; the release would be refused",
	} {
		require.Contains(t, got, line)
	}
	require.Len(t, got, 15)
}

// TestDiffReadOnly compares where nothing can be written.
func TestDiffReadOnly(t *testing.T) {
	testneeds.Root(t)
	v1, v2 := diffTrees(t)
	s1, s2 := newShop(t, v1), newShop(t, v2)
	t.Run("tree", func(t *testing.T) { diffReadOnly(t, newDevice(t), s1, s2) })
	t.Run("inplace", func(t *testing.T) { diffReadOnly(t, newPlaceDevice(t), s1, s2) })
}

func diffReadOnly[F eitherLayout](t *testing.T, d *rig[F], s1, s2 *shop) {
	d.install("t1", s1)
	require.NoError(t, d.f.Prune(t.Context(), "app", nil, nil))
	want := d.diff(s2)
	require.NotEmpty(t, want)
	dir := filepath.Dir(d.root)
	mount(t, dir, dir, "", unix.MS_BIND, "")
	require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	require.ErrorIs(t, os.WriteFile(filepath.Join(dir, "x"), nil, 0o600), unix.EROFS)
	d.restart()
	require.Equal(t, want, d.diff(s2))
}

// TestDiffOfMany takes about a second for ten thousand entries.
func TestDiffOfMany(t *testing.T) {
	n := 2_000
	if long() {
		n = 10_000
	}
	var lists [2][]release.Entry
	blobs := map[release.Digest][]byte{}
	for v := range lists {
		lists[v] = append(lists[v], release.Entry{Path: ".", Type: release.Dir, Mode: 0o755, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())})
		for i := range n {
			data := fmt.Appendf(nil, "%d", i)
			if i%100 == 0 {
				data = fmt.Appendf(data, " in version %d", v)
			}
			b := release.Blob{Digest: release.Sum(data), Size: int64(len(data))}
			blobs[b.Digest] = data
			lists[v] = append(lists[v], *private(fmt.Sprintf("f%05d", i), b))
		}
	}
	s1, s2 := entriesShop(t, blobs, lists[0], ""), entriesShop(t, blobs, lists[1], "")
	t.Run("tree", func(t *testing.T) { diffMany(t, newDevice(t), s1, s2) })
	t.Run("inplace", func(t *testing.T) { diffMany(t, newPlaceDevice(t), s1, s2) })
}

func diffMany[F eitherLayout](t *testing.T, d *rig[F], s1, s2 *shop) {
	d.install("t1", s1)
	start := time.Now()
	all, err := d.f.Diff(t.Context(), s2.c, s2)
	took := time.Since(start)
	require.NoError(t, err)
	require.Len(t, all, len(s1.ix.Entries)/100)
	t.Logf("%d entries compared in %v", len(s1.ix.Entries), took)
	require.Less(t, took, 10*time.Second, "not in the order of a second, even on a busy machine")
}

func TestRootAndDiffAreThere(t *testing.T) {
	for _, layout := range []Layout{Tree, InPlace} {
		f, err := New(Options{Name: "app", Root: "/srv/app", Layout: layout})
		require.NoError(t, err)
		var backend ota.Backend = f
		require.Equal(t, "/srv/app", backend.(ota.Rooter).Root("app"))
		_, ok := backend.(ota.Differ)
		require.True(t, ok)
		_, err = f.Diff(t.Context(), release.Component{Name: "other", Kind: Kind}, nil)
		require.Error(t, err)
	}
}
