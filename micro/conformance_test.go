//go:build linux

package micro

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	var shops []*shop
	blobs := otatest.Blobs{}
	for i := range 3 {
		v := files(t, t.TempDir(), map[string]string{
			"app": fmt.Sprint("version ", i), "lib/same": "same", fmt.Sprint("lib/only", i): "x", "link": fmt.Sprint("->", i),
			fmt.Sprintf("dir%d/", i): "", "twin": fmt.Sprint("version ", i),
		})
		s := newShop(t, v)
		shops = append(shops, s)
		blobs.Add(slices.Collect(maps.Values(s.blobs))...)
	}
	otatest.TestBackend(t, func(t *testing.T) otatest.Subject { return subject(newDevice(t), shops, blobs) })
}

func subject(d *device, shops []*shop, blobs otatest.Blobs) otatest.Subject {
	crashed := false
	return otatest.Subject{
		Backend:   d.f,
		Component: func(n int) release.Component { return shops[n].c },
		Blobs:     blobs,
		Look: func() string {
			if _, err := os.Lstat(d.root); err != nil {
				return ""
			}
			all := snapshot(d.t, d.root)
			text := ""
			for _, p := range slices.Sorted(maps.Keys(all)) {
				text += p + " " + all[p] + "\n"
			}
			return text
		},
		Reopen: func() ota.Backend { d.restart(); return d.f },
		Crash: func(n int) {
			crashed = false
			left := n
			d.f.before = func(string, string) error {
				if left--; left > 0 {
					return nil
				}
				crashed = true
				return errCut
			}
		},
		Crashed: func() bool { return crashed },
	}
}
