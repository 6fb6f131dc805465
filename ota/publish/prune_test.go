//go:build linux

package publish

import (
	"context"
	"crypto"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

// stored returns the bytes of all files of the repository.
func (f *fixture) stored(t testing.TB) (n int64) {
	require.NoError(t, filepath.WalkDir(f.dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			info, err := e.Info()
			require.NoError(t, err)
			n += info.Size()
		}
		return err
	}))
	return n
}

// live returns the bytes that the listed releases need: each piece once, patches,
// the deltas to the newest three, tables, documents and the metadata that counts.
func (f *fixture) live(t testing.TB) (n int64) {
	state, err := f.disk.load(nil, time.Time{})
	require.NoError(t, err)
	list, err := f.disk.listed(state)
	require.NoError(t, err)
	seen := map[string]bool{}
	once := func(what string, size int64) {
		if !seen[what] {
			seen[what] = true
			n += size
		}
	}
	for i, l := range list {
		table, err := f.disk.table(l.locator)
		require.NoError(t, err)
		once(l.locator.Table.Digest.String(), l.locator.Table.Size)
		take := func(b release.Blob) {
			pieces, ok := table.Pieces(b)
			require.True(t, ok)
			for _, p := range pieces {
				once(fmt.Sprint(p.Sum), p.Length)
			}
		}
		for _, c := range l.release.Components {
			p, err := f.disk.predecessor(l, c)
			require.NoError(t, err)
			take(c.Index)
			for _, b := range p.blobs {
				take(b)
			}
		}
		for _, p := range l.locator.Patches {
			n += p.Length
		}
		for _, d := range l.locator.Deltas {
			if i >= len(list)-3 {
				n += d.Length + d.Groups
			}
		}
	}
	used, err := f.disk.references(state)
	require.NoError(t, err)
	for name := range used {
		if !strings.HasPrefix(name, "content/") {
			n += f.disk.size(name)
		}
	}
	return n
}

// TestTwoHundredReleases publishes and prunes for long: the repository stays
// within one and a half times of what is needed, and is whole.
func TestTwoHundredReleases(t *testing.T) {
	count := 200
	if testing.Short() {
		count = 30
	}
	for name, keep := range map[string]int{"all are kept": 0, "ten are kept": 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			count := count
			if keep == 0 && os.Getenv("PAWL_CRASH") != "long" {
				count = min(count, 60) // each reads all of them
			}
			f := newFixture(t)
			tr := tree{"bin/app": noise(1, 200_000), "share/data": noise(2, 300_000)}
			for i := range 40 {
				tr[fmt.Sprint("etc/", i)] = noise(byte(i), 2000+100*i)
			}
			dir := tr.write(t)
			most := 0.0
			for i := range count {
				n := byte(i)
				tr["bin/app"] = edited(tr["bin/app"][:200_000], 700*i%200_000)
				tr[fmt.Sprint("etc/", i%40)] = noise(n+41, 3000)
				for _, path := range []string{"bin/app", fmt.Sprint("etc/", i%40)} {
					require.NoError(t, os.WriteFile(filepath.Join(dir, path), []byte(tr[path]), 0o644))
				}
				f.now = f.now.Add(time.Hour)
				_, err := f.Release(t.Context(), spec(fmt.Sprint(i), dir))
				require.NoError(t, err)
				if i%10 != 9 {
					continue
				}
				before := f.stored(t)
				p, err := f.Prune(t.Context(), PruneOptions{Keep: keep, Grace: -1})
				require.NoError(t, err)
				ratio := float64(f.stored(t)) / float64(f.live(t))
				most = max(most, ratio)
				t.Logf("release %d: %d kB, pruned %d kB, %.3f of what is live; %d packs rewritten, %d releases dropped, %d deltas lost, %d files removed",
					i+1, before/1000, f.stored(t)/1000, ratio, len(p.Rewritten), len(p.Dropped), len(p.Lost), len(p.Removed))
				require.Less(t, ratio, 1.5)
			}
			v, err := f.Verify(t.Context(), nil)
			require.NoError(t, err)
			require.Empty(t, v.Unused)
			if keep == 0 {
				require.Equal(t, count, v.Releases)
			}
			require.EqualValues(t, count, f.newDevice(t).seq(t, "default"))
			require.NotEmpty(t, f.newest(t).locator.Deltas)
		})
	}
}

