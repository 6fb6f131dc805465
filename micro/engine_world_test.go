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
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

// picture is a root as snapshot has it, or as times.
type picture map[string]string

// engineWorld is three releases of one or two components. Nothing of it
// changes.
type engineWorld struct {
	parts    []enginePart
	source   *otatest.Memory
	releases [4]*release.Release
	lists    map[string]*[4]picture // what the releases list, by component and seq
}

// engineContent is what a release puts into a component: changed, added and
// removed entries, one whose mode alone changes, a link, a folder that comes
// and one that goes, and a path that is to be absent.
func engineContent(layout Layout, seq int) map[string]string {
	if layout == Tree {
		return map[int]map[string]string{
			1: {"bin/app": "app 1", "lib/same": "same", "lib/link": "->a", "gone/x": "x"},
			2: {"bin/app": "app 2", "lib/same": "same", "lib/link": "->b", "new/y": "y"},
			3: {"bin/app": "app 3"},
		}[seq]
	}
	return map[int]map[string]string{
		1: {"bin/app": "app 1", "bin/tool": "tool", "link": "->a", "gone/x": "x", "empty/": ""},
		2: {"bin/app": "app 2", "bin/tool": "tool", "link": "->b", "new/y": "y", "etc/shipped": "shipped"},
		3: {"bin/app": "app 3"},
	}[seq]
}

// engineOwn is what the device has of its own: in place before anything is
// installed, in a tree where a release carries it.
func engineOwn(layout Layout) map[string]string {
	if layout == Tree {
		return map[string]string{"data/db": "rows"}
	}
	return map[string]string{"etc/own": "own", "etc/old": "own, and to go", "etc/shipped": "own", "bin/other": "own"}
}

func newEngineWorld(t testing.TB, sc engineScenario) *engineWorld {
	w := &engineWorld{parts: sc.parts, source: otatest.NewMemory(), lists: map[string]*[4]picture{}}
	for seq := 1; seq <= 3; seq++ {
		r := &release.Release{
			Format: release.Format, ID: release.ID{Product: "model", Variant: "engine", Seq: uint64(seq)},
			Version: fmt.Sprint(seq, ".0"), Issued: time.Unix(1e9, 0).UTC(),
		}
		policy := sc.policy
		if seq == 3 && policy != "" {
			policy = Overwrite
		}
		var blobs [][]byte
		for _, p := range sc.parts {
			s := w.shop(t, p, seq, policy)
			r.Components = append(r.Components, s.c)
			blobs = slices.AppendSeq(blobs, maps.Values(s.blobs))
		}
		if sc.scripts && seq == sc.tried() {
			blobs = append(blobs, addScripts(r)...)
		}
		slices.SortFunc(blobs, func(a, b []byte) int { return strings.Compare(string(a), string(b)) })
		w.source.Put(r, blobs...)
		w.releases[seq] = r
	}
	return w
}

// shop makes one component of a release.
func (w *engineWorld) shop(t testing.TB, p enginePart, seq int, policy Policy) *shop {
	dir := files(t, t.TempDir(), engineContent(p.layout, seq))
	files(t, dir, map[string]string{"version": fmt.Sprint(seq)})
	switch seq {
	case 1:
		require.NoError(t, unix.Setxattr(filepath.Join(dir, "bin/app"), "user.x", []byte("1"), 0))
	case 2:
		tool := map[Layout]string{Tree: "lib/same", InPlace: "bin/tool"}[p.layout]
		require.NoError(t, unix.Chmod(filepath.Join(dir, tool), 0o4755))
	}
	if w.lists[p.name] == nil {
		w.lists[p.name] = new([4]picture)
	}
	w.lists[p.name][seq] = snapshot(t, dir)
	var s *shop
	if p.layout == Tree {
		s = newShop(t, dir, "data")
	} else {
		var absent []string
		if seq == 2 {
			absent = []string{"etc/old"}
		}
		options := ""
		if policy != "" {
			options = fmt.Sprintf(`{"localChanges":%q}`, policy)
		}
		s = placeShop(t, dir, options, absent...)
	}
	s.c.Name = p.name
	s.c.Keep.Repair = release.RepairChanged
	return s
}

// newEngineDevice is a device that runs the release from, with old times on
// everything in the roots.
func newEngineDevice(t testing.TB, w *engineWorld, from int) *engineDevice {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "device")
	require.NoError(t, err)
	d := &engineDevice{dir: dir, parts: w.parts, source: w.source, health: func() error { return nil }}
	d.log = scriptLog{state: map[engineScript]string{}, exits: map[engineScript][]int{}}
	d.hook(t)
	for _, p := range w.parts {
		root := d.path(p.root)
		require.NoError(t, os.MkdirAll(filepath.Dir(root), 0o755))
		if p.layout == InPlace {
			files(t, root, engineOwn(p.layout))
		}
	}
	for seq := 1; seq <= from; seq++ {
		w.source.Offer(w.releases[seq])
		r := engineRun{device: d, world: w, T: t}
		require.NoError(t, r.live("new"), "to begin with")
		for _, p := range w.parts {
			if p.layout == Tree && seq == 1 {
				files(t, d.path(p.root), engineOwn(p.layout))
			}
		}
	}
	for _, p := range w.parts {
		age(t, d.path(p.root))
	}
	return d
}

// age gives everything below root a time long ago.
func age(t testing.TB, root string) {
	ts := unix.NsecToTimespec(time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC).UnixNano())
	for p := range snapshot(t, root) {
		require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(root, p), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// goOn works out what a root looks like after a release follows another. was
// is what is there, without times.
func (w *engineWorld) goOn(p enginePart, was picture, prev, next int) picture {
	lists := w.lists[p.name]
	if p.layout == Tree {
		m := maps.Clone(lists[next])
		for q := range was {
			if strings.HasPrefix(q, "data") {
				m[q] = was[q]
			}
		}
		return m
	}
	isOwnDir := func(q string) bool { return q == "." || q == "etc" || q == "bin" }
	m := maps.Clone(was)
	for q := range lists[prev] {
		if lists[next][q] == "" && !isOwnDir(q) {
			delete(m, q)
		}
	}
	for q, line := range lists[next] {
		if !isOwnDir(q) {
			m[q] = line
		}
	}
	if next == 2 {
		delete(m, "etc/old")
	}
	return m
}

// differing says in what two pictures differ.
func differing(want, got picture) string {
	var diff []string
	for p, w := range want {
		if got[p] != w {
			diff = append(diff, fmt.Sprintf("%s: want %q, got %q", p, w, got[p]))
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			diff = append(diff, p+": should not be there: "+got[p])
		}
	}
	slices.Sort(diff)
	return strings.Join(diff, "\n")
}
