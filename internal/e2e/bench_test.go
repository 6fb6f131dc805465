package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// noise returns n bytes that do not compress and are the same in every run.
func noise(n int) string {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	return string(data)
}

// BenchmarkSmallChange is a release that changes 1 % of a tree of 6,000 files,
// beside curl | tar of everything. It fails when 3 % of the compressed tree
// or more are fetched, or when a file that did not change is written again.
func BenchmarkSmallChange(b *testing.B) {
	for b.Loop() {
		m := newMaker(b)
		d := newDevice(b, m, b.TempDir())
		v1 := copyTree(b, filepath.Join(m.dir, "v1"), "cmd", "runtime", "net")
		all := files(b, v1)
		for _, extra := range all[min(6000, len(all)):] {
			require.NoError(b, os.Remove(filepath.Join(v1, extra)))
		}
		all = files(b, v1)
		require.GreaterOrEqual(b, len(all), 5900)
		m.release("1.0.0", v1)
		d.must(0, "update")
		before := inodes(b, d.app)

		v2 := cloneTree(b, v1, filepath.Join(m.dir, "v2"))
		changed := map[string]bool{}
		for i := 50; i < len(all); i += 100 {
			appendTo(b, filepath.Join(v2, all[i]), "// one line more\n")
			changed[all[i]] = true
		}
		m.release("1.1.0", v2)
		whole := archive(b, v2)

		m.sent.Store(0)
		begin := time.Now()
		a := d.must(0, "update")
		took := time.Since(begin)
		fetched := m.sent.Load()
		d.holds(v2)

		rewritten := 0
		for path, inode := range inodes(b, d.app) {
			if !changed[path] && before[path] != inode {
				rewritten++
			}
		}
		curl := unpackFromServer(b, whole)
		b.ReportMetric(float64(len(all)), "files")
		b.ReportMetric(float64(fetched), "fetched-B")
		b.ReportMetric(float64(a.Result.Bytes), "counted-B")
		b.ReportMetric(float64(len(whole)), "tar.gz-B")
		b.ReportMetric(100*float64(fetched)/float64(len(whole)), "%-of-tar.gz")
		b.ReportMetric(float64(rewritten), "rewritten")
		b.ReportMetric(took.Seconds(), "s-update")
		b.ReportMetric(curl.Seconds(), "s-curl-tar")
		require.Less(b, 100*fetched, 3*int64(len(whole)), "%d bytes were fetched of %d", fetched, len(whole))
		require.Zero(b, rewritten, "files that did not change were written again")
	}
}

// inodes returns what each file of a tree is, so that one that is written anew
// shows: by reflink or hard link its blocks stay, by copy they do not.
func inodes(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range files(t, dir) {
		all[name] = blocksOf(t, filepath.Join(dir, name))
	}
	return all
}

func blocksOf(t testing.TB, path string) string {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	st := info.Sys().(*syscall.Stat_t)
	return strconv.FormatUint(st.Ino, 10)
}

// archive is the tree as one tar.gz.
func archive(t testing.TB, dir string) []byte {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	w := tar.NewWriter(zip)
	require.NoError(t, w.AddFS(os.DirFS(dir)))
	require.NoError(t, w.Close())
	require.NoError(t, zip.Close())
	return out.Bytes()
}

// unpackFromServer is curl | tar: everything over HTTP, written, synced.
func unpackFromServer(b *testing.B, whole []byte) time.Duration {
	b.Helper()
	dir := b.TempDir()
	require.NoError(b, os.WriteFile(filepath.Join(dir, "all.tar.gz"), whole, 0o644))
	m := &maker{t: b, repo: dir}
	m.serve()
	begin := time.Now()
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: 5 * time.Minute}).Get(m.url + "/all.tar.gz")
	require.NoError(b, err)
	defer resp.Body.Close()
	zip, err := gzip.NewReader(resp.Body)
	require.NoError(b, err)
	r := tar.NewReader(zip)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		require.NoError(b, err)
		path := filepath.Join(dir, "out", h.Name)
		if h.Typeflag == tar.TypeDir {
			require.NoError(b, os.MkdirAll(path, 0o755))
			continue
		}
		require.NoError(b, os.MkdirAll(filepath.Dir(path), 0o755))
		f, err := os.Create(path)
		require.NoError(b, err)
		_, err = io.Copy(f, r)
		require.NoError(b, err)
		require.NoError(b, f.Close())
	}
	syscall.Sync()
	return time.Since(begin)
}

// BenchmarkLargeFile has one file of 1 GiB pass, and fails when the agent's
// resident memory rises more than 32 MiB above that of an idle one.
func BenchmarkLargeFile(b *testing.B) {
	const size, limit = 1 << 30, 32 << 20
	for b.Loop() {
		m := newMaker(b)
		d := newDevice(b, m, b.TempDir())
		tree := filepath.Join(m.dir, "v1")
		largeFile(b, tree, "image", size)
		m.release("1.0.0", tree)
		d.set("trial", "soak", "1s")
		d.set("trial", "interval", "100ms")

		idle := d.peak(b, "check")
		begin := time.Now()
		peak := d.peak(b, "update")
		took := time.Since(begin)
		d.holds(tree)
		b.ReportMetric(float64(idle)/(1<<20), "MiB-idle")
		b.ReportMetric(float64(peak)/(1<<20), "MiB-peak")
		b.ReportMetric(float64(peak-idle)/(1<<20), "MiB-above-idle")
		b.ReportMetric(took.Seconds(), "s-update")
		require.Less(b, peak-idle, int64(limit), "resident memory rose by %d bytes", peak-idle)
	}
}

// largeFile writes a file of which one half compresses and the other does not.
func largeFile(b *testing.B, dir, name string, size int) {
	b.Helper()
	require.NoError(b, os.MkdirAll(dir, 0o755))
	f, err := os.Create(filepath.Join(dir, name))
	require.NoError(b, err)
	random := rand.NewChaCha8([32]byte{2})
	block := make([]byte, 1<<20)
	for i := range size / len(block) {
		if i%2 == 0 {
			_, _ = random.Read(block)
		} else {
			copy(block, strings.Repeat("line "+strconv.Itoa(i)+"\n", 1000))
		}
		_, err := f.Write(block)
		require.NoError(b, err)
	}
	require.NoError(b, f.Close())
}

// peak runs the agent and returns the most memory that was resident, in bytes.
func (d *device) peak(b *testing.B, verb string) int64 {
	b.Helper()
	cmd := d.command(b.Context(), verb)
	require.NoError(b, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	path := "/proc/" + strconv.Itoa(cmd.Process.Pid) + "/status"
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var most int64
	for {
		select {
		case err := <-ended:
			require.NoError(b, err)
			return most
		case <-tick.C:
			most = max(most, highWater(path))
		}
	}
}

// highWater reads VmHWM, which the kernel keeps for the program that runs now.
func highWater(path string) int64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(data), "VmHWM:")
	kib, err := strconv.ParseInt(strings.TrimSpace(strings.SplitN(after, "kB", 2)[0]), 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}
