//go:build linux

package publish

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/delta"
	"github.com/pawl-ota/pawl/ota/release"
)

// noise returns n bytes that nothing can be saved of.
func noise(seed byte, n int) string {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data)
	return string(data)
}

// edited returns s with a few bytes changed, the later ones moved.
func edited(s string, at ...int) string {
	for _, i := range at {
		s = s[:i] + "edited" + s[i+1:]
	}
	return s
}

// newest returns the newest release of default with its documents.
func (f *fixture) newest(t testing.TB) *listed {
	t.Helper()
	state, err := f.disk.load(nil, start)
	require.NoError(t, err)
	list, err := f.disk.listed(state)
	require.NoError(t, err)
	for _, l := range slices.Backward(list) {
		if l.Variant == "default" {
			return l
		}
	}
	t.Fatal("no release")
	return nil
}

// deltaOf returns what the delta of app from the release before, or from an
// earlier one, makes of what: "to path < from path".
func (f *fixture) deltaOf(t testing.TB, l *listed, from *listed) (list []string, groups int64) {
	t.Helper()
	c, _ := l.release.Component("app")
	old, _ := from.release.Component("app")
	d, ok := l.locator.Delta("app", c.Index.Digest, old.Index.Digest)
	if !ok {
		return nil, 0
	}
	to, err := f.disk.predecessor(l, c)
	require.NoError(t, err)
	was, err := f.disk.predecessor(from, old)
	require.NoError(t, err)
	data, err := os.ReadFile(f.disk.path(l.locator.Packs[d.Pack].Name))
	require.NoError(t, err)
	dir, err := release.ParseDelta(data[d.Offset:][:d.Length], d, len(was.blobs), len(to.blobs))
	require.NoError(t, err)
	for _, g := range dir.Groups {
		for _, p := range g.Patches {
			what := to.distinct()[p.To].path
			if p.From >= 0 {
				what += " < " + was.distinct()[p.From].path
			}
			list = append(list, what)
		}
	}
	slices.Sort(list)
	return list, d.Groups
}

