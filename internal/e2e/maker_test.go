package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// maker is the publishing side: a repository, its keys, a web server.
type maker struct {
	t          testing.TB
	dir        string
	repo, keys string
	url        string
	sent       atomic.Int64 // bytes of bodies
	requests   atomic.Int64
	server     *httptest.Server
}

func newMaker(t testing.TB) *maker {
	t.Helper()
	dir := t.TempDir()
	m := &maker{t: t, dir: dir, repo: filepath.Join(dir, "repo"), keys: filepath.Join(dir, "keys")}
	m.publisher("init", "-repo", m.repo, "-keys", m.keys, "-product", "camera")
	m.serve()
	return m
}

// copy returns another maker with the same keys, and a repository that begins
// as m's is now.
func (m *maker) copy(t testing.TB) *maker {
	t.Helper()
	dir := t.TempDir()
	own := &maker{t: t, dir: dir, repo: cloneTree(t, m.repo, filepath.Join(dir, "repo")), keys: m.keys}
	own.serve()
	return own
}

// serve starts a plain file server on loopback.
func (m *maker) serve() {
	files := http.FileServer(http.Dir(m.repo))
	m.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.requests.Add(1)
		files.ServeHTTP(&countingWriter{w, &m.sent}, r)
	}))
	m.url = m.server.URL
	m.t.Cleanup(m.server.Close)
}

type countingWriter struct {
	http.ResponseWriter
	sent *atomic.Int64
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.sent.Add(int64(n))
	return n, err
}

// publisher runs the publisher, which has to succeed.
func (m *maker) publisher(args ...string) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, program(m.t, "publisher"), args...).CombinedOutput()
	require.NoError(m.t, err, "publisher %v: %s", args, out)
	return string(out)
}

// release publishes one release of the component app from tree. more are
// further lines of the specification; those with two leading blanks belong to
// the component.
func (m *maker) release(version, tree string, more ...string) {
	m.t.Helper()
	var spec, component strings.Builder
	fmt.Fprintf(&spec, "product: camera\nversion: %s\nvariant: arm\n", version)
	for _, line := range more {
		if strings.HasPrefix(line, "  ") {
			fmt.Fprintf(&component, "  %s\n", line)
		} else {
			fmt.Fprintf(&spec, "%s\n", line)
		}
	}
	fmt.Fprintf(&spec, "components:\n  - name: app\n    kind: files\n    from: %q\n%s", tree, component.String())
	path := filepath.Join(m.dir, "camera-"+version+".yaml")
	require.NoError(m.t, os.WriteFile(path, []byte(spec.String()), 0o644))
	m.publisher("release", "-repo", m.repo, "-keys", m.keys, path)
}

// apart has devices ask for each file: a timestamp that was signed anew encloses none.
func (m *maker) apart() { m.publisher("refresh", "-repo", m.repo, "-keys", m.keys) }
