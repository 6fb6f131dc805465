//go:build linux

package micro

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestRandomTrees takes a device from one random tree to another, with random
// paths of the app and random local changes, through a random cut, and either on
// or back. What Diff said beforehand is what changed.
func TestRandomTrees(t *testing.T) {
	rounds := uint64(40)
	switch {
	case long():
		rounds = 400
	case testing.Short():
		rounds = 10
	}
	for seed := range rounds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 7))
			d := newDevice(t)
			s1, carry := randomShop(t, rng)
			d.install("t1", s1)
			appWrites(t, rng, d.root, carry)
			localChanges(t, rng, d.root, s1)
			want1 := snapshot(t, d.root)
			s2, carry2 := randomShop(t, rng)
			want2 := expect(t, s2, carry2, want1)
			diff, err := d.f.Diff(t.Context(), s2.c, s2)
			require.NoError(t, err)
			randomUpdate(t, rng, d, s1, s2, want1, want2)
			diffFits(t, diff, want1, want2, carry...)
		})
	}
}

func randomUpdate(t *testing.T, rng *rand.Rand, d *device, s1, s2 *shop, want1, want2 map[string]string) {
	d.cutAt(1 + rng.IntN(60))
	err := d.stage("t2", s2)
	if err == nil {
		err = d.f.Activate(t.Context(), "t2", s2.c)
	}
	d.restart()
	if rng.IntN(2) == 0 {
		d.cutAt(1 + rng.IntN(8))
		_ = d.f.Revert(t.Context(), "t2", s2.c)
		d.restart()
		require.NoError(t, d.f.Revert(t.Context(), "t2", s2.c))
		same(t, want1, snapshot(t, d.root), "back")
		d.isWhole(s1)
		require.Empty(t, listed(t, d.f.path(dirTx)))
	}
	if err != nil {
		require.ErrorIs(t, err, errCut)
	}
	d.activate("t2", s2)
	same(t, want2, snapshot(t, d.root), "on")
	d.isWhole(s2)
	require.NoError(t, d.f.Commit(t.Context(), "t2", s2.c))
	same(t, want2, snapshot(t, d.root), "committed")
}

// randomShop makes a release of a random tree.
func randomShop(t *testing.T, rng *rand.Rand) (*shop, []string) {
	t.Helper()
	dir := t.TempDir()
	carry := randomFolder(t, rng, dir, "", 0)
	return newShop(t, dir, carry...), carry
}

// randomFolder fills one folder and returns the paths that are to be carried.
func randomFolder(t *testing.T, rng *rand.Rand, dir, rel string, depth int) (carry []string) {
	for _, name := range []string{"a", "b", "c", "d-e", "f.g"} {
		p := filepath.Join(rel, name)
		full := filepath.Join(dir, p)
		switch kind := rng.IntN(9); {
		case kind < 3:
			require.NoError(t, os.WriteFile(full, []byte(fmt.Sprint(rng.IntN(4))), 0o644))
			if rng.IntN(6) == 0 {
				require.NoError(t, unix.Setxattr(full, "user.x", []byte{byte(rng.IntN(2))}, 0))
			}
			require.NoError(t, os.Chmod(full, []fs.FileMode{0o644, 0o644, 0o755, 0o400}[rng.IntN(4)]))
		case kind == 3:
			require.NoError(t, os.Symlink([]string{"a", "/etc", ".."}[rng.IntN(3)], full))
		case kind < 6 && depth < 3:
			require.NoError(t, os.Mkdir(full, 0o755))
			require.NoError(t, os.Chmod(full, []fs.FileMode{0o755, 0o700, 0o777 | fs.ModeSticky}[rng.IntN(3)]))
			carry = append(carry, randomFolder(t, rng, dir, p, depth+1)...)
		case kind == 6:
			carry = append(carry, p)
		}
	}
	return carry
}

// appWrites has the app make some of its paths.
func appWrites(t *testing.T, rng *rand.Rand, root string, carry []string) {
	for _, p := range carry {
		switch rng.IntN(3) {
		case 0:
			files(t, root, map[string]string{p: "data " + p})
		case 1:
			files(t, root, map[string]string{p + "/a": "data", p + "/b/c": "more", p + "/link": "->a"})
		}
	}
}

// expect is the tree that has to be there after the update: what the release
// lists, and below its carried paths all that was there.
func expect(t *testing.T, s *shop, carry []string, before map[string]string) map[string]string {
	t.Helper()
	alone := newDevice(t)
	alone.install("t1", s)
	want := snapshot(t, alone.root)
	for p, line := range before {
		for _, c := range carry {
			if p == c || strings.HasPrefix(p, c+"/") {
				want[p] = line
			}
		}
	}
	return want
}
