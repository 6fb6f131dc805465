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

// BenchmarkInPlace measures an update of all of 5,000 entries, and of one,
// beside the floor: tar over what is there, and a sync.
func BenchmarkInPlace(b *testing.B) {
	var shops []*shop
	var tars []string
	for v := range 2 {
		dir := b.TempDir()
		for i := range 5000 {
			p := filepath.Join(dir, fmt.Sprintf("d%02d", i/100), fmt.Sprint("f", i))
			require.NoError(b, os.MkdirAll(filepath.Dir(p), 0o755))
			require.NoError(b, os.WriteFile(p, fmt.Append(make([]byte, 4000), v, i), 0o644))
		}
		shops = append(shops, placeShop(b, dir, ""))
		tars = append(tars, filepath.Join(b.TempDir(), "x.tar"))
		require.NoError(b, exec.Command("tar", "cf", tars[v], "-C", dir, ".").Run())
	}
	b.Run("tar", func(b *testing.B) {
		dir := b.TempDir()
		for i := 0; b.Loop(); i++ {
			require.NoError(b, exec.Command("tar", "xf", tars[i%2], "-C", dir).Run())
			require.NoError(b, durable.SyncTree(dir))
		}
	})
	d := newPlaceDevice(b)
	d.install("first", shops[1])
	b.Run("all", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			d.install(ota.TxID(fmt.Sprint("t", i)), shops[i%2])
		}
	})
	b.Run("active", func(b *testing.B) {
		for b.Loop() {
			_, err := d.f.Active(b.Context(), "app")
			require.NoError(b, err)
		}
	})
	one := newPlaceDevice(b)
	ones := []*shop{oneFile(b, "etc/conf", "one", ""), oneFile(b, "etc/conf", "two", "")}
	b.Run("one", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			one.install(ota.TxID(fmt.Sprint("o", i)), ones[i%2])
		}
	})
}