// TestDeltas: what changed, moved, or is new is in the delta, with what it is
// made of.
func TestDeltas(t *testing.T) {
	f := newFixture(t)
	long := noise(1, 600_000)
	text := strings.Repeat("some text that is like itself\n", 400)
	one := tree{
		"bin/app": long, "same": noise(2, 5000), "gone": noise(3, 9000), "empty": "",
		"lib/1.2.3/a.so": noise(4, 8000), "lib/1.2.3/b.so": noise(5, 8000), "lib/1.2.3/index": noise(6, 3000),
		"etc/index": noise(7, 3000), "js/main-12ab34cd.js": noise(8, 7000), "js/side-ab12ab12.js": noise(9, 7000),
		"moved/content": noise(10, 30_000), "libx.so.1.0": noise(11, 4000), "junk": noise(12, 1<<20),
	}
	_, err := f.Release(t.Context(), spec("1", one.write(t)))
	require.NoError(t, err)
	first := f.newest(t)
	two := tree{
		"bin/app": edited(long, 599_000, 599_200), "same": one["same"], "empty": "", "empty2": "", "new": text, "new2": text + "x",
		"lib/1.2.4/a.so": edited(one["lib/1.2.3/a.so"], 7_900), "lib/1.2.4/b.so": one["lib/1.2.3/b.so"],
		"lib/1.2.4/index": edited(one["lib/1.2.3/index"], 2_900), "etc/index": edited(one["etc/index"], 2_900),
		"js/main-ffff0000.js": edited(one["js/main-12ab34cd.js"], 6_900), "js/side-0123abcd.js": edited(one["js/side-ab12ab12.js"], 6_900),
		"elsewhere/under another name": edited(one["moved/content"], 15_000, 29_000), "libx.so.1.1": edited(one["libx.so.1.0"], 3_900),
		"junk": noise(13, 1<<20), // a delta would be no smaller than the pieces
	}
	_, err = f.Release(t.Context(), spec("2", two.write(t)))
	require.NoError(t, err)
	second := f.newest(t)
	made, groups := f.deltaOf(t, second, first)
	require.Equal(t, []string{
		"bin/app < bin/app",
		"elsewhere/under another name < moved/content",
		"etc/index < etc/index",
		"js/main-ffff0000.js < js/main-12ab34cd.js",
		"js/side-0123abcd.js < js/side-ab12ab12.js",
		"lib/1.2.4/a.so < lib/1.2.3/a.so",
		"lib/1.2.4/index < lib/1.2.3/index",
		"libx.so.1.1 < libx.so.1.0",
		"new", "new2",
	}, made)
	t.Logf("%d bytes", groups)
	f.good(t)

	// One more: the deltas come from both.
	two["bin/app"] = edited(two["bin/app"], 599_500)
	block, long12 := noise(14, 100_000), ""
	for i := range 12 {
		long12 += edited(block, 5_000+i, 35_000+i, 65_000+i, 95_000+i)
	}
	two["like itself"] = long12 // a group of its own, the same for both
	_, err = f.Release(t.Context(), spec("3", two.write(t)))
	require.NoError(t, err)
	third := f.newest(t)
	made, _ = f.deltaOf(t, third, second)
	require.Equal(t, []string{"bin/app < bin/app", "like itself"}, made)
	made, _ = f.deltaOf(t, third, first)
	require.Len(t, made, 11)
	c, _ := second.release.Component("app")
	patch, ok := third.locator.Patch(third.locator.Deltas[0].To, func(d release.Digest) bool { return d == c.Index.Digest })
	require.True(t, ok)
	d := third.locator.Deltas[0]
	require.Equal(t, patch.Offset+patch.Length, d.Offset, "one request brings all that a device on the last release needs")
	require.Equal(t, d.Offset+d.Length, d.Start)
	f.good(t)
}

// TestDeltasOfHowMany: Options say from how many releases, and where nothing is
// gained there is none.
func TestDeltasOfHowMany(t *testing.T) {
	for n, want := range map[int]int{0: 3, -1: 0, 1: 1, 5: 4} {
		f := newFixture(t)
		f.opts.Deltas = defaulted(n, 3)
		file := noise(1, 300_000)
		for i := range 5 {
			_, err := f.Release(t.Context(), spec("1", tree{"file": edited(file, 290_000+1000*i)}.write(t)))
			require.NoError(t, err)
		}
		l := f.newest(t)
		require.Len(t, l.locator.Deltas, want)
		f.good(t)
	}
	f := newFixture(t)
	for i := range 2 {
		_, err := f.Release(t.Context(), spec("1", tree{"file": noise(byte(i), 300_000), "other": "same"}.write(t)))
		require.NoError(t, err)
	}
	require.Empty(t, f.newest(t).locator.Deltas, "nothing in common")
	_, err := f.Release(t.Context(), spec("1", tree{"file": noise(1, 300_000)}.write(t)))
	require.NoError(t, err)
	require.Empty(t, f.newest(t).locator.Deltas, "nothing new")
}

// TestPieces: a long file is cut, and what did not change in it is not stored
// again.
func TestPieces(t *testing.T) {
	f := newFixture(t)
	file := noise(1, 3<<20)
	_, err := f.Release(t.Context(), spec("1", tree{"file": file, "small": noise(2, 100_000)}.write(t)))
	require.NoError(t, err)
	f.opts.Deltas = 0
	changed := edited(file, 1<<20)
	a, err := f.Release(t.Context(), spec("2", tree{"file": changed, "half": file[:1<<20], "small": noise(2, 100_000)}.write(t)))
	require.NoError(t, err)
	require.Equal(t, 2, a.NewBlobs)
	require.Less(t, a.Stored, int64(3*256<<10))
	l := f.newest(t)
	table, err := f.disk.table(l.locator)
	require.NoError(t, err)
	b := blobOf([]byte(changed))
	_, ok := table.Find(b)
	require.False(t, ok)
	pieces, ok := table.Pieces(b)
	require.True(t, ok)
	packs := map[string]int{}
	for _, p := range pieces {
		packs[p.Pack]++
	}
	require.Len(t, packs, 2)
	require.Less(t, packs[l.locator.Packs[1].Name], 3)
	data, err := f.disk.readBlob(b, table)
	require.NoError(t, err)
	require.True(t, string(data) == changed)
	f.good(t)
}

