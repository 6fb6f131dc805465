package e2e

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/chunk"
	"github.com/pawl-ota/pawl/ota/publish"
	"github.com/pawl-ota/pawl/ota/release"
)

// TestFarBehind brings devices to the newest release from the one before it, from
// two and three releases back, of which the latter has no delta, from twenty back
// (from eight in a short run), and from nothing. None fetches more than the pieces that it lacks are long, with
// at most 12 requests and one for each pack that it touches; nothing that check
// -plan did not say beforehand.
func TestFarBehind(t *testing.T) {
	t.Parallel()
	newest := 22
	if testing.Short() {
		newest = 10
	}
	m := newMaker(t)
	link := newLink(t, m.repo)
	tree := filepath.Join(m.dir, "tree")
	h := &history{m: m, tree: tree, random: rand.New(rand.NewPCG(1, 2)), olds: map[int]string{}}
	devices := map[int]*device{0: newDevice(t, m, t.TempDir())}
	for i := 1; i <= newest; i++ {
		h.next(i)
		if back := newest - i; back == 1 || back == 2 || back == 3 || back == newest-2 {
			devices[i] = newDevice(t, m, t.TempDir())
			devices[i].must(0, "update")
			h.olds[i] = cloneTree(t, tree, filepath.Join(m.dir, fmt.Sprint("at", i)))
		}
	}
	m.apart()
	table, locator := newestTable(t, m.repo)
	listed := m.fetches()
	documents := locator.Table.Size + longestIndex(t, table, locator)
	for at, d := range devices {
		d.set("source", "url", link.url)
		floor := lacking(t, table, h.olds[at], tree)
		a := d.must(0, "check", "-plan")
		plan := a.Need
		link.forget()
		d.must(0, "update")
		d.holds(tree)
		sent, twice := link.counts()
		requests, packs := link.requests()
		t.Logf("%d behind: lacks %d bytes in %d pieces of %d packs, with %d between them; planned %d in %d requests; sent %d in %d requests from %d packs",
			newest-at, floor.bytes, floor.pieces, len(floor.packs), floor.gaps, plan.Fetch, plan.Requests, sent, requests, len(packs))
		require.Zero(t, twice)
		require.LessOrEqual(t, plan.Fetch, floor.bytes+floor.gaps)
		require.LessOrEqual(t, requests, 12+len(packs))
		require.LessOrEqual(t, len(packs), len(floor.packs)+1, "one for the index")
		require.LessOrEqual(t, sent, plan.Fetch+documents)
		said := listed[uint64(at)]
		require.InDelta(t, said.Bytes, sent, float64(sent)/20+1000, "publisher list: %+v", said)
		require.Equal(t, len(packs), said.Packs)
		if at < newest-2 {
			require.Zero(t, plan.Parts[0].Patched.Blobs, "%+v", plan)
			continue
		}
		require.Positive(t, plan.Parts[0].Patched.Blobs, "%+v", plan)
		require.Less(t, sent, floor.bytes/2)
	}
}

// fetches returns what publisher list says that devices fetch to get to the newest
// release, by the one that they run.
func (m *maker) fetches() map[uint64]publish.Fetch {
	m.t.Helper()
	lines := bytes.Split(bytes.TrimSpace([]byte(m.publisher("list", "-repo", m.repo, "-json"))), []byte("\n"))
	var newest struct{ Fetches []publish.Fetch }
	require.NoError(m.t, json.Unmarshal(lines[len(lines)-1], &newest))
	by := map[uint64]publish.Fetch{}
	for _, f := range newest.Fetches {
		by[f.From] = f
	}
	return by
}

// history publishes releases.
type history struct {
	m      *maker
	tree   string
	random *rand.Rand
	app    []byte
	olds   map[int]string
}

// next publishes the next release: a change in the middle of a large file, and
// two of twenty others that are new. Only the last has deltas, from two before it,
// and none has a pack with all.
func (h *history) next(i int) {
	if i == 1 {
		h.app = []byte(noise(600_000))
		for j := range 20 {
			h.file(j, i)
		}
	}
	at := h.random.IntN(len(h.app))
	h.app = slices.Insert(h.app, at, fmt.Appendf(nil, "in release %d", i)...)
	write(h.m.t, h.tree, "bin/app", string(h.app), 0o755)
	h.file(i%20, i)
	h.file((i*7)%20, i)
	spec := filepath.Join(h.m.dir, "SPEC.yaml")
	text := fmt.Sprintf("product: camera\nversion: %d.0.0\nvariant: arm\ncomponents:\n  - {name: app, kind: files, from: %q}\n", i, h.tree)
	require.NoError(h.m.t, os.WriteFile(spec, []byte(text), 0o644))
	h.m.publisher("release", "-repo", h.m.repo, "-keys", h.m.keys, "-deltas", "2", "-full", "0", spec)
}

