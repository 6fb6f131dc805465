//go:build linux

package micro

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

// placeDevice is a root with entries of its own, and its backend.
type placeDevice struct {
	t    testing.TB
	root string
	f    *inPlaceFiles
}

func newPlaceDevice(t testing.TB) *placeDevice {
	t.Helper()
	d := &placeDevice{t: t, root: filepath.Join(t.TempDir(), "sys")}
	require.NoError(t, os.Mkdir(d.root, 0o755))
	d.restart()
	return d
}

func (d *placeDevice) restart() {
	d.t.Helper()
	f, err := New(Options{Name: "app", Root: d.root, Layout: InPlace})
	require.NoError(d.t, err)
	d.f = f.layout.(*inPlaceFiles)
}

func (d *placeDevice) cutAt(n int) *int {
	count := new(int)
	d.f.before = func(string, string) error {
		if *count++; n > 0 && *count >= n {
			return errCut
		}
		return nil
	}
	return count
}

func (d *placeDevice) stage(tx ota.TxID, s *shop) error {
	_, err := d.f.Stage(d.t.Context(), tx, s.c, s)
	return err
}

func (d *placeDevice) activate(tx ota.TxID, s *shop) {
	d.t.Helper()
	require.NoError(d.t, d.stage(tx, s))
	require.NoError(d.t, d.f.Activate(d.t.Context(), tx, s.c))
}

func (d *placeDevice) install(tx ota.TxID, s *shop) {
	d.t.Helper()
	d.activate(tx, s)
	require.NoError(d.t, d.f.Commit(d.t.Context(), tx, s.c))
}

func (d *placeDevice) isWhole(s *shop) {
	d.t.Helper()
	a, err := d.f.Active(d.t.Context(), "app")
	require.NoError(d.t, err)
	require.Equal(d.t, ota.Active{State: ota.Whole, Digest: s.c.Digest()}, a)
}

// placeShop makes a release of single entries: the files of dir without their
// folders, the folders of dirs, and paths that are to be absent.
func placeShop(t testing.TB, dir string, options string, absent ...string) *shop {
	t.Helper()
	whole := newShop(t, dir)
	holds := map[string]bool{".": true}
	for _, e := range whole.ix.Entries {
		holds[filepath.Dir(e.Path)] = true
	}
	var all []release.Entry
	for _, e := range whole.ix.Entries {
		if e.Type != release.Dir || !holds[e.Path] {
			all = append(all, e)
		}
	}
	for _, p := range absent {
		all = append(all, release.Entry{Path: p, Type: release.Absent})
	}
	return entriesShop(t, whole.blobs, all, options)
}

func entriesShop(t testing.TB, blobs map[release.Digest][]byte, all []release.Entry, options string) *shop {
	t.Helper()
	slices.SortFunc(all, func(a, b release.Entry) int { return strings.Compare(a.Path, b.Path) })
	if i := slices.IndexFunc(all, func(e release.Entry) bool { return e.Path == "." }); i > 0 {
		root := all[i]
		all = slices.Insert(slices.Delete(all, i, i+1), 0, root)
	}
	s := &shop{ix: &release.Index{Entries: all}, blobs: blobs}
	var buf strings.Builder
	require.NoError(t, s.ix.Encode(&buf))
	b := release.Blob{Digest: release.Sum([]byte(buf.String())), Size: int64(buf.Len())}
	s.blobs[b.Digest] = []byte(buf.String())
	s.c = release.Component{Name: "app", Kind: Kind, Index: b, Keep: release.Keep{Previous: 1, Repair: release.RepairNone}}
	if options != "" {
		s.c.Options = []byte(options)
	}
	return s
}

func TestInPlaceConformance(t *testing.T) {
	var shops []*shop
	blobs := otatest.Blobs{}
	for i := range 3 {
		v := files(t, t.TempDir(), map[string]string{
			"bin/app": fmt.Sprint("version ", i), "lib/same": "same", fmt.Sprint("lib/only", i): "x", "link": fmt.Sprint("->", i),
			fmt.Sprintf("dir%d/", i): "", "twin": fmt.Sprint("version ", i), "deep/er/file": "deep",
		})
		s := placeShop(t, v, "", "gone")
		shops = append(shops, s)
		blobs.Add(slices.Collect(maps.Values(s.blobs))...)
	}
	otatest.TestBackend(t, func(t *testing.T) otatest.Subject {
		d := newPlaceDevice(t)
		crashed := false
		return otatest.Subject{
			Backend:   d.f,
			Component: func(n int) release.Component { return shops[n].c },
			Blobs:     blobs,
			Look: func() string {
				all := times(t, d.root)
				if len(all) == 1 {
					return ""
				}
				text := ""
				for _, p := range slices.Sorted(maps.Keys(all)) {
					if p != "." {
						text += p + " " + snapshotLine(t, d.root, p) + "\n"
					}
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
	})
}

func snapshotLine(t testing.TB, root, p string) string {
	line, err := describe(filepath.Join(root, p))
	require.NoError(t, err)
	return line
}

// times describes everything in dir, with the times of all of it. What pawl
// has of its own is left out.
func times(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for p, line := range snapshot(t, dir) {
		if strings.Contains("/"+p+"/", "/.pawl.app/") {
			continue
		}
		info, err := os.Lstat(filepath.Join(dir, p))
		require.NoError(t, err)
		all[p] = line + " " + info.ModTime().String()
	}
	return all
}