// TestFullPacks: every so many releases one holds everything, and later ones
// build on it.
func TestFullPacks(t *testing.T) {
	f := newFixture(t)
	f.opts.Full = 4
	tr := tree{"file": noise(1, 400_000), "run.sh": "#!/bin/sh"}
	var packs []int
	for i := range 10 {
		tr[fmt.Sprint("new", i)] = noise(byte(i+2), 500)
		_, err := f.Release(t.Context(), spec("1", tr.write(t)))
		require.NoError(t, err)
		packs = append(packs, len(f.newest(t).locator.Packs))
	}
	require.Equal(t, []int{1, 2, 3, 4, 1, 2, 3, 4, 1, 2}, packs)
	f.good(t)
}

// TestDeterministicDeltas publishes two releases twice, with one core and with
// some.
func TestDeterministicDeltas(t *testing.T) {
	var want []string
	file := noise(1, 2<<20)
	one, two := many(40, "one"), many(41, "two")
	one["file"], two["file"] = file, edited(file, 1<<20, 2<<20-500)
	one["second"], two["second"], two["third"] = noise(2, 500_000), noise(3, 500_000), noise(4, 500_000)
	one["moved from"], two["moved to"] = file[:50_000], edited(file[:50_000], 49_000)
	for _, cores := range []int{1, 4, 4} {
		withCores(t, cores)
		f := newFixture(t)
		for _, tr := range []tree{one, two} {
			_, err := f.Release(t.Context(), spec("1", tr.write(t)))
			require.NoError(t, err)
		}
		require.NotEmpty(t, f.newest(t).locator.Deltas)
		names := contents(t, f.dir)
		if want == nil {
			want = names
		}
		require.Equal(t, want, names)
	}
}

// TestKindOfGroups: a group is a quick one where a device gains more by that than
// the further bytes cost, and is short else.
func TestKindOfGroups(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	old := []byte(noise(1, 400_000))
	chance, row := bytes.Clone(old), bytes.Clone(old)
	for i, d := 100, 0; i < len(old); i += 10 + 7*rnd.IntN(2) { // as in a program, of which a part moved
		d = (5*d + 3) % 16
		chance[i] += byte(1 + rnd.IntN(16))
		row[i] += byte(1 + d) // the one before tells it, which a quick group does not look at
	}
	for kind, new := range map[byte][]byte{1: row, 2: chance} {
		f := newFixture(t)
		for _, data := range [][]byte{old, new} {
			_, err := f.Release(t.Context(), spec("1", tree{"file": string(data)}.write(t)))
			require.NoError(t, err)
		}
		l := f.newest(t)
		d := l.locator.Deltas[0]
		pack, err := os.ReadFile(f.disk.path(l.locator.Packs[d.Pack].Name))
		require.NoError(t, err)
		require.Equal(t, kind, pack[d.Start], "%d bytes", d.Groups)
	}
}

