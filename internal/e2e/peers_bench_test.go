package e2e

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
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
// What was published is kept for the next run in the folder that PAWL_PUBLISHED
// names, where there is one; `-bench Pairs/t2` runs one pair, and -benchtime 3x gives
// medians of three. What they write is compared with hard links and the changed files alone. The
// disk's own counter says something on a quiet machine only.
func BenchmarkPairs(b *testing.B) {
	for _, path := range pairsOf(b) {
		b.Run(filepath.Base(filepath.Dir(path)), func(b *testing.B) {
			p := pair{resolve(b, filepath.Join(filepath.Dir(path), "old")), resolve(b, path)}
			b.Run("pawl", func(b *testing.B) { report(b, p, pawlRuns(b, p, b.N, quick)) })
			b.Run("ostree", func(b *testing.B) { report(b, p, ostreeRuns(b, p, b.N, quick, deltaFile())) })
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
type pair struct{ old, new string }

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
	b.ReportMetric(median(func(r run) float64 { return float64(r.Data) / changed }), "data/changed")
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

func pawlRuns(b *testing.B, p pair, n int, by line) []run {
	var made published
	dir := made.keep(b, p, "pawl", func(dir string) {
		m := &maker{t: b, dir: dir, repo: filepath.Join(dir, "repo"), keys: filepath.Join(dir, "keys")}
		m.publisher("init", "-repo", m.repo, "-keys", m.keys, "-product", "camera")
		m.release("1.0.0", p.old)
		cloneTree(b, m.repo, filepath.Join(dir, "first"))
		var by run
		measured(b, &by, m.publish(b, "1.1.0", p.new))
		made = published{by.took, by.usage}
	})
	m := &maker{t: b, repo: filepath.Join(b.TempDir(), "repo")}
	require.NoError(b, os.Symlink(filepath.Join(dir, "first"), m.repo))
	m.serve()
	slow := by(m)
	devices := make([]*device, n)
	for i := range devices {
		devices[i] = newDevice(b, m, freshDir(b))
		devices[i].config["trial"] = map[string]any{"soak": "0s", "interval": "20ms", "timeout": "2s", "deadline": "3s"}
		devices[i].save()
		devices[i].must(0, "update")
	}
	require.NoError(b, os.Remove(m.repo))
	require.NoError(b, os.Symlink(filepath.Join(dir, "repo"), m.repo))
	slow(true)
	b.ResetTimer()
	runs := make([]run, n)
	for i, d := range devices {
		syscall.Sync()
		m.sent.Store(0)
		m.requests.Store(0)
		measured(b, &runs[i], d.command(b.Context(), "update"))
		runs[i].fetched, runs[i].requests = m.sent.Load(), m.requests.Load()
		runs[i].published, runs[i].publisher = made.Took, made.Usage
		slow(false)
		d.holds(p.new)
		slow(true)
	}
	return runs
}

// ostreeWay is how a device gets OSTree's static delta, with bsdiff for every size.
type ostreeWay struct {
	name     string
	publish  []string // arguments of static-delta generate; REPO stands for the repository
	finished []string // the command after it
	fetch    string   // what the device runs; URL stands for the server
}

// deltaFile is one file whose address the device knows: it looks for nothing, and
// verifies no signature.
func deltaFile() ostreeWay {
	return ostreeWay{
		name: "ostree", publish: []string{"--filename=REPO/delta"},
		fetch: "curl -sf URL/delta -o delta\nostree --repo=repo static-delta apply-offline delta\nrm delta",
	}
}

// pulled is what OSTree's own client does, without signatures.
func pulled() ostreeWay {
	return ostreeWay{name: "ostree-pull", finished: []string{"summary", "-u"}, fetch: "ostree --repo=repo pull --require-static-deltas origin app"}
}

// ostreeRuns fetches the static delta, applies it, checks out by hard links, syncs
// and switches.
func ostreeRuns(b *testing.B, p pair, n int, by line, way ostreeWay) []run {
	tree := func(args ...string) string {
		b.Helper()
		out, err := exec.Command("ostree", args...).CombinedOutput()
		require.NoError(b, err, "ostree %v: %s", args, out)
		return strings.TrimSpace(string(out))
	}
	var made published
	m := &maker{t: b}
	m.repo = made.keep(b, p, way.name, func(dir string) {
		tree("--repo="+dir, "init", "--mode=archive")
		tree("--repo="+dir, "commit", "--branch=app", "--tree=dir="+p.old)
		begin := time.Now()
		tree("--repo="+dir, "commit", "--branch=app", "--tree=dir="+p.new)
		generate := []string{"--repo=" + dir, "static-delta", "generate", "--inline", "--min-fallback-size=0", "--max-bsdiff-size=1000", "app"}
		for _, arg := range way.publish {
			generate = append(generate, strings.ReplaceAll(arg, "REPO", dir))
		}
		tree(generate...)
		if way.finished != nil {
			tree(append([]string{"--repo=" + dir}, way.finished...)...)
		}
		made.Took = time.Since(begin)
	})
	old, head := tree("--repo="+m.repo, "rev-parse", "app^"), tree("--repo="+m.repo, "rev-parse", "app")
	m.serve()
	slow := by(m)
	dirs := make([]string, n)
	for i := range dirs {
		dirs[i] = freshDir(b)
		tree("--repo="+dirs[i]+"/repo", "init", "--mode=bare")
		tree("--repo="+dirs[i]+"/repo", "remote", "add", "--no-gpg-verify", "origin", m.url)
		tree("--repo="+dirs[i]+"/repo", "pull-local", "--remote=origin", m.repo, old)
		tree("--repo="+dirs[i]+"/repo", "refs", "--create=origin:app", old)
		tree("--repo="+dirs[i]+"/repo", "checkout", "-H", old, dirs[i]+"/app")
	}
	slow(true)
	b.ResetTimer()
	runs := make([]run, n)
	for i, dir := range dirs {
		syscall.Sync()
		m.sent.Store(0)
		m.requests.Store(0)
		measured(b, &runs[i], exec.Command("sh", "-ec", strings.NewReplacer("DIR", dir, "URL", m.url, "HEAD", head).Replace(`cd DIR
`+way.fetch+`
ostree --repo=repo checkout -H HEAD next
sync -f .
mv app before
mv next app
sync -f .`)))
		runs[i].fetched, runs[i].requests, runs[i].published = m.sent.Load(), m.requests.Load(), made.Took
		requireSame(b, pictureOf(b, p.new), pictureOf(b, dir+"/app"))
	}
	return runs
}

// wholeRuns is the floor: everything in one file, fetched, unpacked, synced and
// switched.
func wholeRuns(b *testing.B, p pair, n int, by line) []run {
	var made published
	m := &maker{t: b}
	m.repo = made.keep(b, p, "whole", func(dir string) {
		begin := time.Now()
		out, err := exec.Command("sh", "-ec", fmt.Sprintf("tar -C %q -c . | zstd -q -19 -T0 >%q/all.tar.zst", p.new, dir)).CombinedOutput()
		require.NoError(b, err, "%s", out)
		made.Took = time.Since(begin)
	})
	m.serve()
	by(m)(true)
	b.ResetTimer()
	runs := make([]run, n)
	for i := range runs {
		dir := freshDir(b)
		syscall.Sync()
		m.sent.Store(0)
		m.requests.Store(0)
		measured(b, &runs[i], exec.Command("sh", "-ec", fmt.Sprintf(`cd %q
mkdir app next
curl -sf %s/all.tar.zst | zstd -qd | tar -x -C next
sync -f .
mv app before
mv next app
sync -f .`, dir, m.url)))
		runs[i].fetched, runs[i].requests, runs[i].published = m.sent.Load(), m.requests.Load(), made.Took
		requireSame(b, pictureOf(b, p.new), pictureOf(b, dir+"/app"))
	}
	return runs
}
