//go:build linux

package micro

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
)

// benchTrees makes a tree of thousands of files, one in which 1 % of them
// changed, and an archive of each.
func benchTrees(b *testing.B) (s1, s2 *shop, tar1, tar2 string) {
	b.Helper()
	dir := b.TempDir()
	v1, v2 := filepath.Join(dir, "v1"), filepath.Join(dir, "v2")
	for _, v := range []string{v1, v2} {
		goSources(b, v, "go", "net", "crypto", "internal", "cmd", "runtime", "encoding")
	}
	for i, p := range regular(b, v2) {
		if i%100 == 0 {
			require.NoError(b, os.WriteFile(p, []byte(fmt.Sprint("changed ", i)), 0o644))
		}
	}
	tar1, tar2 = filepath.Join(dir, "1.tar"), filepath.Join(dir, "2.tar")
	require.NoError(b, exec.Command("tar", "cf", tar1, "-C", v1, ".").Run())
	require.NoError(b, exec.Command("tar", "cf", tar2, "-C", v2, ".").Run())
	s1, s2 = newShop(b, v1), newShop(b, v2)
	b.Logf("%d entries", len(s1.ix.Entries))
	return s1, s2, tar1, tar2
}

// BenchmarkInstall measures a first installation and an update of 1 % of the
// files, each beside the floor: tar and a sync.
func BenchmarkInstall(b *testing.B) {
	s1, s2, tar1, tar2 := benchTrees(b)
	require.NoError(b, durable.SyncTree(os.TempDir()))
	floor := func(tar string) func(b *testing.B) {
		return func(b *testing.B) {
			for b.Loop() {
				dir := b.TempDir()
				require.NoError(b, exec.Command("tar", "xf", tar, "-C", dir).Run())
				require.NoError(b, durable.SyncTree(dir))
			}
		}
	}
	b.Run("first/tar", floor(tar1))
	b.Run("first/micro", func(b *testing.B) {
		for b.Loop() {
			newDevice(b).install("t1", s1)
		}
	})
	b.Run("update/tar", floor(tar2))
	d := newDevice(b)
	d.install("t1", s1)
	b.Run("update/stage", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			tx := ota.TxID(fmt.Sprint("s", i))
			require.NoError(b, d.stage(tx, s2))
			b.StopTimer()
			require.NoError(b, d.f.Revert(b.Context(), tx, s2.c))
			b.StartTimer()
		}
	})
	b.Run("update/switch", func(b *testing.B) {
		require.NoError(b, d.stage("a", s2))
		for b.Loop() {
			require.NoError(b, d.f.Activate(b.Context(), "a", s2.c))
			b.StopTimer()
			require.NoError(b, d.f.Revert(b.Context(), "a", s2.c))
			require.NoError(b, d.stage("a", s2))
			b.StartTimer()
		}
	})
	b.Run("active", func(b *testing.B) {
		for b.Loop() {
			d.isWhole(s1)
		}
	})
}