// TestDamagedDeltaIsFound changes what a delta is stored as, byte by byte, in a
// repository whose pack and locator say that this is what was signed.
func TestDamagedDeltaIsFound(t *testing.T) {
	f := newFixture(t)
	file := noise(1, 300_000)
	for i := range 2 {
		_, err := f.Release(t.Context(), spec("1", tree{"file": edited(file, 290_000+1000*i), "b": noise(byte(i), 2000)}.write(t)))
		require.NoError(t, err)
	}
	l := f.newest(t)
	d := l.locator.Deltas[0]
	data, err := os.ReadFile(f.disk.path(l.locator.Packs[d.Pack].Name))
	require.NoError(t, err)
	look := func(change func(pack []byte, loc *release.Locator)) error {
		pack, loc := bytes.Clone(data), *l.locator
		loc.Packs, loc.Deltas = slices.Clone(loc.Packs), slices.Clone(loc.Deltas)
		change(pack, &loc)
		name := release.PackName(release.Sum(pack))
		require.NoError(t, os.MkdirAll(filepath.Dir(f.disk.path(name)), 0o755))
		require.NoError(t, os.WriteFile(f.disk.path(name), pack, 0o644))
		loc.Packs[d.Pack].Name = name
		v := &verifying{ctx: t.Context(), r: f.Repository, used: map[string]bool{}, good: map[release.Digest]bool{},
			seen: map[release.Digest]bool{}, indexes: map[release.Digest]indexOf{}}
		state, err := f.disk.load(nil, start)
		require.NoError(t, err)
		list, err := f.disk.listed(state)
		require.NoError(t, err)
		require.NoError(t, v.release(list[0]))
		return v.release(&listed{target: l.target, release: l.release, locator: &loc, digest: l.digest})
	}
	require.NoError(t, look(func([]byte, *release.Locator) {}))
	// The last bytes of a group say nothing that has not been said.
	for i := int64(0); i < d.Groups-8; i += max(1, d.Groups/40) {
		require.Error(t, look(func(pack []byte, _ *release.Locator) { pack[d.Start+i] ^= 1 }), "byte %d of %d", i, d.Groups)
	}
	require.Error(t, look(func(pack []byte, _ *release.Locator) { pack[d.Offset+d.Length-1] ^= 1 }))
	require.Error(t, look(func(_ []byte, loc *release.Locator) { loc.Deltas[0].To = release.Sum(nil) }))
	require.Error(t, look(func(_ []byte, loc *release.Locator) { loc.Deltas[0].Start++; loc.Deltas[0].Groups-- }))
}

// TestApplyGroup: what a group makes is compared with what it is for.
func TestApplyGroup(t *testing.T) {
	one, two := []byte(noise(1, 1000)), []byte(noise(2, 1000))
	var stored bytes.Buffer
	w := delta.NewWriter(&stored)
	for range 2 {
		p, err := delta.Find(t.Context(), nil, bytes.NewReader(one))
		require.NoError(t, err)
		require.NoError(t, w.Add(p))
	}
	require.NoError(t, w.Close())
	apply := func(blobs ...release.Blob) error {
		return applyGroup(bytes.NewReader(stored.Bytes()), len(blobs), func(i int) (io.ReaderAt, int64, release.Blob) { return nil, 0, blobs[i] })
	}
	good := blobOf(one)
	require.NoError(t, apply(good, good))
	require.ErrorIs(t, apply(good, blobOf(two)), errBlob)
	require.Error(t, apply(good), "one too many")
	require.Error(t, apply(good, good, good), "one too few")
	require.Error(t, apply(good, release.Blob{Digest: good.Digest, Size: 999}))
}

// TestChangeWhilePublishing: a file that is another one when the deltas are made
// is noticed.
func TestChangeWhilePublishing(t *testing.T) {
	withCores(t, 1) // the groups are made one after the other
	f := newFixture(t)
	file := noise(1, 300_000)
	_, err := f.Release(t.Context(), spec("1", tree{"file": file}.write(t)))
	require.NoError(t, err)
	for _, step := range []string{"scan", "pack", "delta"} {
		dir := tree{"file": edited(file, 7), "other": noise(3, 1<<20+1), "z": noise(4, 3000)}.write(t)
		f.opts.Progress = func(p Progress) {
			if p.Step == step && (step != "scan" || p.Done > 300_000) {
				require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte(file), 0o644))
				require.NoError(t, os.WriteFile(filepath.Join(dir, "z"), []byte("z"), 0o644))
			}
		}
		_, err = f.Release(t.Context(), spec("2", dir))
		require.ErrorIs(t, err, ErrChanged, step)
		f.good(t)
	}
}

