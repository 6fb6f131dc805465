//go:build linux

package publish

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// inOrder lists the files of a repository in the order in which the package
// says that they are to be copied.
func (f *fixture) inOrder(t *testing.T) (list []string) {
	require.NoError(t, fs.WalkDir(os.DirFS(f.dir), ".", func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.Contains(path, "/") {
			list = append(list, path)
		}
		return err
	}))
	newest := roleName(Root, f.rootVersion(t))
	rank := func(name string) int {
		switch {
		case name == newest:
			return 5
		case name == timestampName:
			return 4
		case strings.HasPrefix(name, "metadata/"):
			return 3
		case strings.HasPrefix(name, "targets/"):
			return 2
		}
		return 1
	}
	slices.SortStableFunc(list, func(a, b string) int { return rank(a) - rank(b) })
	return list
}

// TestCopyInOrder copies a repository to where it is served after each change of
// keys, and looks there after each file.
func TestCopyInOrder(t *testing.T) {
	f := newFixture(t)
	f.mustAdd(t, "default")
	mirror := filepath.Join(t.TempDir(), "mirror")
	require.NoError(t, os.CopyFS(mirror, os.DirFS(f.dir)))
	warm := f.newDevice(t)
	warm.o.URL = mirror
	looked := 0
	for _, roles := range [][]Role{{Timestamp}, {Snapshot, Timestamp}, {Targets}, {Root}, {Root, Targets, Snapshot, Timestamp}} {
		var changes []RoleChange
		root := f.keys[Root]
		for _, role := range roles {
			changes = append(changes, f.replace(t, role, f.keys[role][0], newKey(t)))
		}
		f.keys[Root] = append(slices.Clone(root), f.keys[Root]...)
		require.NoError(t, f.Rotate(t.Context(), changes...))
		f.keys[Root] = f.keys[Root][len(f.keys[Root])-1:]
		for _, name := range f.inOrder(t) {
			data, err := os.ReadFile(filepath.Join(f.dir, name))
			require.NoError(t, err)
			if there, err := os.ReadFile(filepath.Join(mirror, name)); err == nil && string(there) == string(data) {
				continue
			}
			require.NoError(t, os.WriteFile(filepath.Join(mirror, name), data, 0o644))
			fresh := f.newDevice(t)
			fresh.o.URL = mirror
			require.EqualValues(t, 1, fresh.seq(t, "default"), "%v: %s", roles, name)
			require.EqualValues(t, 1, warm.seq(t, "default"), "%v: %s", roles, name)
			looked++
		}
	}
	require.Greater(t, looked, 15)
}
