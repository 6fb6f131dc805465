//go:build linux

package micro

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAlwaysSomethingToRun looks at the device before each step of each verb,
// where a power cut would leave it: a program that both releases have is there
// at every moment, whole, old or new. Of a tree all that is not carried is of
// one release.
func TestAlwaysSomethingToRun(t *testing.T) {
	bothLayouts(t, alwaysThere, alwaysThere, "stage", "activate", "commit", "revert")
}

func alwaysThere[F eitherLayout](t *testing.T, fresh func(testing.TB) *scene[F], verb string) {
	sc := fresh(t)
	sc.upTo(verb)
	steps, seen := 0, map[string]int{}
	sc.f.common().before = func(op, path string) error {
		steps++
		data, err := os.ReadFile(filepath.Join(sc.root, "bin/app"))
		require.NoError(t, err, "before %s %s", op, path)
		require.Contains(t, []string{"app 1", "app 2"}, string(data), "before %s %s", op, path)
		require.FileExists(t, filepath.Join(sc.root, "bin/tool"))
		seen[string(data)]++
		if _, tree := any(sc).(*scene[*treeFiles]); tree {
			want := sc.want1
			if string(data) == "app 2" {
				want = sc.want2
			}
			same(t, released(want), released(snapshot(t, sc.root)), "before "+op+" "+path)
		}
		return nil
	}
	require.NoError(t, sc.verb(verb))
	require.NotZero(t, steps)
	t.Logf("%d steps: %v", steps, seen)
}

// released is what of a picture of the scene's tree no path carries, nor is the
// root itself, whose times change with what is carried.
func released(all map[string]string) map[string]string {
	all = maps.Clone(all)
	maps.DeleteFunc(all, func(p, _ string) bool {
		for _, carried := range []string{"data", "var/log", "etc", "cache"} {
			if p == carried || strings.HasPrefix(p, carried+"/") {
				return true
			}
		}
		return p == "."
	})
	return all
}