func TestReleaseEndsEarly(t *testing.T) {
	f := newFixture(t)
	file := noise(1, 2<<20)
	_, err := f.Release(t.Context(), spec("1", tree{"file": file}.write(t)))
	require.NoError(t, err)
	dir := tree{"file": edited(file, 7), "b": noise(2, 2<<20)}.write(t)
	for _, step := range []string{"scan", "pack", "delta", "sign"} {
		ctx, cancel := context.WithCancel(t.Context())
		f.opts.Progress = func(p Progress) {
			if p.Step == step {
				cancel()
			}
		}
		_, err = f.Release(ctx, spec("2", dir))
		if step != "sign" {
			require.ErrorIs(t, err, context.Canceled, step)
		}
	}
	f.opts.Progress = func(Progress) {}
	f.good(t)
	names, err := filepath.Glob(filepath.Join(f.dir, "content", tempPrefix+"*"))
	require.NoError(t, err)
	require.Empty(t, names)
}

// withCores has the rest of the test use n cores.
func withCores(t *testing.T, n int) {
	old := runtime.GOMAXPROCS(n)
	t.Cleanup(func() { runtime.GOMAXPROCS(old) })
}

// TestBudget: no more is in use than there is, but for one that takes more by
// itself.
func TestBudget(t *testing.T) {
	b := newBudget(10)
	ctx, cancel := context.WithCancel(t.Context())
	require.NoError(t, b.take(ctx, 4))
	require.NoError(t, b.take(ctx, 6))
	got := make(chan error)
	go func() { got <- b.take(ctx, 100) }()
	b.give(4)
	select {
	case <-got:
		t.Fatal("taken while some is in use")
	default:
	}
	b.give(6)
	require.NoError(t, <-got)
	go func() { got <- b.take(ctx, 1) }()
	cancel()
	require.ErrorIs(t, <-got, context.Canceled)
	b.give(100)
	require.NoError(t, b.take(t.Context(), 10))
}

func TestShape(t *testing.T) {
	for a, b := range map[string]string{
		"lib/libx.so.1.2.3":           "lib/libx.so.10.0.4",
		"js/main-0123abcd.js":         "js/main-fedc9876.js",
		"boot/vmlinuz-6.1.0-50-amd64": "boot/vmlinuz-6.1.0-56-amd64",
		"cafe/face":                   "cafe/face",
	} {
		require.Equal(t, shapeOf(a), shapeOf(b))
	}
	require.NotEqual(t, shapeOf("facade"), shapeOf("decade"), "words are no digests")
}

func TestSketch(t *testing.T) {
	of := func(s string) []uint64 {
		got, err := sketch(inSteps(s))
		require.NoError(t, err)
		return got
	}
	a := noise(1, 100_000)
	by := map[uint64][]int{}
	for i, s := range []string{noise(2, 100_000), edited(a, 3, 50_000), a[:30_000]} {
		for _, v := range of(s) {
			by[v] = append(by[v], i)
		}
	}
	require.Equal(t, 1, mostAlike(by, of(a)))
	require.Equal(t, 2, mostAlike(by, of(a[:31_000])))
	require.Equal(t, -1, mostAlike(by, of(noise(4, 100_000))))
	require.Equal(t, -1, mostAlike(by, of("")))
}

// inSteps reads s in small and in large steps.
func inSteps(s string) io.Reader {
	return io.MultiReader(strings.NewReader(s[:min(len(s), 7)]), strings.NewReader(s[min(len(s), 7):]))
}