// TestPruneRests: what nothing refers to stays for a while, from when it was
// found.
func TestPruneRests(t *testing.T) {
	f := newFixture(t)
	for i := range 4 {
		_, err := f.Release(t.Context(), spec("1", tree{"file": noise(byte(i), 50_000), "same": noise(9, 20_000)}.write(t)))
		require.NoError(t, err)
	}
	first := f.dropAll(t)
	require.Len(t, first.Dropped, 3)
	require.Len(t, first.Rewritten, 1, "the first, for what did not change")
	require.Empty(t, first.Removed)
	require.Contains(t, first.Resting, first.Rewritten[0])
	f.verifies(t)
	f.now = f.now.Add(13 * day)
	second := f.dropAll(t)
	require.Empty(t, second.Removed)
	require.Empty(t, second.Rewritten, "nothing is left to do")
	f.now = f.now.Add(day)
	third := f.dropAll(t)
	require.ElementsMatch(t, first.Resting, third.Removed)
	require.Equal(t, first.RestingSize, third.Freed)
	v, err := f.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, v.Unused)
	require.EqualValues(t, 4, f.newDevice(t).seq(t, "default"))
	_, err = os.Stat(f.disk.path(unusedName))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.EqualValues(t, 5, f.mustAdd(t, "default"), "a seq is never given twice")

	// A clock that was ahead once, and a note that is damaged.
	f.now = f.now.Add(100 * day)
	f.dropAll(t)
	f.now = start.Add(15 * day)
	require.NotEmpty(t, f.dropAll(t).Resting)
	require.NoError(t, os.WriteFile(f.disk.path(unusedName), []byte("{"), 0o644))
	require.NotEmpty(t, f.dropAll(t).Resting)
}

func (f *fixture) dropAll(t testing.TB) Pruned {
	t.Helper()
	p, err := f.Prune(t.Context(), PruneOptions{Keep: 1})
	require.NoError(t, err)
	return p
}

// verifies is good, with files that nothing uses allowed.
func (f *fixture) verifies(t testing.TB) {
	t.Helper()
	_, err := f.Verify(t.Context(), nil)
	require.NoError(t, err)
}

// TestPruneSaysWhatIsLost: deltas to other releases than the newest go with the
// pack that they are in.
func TestPruneSaysWhatIsLost(t *testing.T) {
	f := newFixture(t)
	base := noise(7, 600_000)
	for i := range 5 {
		tr := tree{"file": edited(base, 590_000+1000*i), "big": noise(byte(i), 200_000)}
		_, err := f.Release(t.Context(), spec("1", tr.write(t)))
		require.NoError(t, err)
	}
	require.NoError(t, f.Drop(t.Context(), "default", 1))
	p, err := f.Prune(t.Context(), PruneOptions{Deltas: 1})
	require.NoError(t, err)
	require.NotEmpty(t, p.Rewritten)
	t.Logf("%+v", p.Lost)
	for _, l := range p.Lost {
		require.Less(t, l.Seq, uint64(5))
		require.Equal(t, "app", l.Component)
	}
	require.Len(t, f.newest(t).locator.Deltas, 3)
	f.verifies(t)
}

// TestPruneSharesNothingItMayNotSign: what a role signs whose keys are not here
// stays where it is, and one whose keys are here moves.
func TestPruneSharesNothingItMayNotSign(t *testing.T) {
	f := newFixture(t)
	team := f.delegate(t, "team", "arm")
	for i := range 4 {
		for _, variant := range []string{"default", "arm"} {
			tr := tree{"same": noise(9, 20_000), "own": variant}
			if variant == "default" {
				tr["file"] = noise(byte(i), 50_000)
			}
			s := spec("1", tr.write(t))
			s.Variant = variant
			_, err := f.Release(t.Context(), s)
			require.NoError(t, err)
		}
	}
	delete(f.keys, "team")
	p, err := f.Prune(t.Context(), PruneOptions{Keep: 1, Grace: -1})
	require.NoError(t, err)
	require.Len(t, p.Dropped, 3)
	require.Empty(t, p.Rewritten, "arm needs some of it")
	f.verifies(t)
	f.keys["team"] = []crypto.Signer{team}
	p, err = f.Prune(t.Context(), PruneOptions{Variant: "default", Keep: 1, Grace: -1})
	require.NoError(t, err)
	require.Empty(t, p.Dropped)
	require.Len(t, p.Rewritten, 1)
	p, err = f.Prune(t.Context(), PruneOptions{Keep: 1, Grace: -1})
	require.NoError(t, err)
	require.Len(t, p.Dropped, 3)
	f.good(t)
	for _, variant := range []string{"default", "arm"} {
		require.EqualValues(t, 4, f.newDevice(t).seq(t, variant))
	}
}

