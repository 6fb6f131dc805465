package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// writeFiles writes files by path below a new folder.
func writeFiles(t testing.TB, dir string, files map[string]string) string {
	t.Helper()
	for path, content := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, path), []byte(content), 0o644))
	}
	return dir
}

// TestManyReleasesBehind has devices stay behind while releases are published and
// pruned: all get to the newest, and fetch little that they have.
func TestManyReleasesBehind(t *testing.T) {
	t.Parallel()
	count := 40
	if testing.Short() {
		count = 12
	}
	m := newMaker(t)
	files := map[string]string{"bin/app": noise(400_000), "share/data": noise(300_000)[100_000:], "etc/conf": "0"}
	dir := filepath.Join(m.dir, "tree")
	behind := map[int]*device{}
	for i := range count {
		files["bin/app"] = files["bin/app"][:399_000-i] + fmt.Sprint("release ", i, " ") + files["bin/app"][399_000-i:]
		files["etc/conf"] = strings.Repeat(fmt.Sprint("line of ", i, "\n"), 20)
		files[fmt.Sprint("log/", i%7)] = files["bin/app"][i*1000:][:5000]
		m.release(fmt.Sprint("1.", i), writeFiles(t, dir, files))
		if i == 0 || i == count/2 || i == count-3 || i == count-2 {
			behind[i] = newDevice(t, m, t.TempDir())
			behind[i].must(0, "update")
		}
		if i%5 == 4 {
			m.publisher("prune", "-repo", m.repo, "-keys", m.keys, "-last", "4", "-grace", "0")
		}
	}
	fetched := map[int]int64{}
	for i, d := range behind {
		m.sent.Store(0)
		d.must(0, "update")
		d.holds(dir)
		fetched[count-1-i] = m.sent.Load()
	}
	t.Logf("bytes fetched, by how many releases behind: %v", fetched)
	require.Less(t, fetched[1], int64(60_000))
	require.Less(t, fetched[2], int64(60_000))
	require.Less(t, fetched[count-1], int64(500_000), "the pieces that did not change are on the device")
	require.Contains(t, m.publisher("verify", "-repo", m.repo), "verified")
}

// TestPruneUnderADownload moves the content of a release away while a device
// begins to fetch it.
func TestPruneUnderADownload(t *testing.T) {
	m := newMaker(t)
	same := noise(150_000)
	for i := range 3 {
		files := map[string]string{"same": same, "big": strings.Repeat(fmt.Sprint(i), 100) + noise(400_000)[i*100_000:]}
		m.release(fmt.Sprint(i), writeFiles(t, filepath.Join(m.dir, fmt.Sprint("tree", i)), files))
	}
	var once sync.Once
	pruned := ""
	handler := http.FileServer(http.Dir(m.repo))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".pack") {
			once.Do(func() {
				pruned = m.publisher("prune", "-repo", m.repo, "-keys", m.keys, "-last", "1", "-grace", "0")
			})
		}
		handler.ServeHTTP(w, r)
	}))
	defer server.Close()
	d := newDevice(t, m, t.TempDir())
	d.set("source", "url", server.URL)
	d.must(0, "update")
	d.holds(filepath.Join(m.dir, "tree2"))
	require.Contains(t, pruned, "rewritten")
}
