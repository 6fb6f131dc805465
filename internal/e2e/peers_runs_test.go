package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// madeFolder names the environment variable with a folder that keeps what was
// published, for the next run of the benchmarks; else each process publishes
// once.
const madeFolder = "PAWL_MADE"

// made returns a folder with what do makes in it, and what that took, from an
// earlier run where there was one.
func (p pair) made(b *testing.B, by string, do func(dir string) run) (string, run) {
	b.Helper()
	dir := filepath.Join(cmp.Or(os.Getenv(madeFolder), built.dir), p.name, by)
	note := filepath.Join(dir, "made.json")
	var took struct {
		Took time.Duration
		Peak int64
	}
	data, err := os.ReadFile(note)
	if err != nil {
		require.NoError(b, os.RemoveAll(dir))
		require.NoError(b, os.MkdirAll(dir, 0o755))
		r := do(dir)
		took.Took, took.Peak = r.took, r.Peak
		data, err = json.Marshal(took)
		require.NoError(b, err)
		require.NoError(b, os.WriteFile(note, data, 0o644))
	}
	require.NoError(b, json.Unmarshal(data, &took))
	return dir, run{published: took.Took, publisher: usage{Peak: took.Peak}}
}

// counted runs an update and notes what its server sent.
func (m *maker) counted(b *testing.B, r *run, cmd *exec.Cmd) {
	b.Helper()
	syscall.Sync()
	m.sent.Store(0)
	m.requests.Store(0)
	measured(b, r, cmd)
	r.fetched, r.requests = m.sent.Load(), m.requests.Load()
}

func pawlRuns(b *testing.B, p pair, n int, by line) []run {
	dir, made := p.made(b, "pawl", func(dir string) (r run) {
		m := &maker{t: b, dir: dir, repo: filepath.Join(dir, "repo"), keys: filepath.Join(dir, "keys")}
		m.publisher("init", "-repo", m.repo, "-keys", m.keys, "-product", "camera")
		m.release("1.0.0", p.old)
		cloneTree(b, m.repo, filepath.Join(dir, "before"))
		measured(b, &r, m.publish(b, "1.1.0", p.new))
		return r
	})
	m := &maker{t: b, dir: b.TempDir()}
	m.repo = cloneTree(b, filepath.Join(dir, "before"), filepath.Join(m.dir, "repo"))
	m.serve()
	slow := by(m)
	devices := make([]*device, n)
	for i := range devices {
		devices[i] = newDevice(b, m, b.TempDir())
		devices[i].config["trial"] = map[string]any{"soak": "0s", "interval": "20ms", "timeout": "2s", "deadline": "3s"}
		devices[i].save()
		devices[i].must(0, "update")
	}
	require.NoError(b, os.RemoveAll(m.repo))
	cloneTree(b, filepath.Join(dir, "repo"), m.repo)
	b.ResetTimer()
	runs := make([]run, n)
	for i, d := range devices {
		runs[i] = made
		slow(true)
		m.counted(b, &runs[i], d.command(b.Context(), "update"))
		slow(false)
		d.holds(p.new)
	}
	return runs
}

// ostreeRuns fetches the static delta (one file, with bsdiff for every size),
// applies it, checks out by hard links, syncs and switches.
func ostreeRuns(b *testing.B, p pair, n int, by line) []run {
	tree := func(args ...string) string {
		b.Helper()
		out, err := exec.Command("ostree", args...).CombinedOutput()
		require.NoError(b, err, "ostree %v: %s", args, out)
		return string(out)
	}
	made, took := p.made(b, "ostree", func(dir string) (r run) {
		repo, device := dir+"/srv", dir+"/device"
		tree("--repo="+repo, "init", "--mode=archive")
		tree("--repo="+repo, "commit", "--branch=app", "--tree=dir="+p.old)
		require.NoError(b, os.Mkdir(device, 0o755))
		tree("--repo="+device+"/repo", "init", "--mode=bare")
		tree("--repo="+device+"/repo", "pull-local", repo, "app")
		tree("--repo="+device+"/repo", "checkout", "-H", "app", device+"/app")
		begin := time.Now()
		tree("--repo="+repo, "commit", "--branch=app", "--tree=dir="+p.new)
		tree("--repo="+repo, "static-delta", "generate", "--inline", "--min-fallback-size=0", "--max-bsdiff-size=1000", "--filename="+repo+"/delta", "app")
		r.took = time.Since(begin)
		return r
	})
	m := &maker{t: b, repo: made + "/srv"}
	m.serve()
	slow := by(m)
	head := strings.TrimSpace(tree("--repo="+m.repo, "rev-parse", "app"))
	slow(true)
	runs := make([]run, n)
	for i := range runs {
		dir := cloneTree(b, made+"/device", filepath.Join(b.TempDir(), "device"))
		if i == 0 {
			b.ResetTimer()
		}
		runs[i] = took
		m.counted(b, &runs[i], exec.Command("sh", "-ec", fmt.Sprintf(`cd %q
curl -sf %s/delta -o delta
ostree --repo=repo static-delta apply-offline delta
rm delta
ostree --repo=repo checkout -H %s next
sync -f .
mv app before
mv next app
sync -f .`, dir, m.url, head)))
		requireSame(b, pictureOf(b, p.new), pictureOf(b, dir+"/app"))
	}
	return runs
}

// wholeRuns is the floor: everything in one file, fetched, unpacked, synced and
// switched.
func wholeRuns(b *testing.B, p pair, n int, by line) []run {
	made, took := p.made(b, "whole", func(dir string) (r run) {
		begin := time.Now()
		out, err := exec.Command("sh", "-ec", fmt.Sprintf("tar -C %q -c . | zstd -q -19 -T0 >%q/all.tar.zst", p.new, dir)).CombinedOutput()
		require.NoError(b, err, "%s", out)
		r.took = time.Since(begin)
		return r
	})
	m := &maker{t: b, repo: made}
	m.serve()
	by(m)(true)
	b.ResetTimer()
	runs := make([]run, n)
	for i := range runs {
		dir := b.TempDir()
		runs[i] = took
		m.counted(b, &runs[i], exec.Command("sh", "-ec", fmt.Sprintf(`cd %q
mkdir app next
curl -sf %s/all.tar.zst | zstd -qd | tar -x -C next
sync -f .
mv app before
mv next app
sync -f .`, dir, m.url)))
		requireSame(b, pictureOf(b, p.new), pictureOf(b, dir+"/app"))
	}
	return runs
}
