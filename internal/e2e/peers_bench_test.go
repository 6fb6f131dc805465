package e2e

import (
	"cmp"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/testneeds"
)

// pairsFolder names the environment variable with the folder of real pairs:
// in it one folder a pair, each with the trees old and new. `make pairs`
// makes it.
const pairsFolder = "PAWL_PAIRS"

// BenchmarkPairs updates real trees from one version to the next, beside OSTree
// with its static delta and beside everything fetched and unpacked. All of
// them fetch from the same kind of plain file server on loopback, over HTTP,
// listings and metadata counted in, and end synced and switched.
//
// What they write is compared with hard links and the changed files alone. The
// disk's own counter says something on a quiet machine only.
func BenchmarkPairs(b *testing.B) {
	for _, path := range pairsOf(b) {
		b.Run(filepath.Base(filepath.Dir(path)), func(b *testing.B) {
			p := pairAt(b, path)
			b.Run("pawl", func(b *testing.B) { report(b, p, pawlRuns(b, p, b.N, quick)) })
			b.Run("ostree", func(b *testing.B) { report(b, p, ostreeRuns(b, p, b.N, quick)) })
			b.Run("whole", func(b *testing.B) { report(b, p, wholeRuns(b, p, b.N, quick)) })
			b.Run("links", func(b *testing.B) { report(b, p, linkRuns(b, p, b.N)) })
		})
	}
}

// pairsOf returns the folders new of the pairs.
func pairsOf(b *testing.B) []string {
	b.Helper()
	root := os.Getenv(pairsFolder)
	if root == "" {
		testneeds.Missing(b, pairsFolder+": a folder of real pairs (make pairs)")
	}
	for _, name := range []string{"curl", "tar", "zstd", "ostree"} {
		testneeds.Program(b, name)
	}
	list, err := filepath.Glob(filepath.Join(root, "*", "new"))
	require.NoError(b, err)
	require.NotEmpty(b, list)
	return list
}

func resolve(b *testing.B, path string) string {
	b.Helper()
	path, err := filepath.EvalSymlinks(path)
	require.NoError(b, err)
	return path
}

// pair is two versions of one tree.
type pair struct{ name, old, new string }

func pairAt(b *testing.B, path string) pair {
	dir := filepath.Dir(path)
	return pair{filepath.Base(dir), resolve(b, filepath.Join(dir, "old")), resolve(b, path)}
}

// run is one update.
type run struct {
	fetched, requests int64
	took              time.Duration
	usage
	disk      int64 // bytes that the disk says were written to it, by anybody
	publisher usage
	published time.Duration
}

// report gives the medians.
func report(b *testing.B, p pair, runs []run) {
	b.Helper()
	median := func(of func(run) float64) float64 {
		slices.SortFunc(runs, func(x, y run) int { return cmp.Compare(of(x), of(y)) })
		return of(runs[len(runs)/2])
	}
	changed := float64(changedBytes(b, p))
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(func(r run) float64 { return float64(r.fetched) }), "fetched-B")
	b.ReportMetric(median(func(r run) float64 { return float64(r.requests) }), "requests")
	b.ReportMetric(median(func(r run) float64 { return r.took.Seconds() }), "s")
	b.ReportMetric(median(func(r run) float64 { return r.CPU.Seconds() }), "s-cpu")
	b.ReportMetric(median(func(r run) float64 { return float64(r.Peak) / (1 << 20) }), "MiB-peak")
	b.ReportMetric(median(func(r run) float64 { return float64(r.Written) / (1 << 20) }), "MiB-written")
	b.ReportMetric(median(func(r run) float64 { return float64(r.disk) / (1 << 20) }), "MiB-disk")
	b.ReportMetric(median(func(r run) float64 { return float64(r.Written) / changed }), "written/changed")
	b.ReportMetric(median(func(r run) float64 { return r.published.Seconds() }), "s-publish")
	b.ReportMetric(median(func(r run) float64 { return float64(r.publisher.Peak) / (1 << 20) }), "MiB-publisher")
}

// changedBytes is what the files weigh that are new or other ones in p.new.
func changedBytes(b *testing.B, p pair) (n int64) {
	b.Helper()
	require.NoError(b, filepath.WalkDir(p.new, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(p.new, path)
		if err != nil {
			return err
		}
		if !sameFile(path, filepath.Join(p.old, rel)) {
			info, err := d.Info()
			if err != nil {
				return err
			}
			n += info.Size()
		}
		return nil
	}))
	return max(n, 1)
}

func sameFile(a, b string) bool { return exec.Command("cmp", "-s", a, b).Run() == nil }