func (h *history) file(j, i int) {
	content := fmt.Sprintf("file %d of release %d\n%s", j, i, noise(40_000)[j*500:])
	write(h.m.t, h.tree, fmt.Sprint("share/", j), content, 0o644)
}

// newestTable reads where the content of the newest release lies.
func newestTable(t *testing.T, repo string) (*release.Table, *release.Locator) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(repo, "targets", "locators", "camera", "arm", "*"))
	require.NoError(t, err)
	var newest *release.Locator
	for _, name := range names {
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		l, err := release.ParseLocator(data)
		require.NoError(t, err)
		if newest == nil || l.Seq > newest.Seq {
			newest = l
		}
	}
	require.NotNil(t, newest)
	stored, err := os.ReadFile(filepath.Join(repo, release.TableName(newest.Table.Digest)))
	require.NoError(t, err)
	table, err := release.ParseTable(stored, newest)
	require.NoError(t, err)
	return table, newest
}

// longestIndex returns what the index takes at most, whole or as a patch.
func longestIndex(t *testing.T, table *release.Table, l *release.Locator) int64 {
	t.Helper()
	require.NotEmpty(t, l.Patches)
	at, ok := table.Find(l.Patches[0].To)
	require.True(t, ok)
	longest := at.Length
	for _, p := range l.Patches {
		longest = max(longest, p.Length)
	}
	return longest
}

// lack is what the files of a tree need that those of another do not have.
type lack struct {
	bytes  int64 // stored
	pieces int
	packs  map[string]bool
	gaps   int64 // what lies between pieces that are fetched with one request
}

// mergeGap is what DESIGN.md allows between two pieces for a request less.
const mergeGap = 32 << 10

// lacking compares two trees with nothing of pawl but how files are cut.
func lacking(t *testing.T, table *release.Table, old, tree string) lack {
	t.Helper()
	have := map[release.PieceSum]bool{}
	if old != "" {
		cutAll(t, old, func(_ release.Blob, pieces []release.PieceSum) {
			for _, p := range pieces {
				have[p] = true
			}
		})
	}
	l := lack{packs: map[string]bool{}}
	var places []release.Place
	cutAll(t, tree, func(b release.Blob, _ []release.PieceSum) {
		pieces, ok := table.Pieces(b)
		require.True(t, ok)
		for _, p := range pieces {
			if !have[p.Sum] {
				have[p.Sum] = true
				l.bytes += p.Length
				l.pieces++
				l.packs[p.Pack] = true
				places = append(places, p.Place)
			}
		}
	})
	slices.SortFunc(places, func(a, b release.Place) int {
		return cmp.Or(cmp.Compare(a.Pack, b.Pack), cmp.Compare(a.Offset, b.Offset))
	})
	for i := range places[:max(0, len(places)-1)] {
		gap := places[i+1].Offset - places[i].Offset - places[i].Length
		if places[i].Pack == places[i+1].Pack && gap <= mergeGap {
			l.gaps += gap
		}
	}
	return l
}

// cutAll cuts the files of a tree into pieces.
func cutAll(t *testing.T, tree string, do func(release.Blob, []release.PieceSum)) {
	t.Helper()
	for _, name := range files(t, tree) {
		data, err := os.ReadFile(filepath.Join(tree, name))
		require.NoError(t, err)
		var sums []release.PieceSum
		if len(data) < chunk.Whole {
			sums = []release.PieceSum{release.SumPiece(data)}
		} else {
			cutter := chunk.NewCutter(bytes.NewReader(data))
			for {
				piece, err := cutter.Next()
				if err == io.EOF {
					break
				}
				require.NoError(t, err)
				sums = append(sums, release.SumPiece(piece))
			}
		}
		do(release.Blob{Digest: release.Sum(data), Size: int64(len(data))}, sums)
	}
}
