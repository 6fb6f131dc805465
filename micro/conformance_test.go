//go:build linux

package micro

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

func TestConformance(t *testing.T) {
	t.Run("tree", func(t *testing.T) {
		t.Parallel()
		conforms(t, newDevice, func(dir string) *shop { return newShop(t, dir) })
	})
	t.Run("inplace", func(t *testing.T) {
		t.Parallel()
		conforms(t, newPlaceDevice, func(dir string) *shop { return placeShop(t, dir, "", "absent") })
	})
}

func conforms[F eitherLayout](t *testing.T, fresh func(testing.TB) *rig[F], release func(dir string) *shop) {
	var shops []*shop
	blobs := otatest.Blobs{}
	for i := range 3 {
		s := release(files(t, t.TempDir(), map[string]string{
			"bin/app": fmt.Sprint("version ", i), "lib/same": "same", fmt.Sprint("lib/only", i): "x", "link": fmt.Sprint("->", i),
			fmt.Sprintf("dir%d/", i): "", "twin": fmt.Sprint("version ", i), "deep/er/file": "deep",
		}))
		shops = append(shops, s)
		blobs.Add(slices.Collect(maps.Values(s.blobs))...)
	}
	otatest.TestBackend(t, func(t *testing.T) otatest.Subject { return subject(fresh(t), shops, blobs) })
}

func subject[F eitherLayout](d *rig[F], shops []*shop, blobs otatest.Blobs) otatest.Subject {
	crashed := false
	look := func() map[string]string {
		all := snapshot(d.t, d.root)
		if _, inPlace := any(d.f).(*inPlaceFiles); inPlace {
			delete(all, ".") // the device's, always
		}
		return all
	}
	return otatest.Subject{
		Backend:   d.f,
		Component: func(n int) release.Component { return shops[n].c },
		Blobs:     blobs,
		Look: func() string {
			all, text := look(), ""
			for _, p := range slices.Sorted(maps.Keys(all)) {
				text += p + " " + all[p] + "\n"
			}
			return text
		},
		Paths:  look,
		Reopen: func() ota.Backend { d.restart(); return d.f },
		Crash: func(n int) {
			crashed = false
			left := n
			d.f.common().before = func(string, string) error {
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