// TestPruneWaits: what a change needs that waits for signatures is not removed.
func TestPruneWaits(t *testing.T) {
	f := newFixture(t)
	f.mustAdd(t, "default")
	targets := f.keys[Targets]
	f.keys[Targets] = nil
	f.opts.Wait = true
	_, err := f.Release(t.Context(), spec("2", tree{"file": noise(1, 300_000)}.write(t)))
	require.ErrorIs(t, err, ErrWaiting)
	f.opts.Wait = false
	p, err := f.Prune(t.Context(), PruneOptions{Keep: 1, Grace: -1})
	require.NoError(t, err)
	t.Log(p.Removed)
	f.keys[Targets] = targets
	_, err = f.Sign(t.Context())
	require.NoError(t, err)
	f.good(t)
	require.EqualValues(t, 2, f.newDevice(t).seq(t, "default"))

	// And a prune that waits itself.
	f.keys[Targets], f.opts.Wait = nil, true
	_, err = f.Prune(t.Context(), PruneOptions{Keep: 1, Grace: -1})
	require.ErrorIs(t, err, ErrWaiting)
	f.verifies(t)
	_, err = f.Prune(t.Context(), PruneOptions{Keep: 1, Grace: -1})
	require.ErrorIs(t, err, ErrBlocked)
	f.keys[Targets] = targets
	_, err = f.Sign(t.Context())
	require.NoError(t, err)
	_, err = f.Prune(t.Context(), PruneOptions{Grace: -1})
	require.NoError(t, err)
	f.good(t)
}

func TestPruneEndsEarly(t *testing.T) {
	f := newFixture(t)
	for i := range 3 {
		_, err := f.Release(t.Context(), spec("1", tree{"file": noise(byte(i), 50_000), "same": noise(9, 20_000)}.write(t)))
		require.NoError(t, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f.opts.Progress = func(p Progress) {
		if p.Step == "prune" {
			cancel()
		}
	}
	_, err := f.Prune(ctx, PruneOptions{Keep: 1, Grace: -1})
	require.ErrorIs(t, err, context.Canceled)
	f.good(t)
	_, err = (&fixture{dir: t.TempDir()}).reopened(t).Prune(t.Context(), PruneOptions{})
	require.ErrorIs(t, err, ErrNoRepository)
}

func (f *fixture) reopened(t testing.TB) *fixture {
	f.open(t, nil)
	return f
}

// TestPruneCutAnywhere cuts the power at each write of a prune that drops
// releases, rewrites packs and removes files: what it leaves is whole, and the
// next one finishes it.
func TestPruneCutAnywhere(t *testing.T) {
	base := newFixture(t)
	for i := range 4 {
		_, err := base.Release(t.Context(), spec("1", tree{"file": noise(byte(i), 50_000), "same": noise(9, 20_000)}.write(t)))
		require.NoError(t, err)
	}
	step := 1
	if testing.Short() {
		step = 4
	}
	prune := func(f *fixture) (Pruned, error) {
		return f.Prune(t.Context(), PruneOptions{Keep: 1, Grace: -1})
	}
	for n := 0; ; n += step {
		f := &fixture{dir: filepath.Join(t.TempDir(), "repo"), keys: base.keys, now: start}
		require.NoError(t, os.CopyFS(f.dir, os.DirFS(base.dir)))
		steps, where := 0, ""
		f.open(t, func(what string) error {
			if steps++; steps > n {
				if where == "" {
					where = what
				}
				return errPower
			}
			return nil
		})
		done, err := prune(f)
		if err == nil {
			require.Len(t, done.Rewritten, 1)
			t.Logf("%d cuts", n/step)
			require.Greater(t, n, 40)
			return
		}
		require.ErrorIs(t, err, errPower)
		f.open(t, nil)
		f.verifies(t)
		require.EqualValues(t, 4, f.newDevice(t).seq(t, "default"), where)
		_, err = prune(f)
		require.NoError(t, err, where)
		v, err := f.Verify(t.Context(), nil)
		require.NoError(t, err, where)
		require.Equal(t, 1, v.Releases, where)
		require.Empty(t, v.Unused, where)
		require.Less(t, float64(f.stored(t)), 1.5*float64(f.live(t)), where)
		require.EqualValues(t, 4, f.newDevice(t).seq(t, "default"), where)
	}
}
