package e2e

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/monitor/outbox"
)

// way is one in which reporting fails.
type way struct {
	name string
	code int // what the receiver answers, where that is all
	// url is where events are sent to; nil is a receiver that is well.
	url func(testing.TB) string
	// before and after do something to the outbox's folder, before it is opened
	// and once it is.
	before, after func(t testing.TB, dir string)
	// failed says that it shows; nil asks whether a try to send failed.
	failed func(outbox.Stats) bool
}

func sendFailed(s outbox.Stats) bool { return s.Failures > 0 }
func sendTried(s outbox.Stats) bool  { return s.Tries > 0 }
func diskFailed(s outbox.Stats) bool { return s.Errors > 0 }
func always(outbox.Stats) bool       { return true }

// ways returns all of them. Disks that fail are those that failing tells of.
func ways(failing *failing) []way {
	all := []way{
		{name: "nobody listens", url: refuses},
		{name: "no such name", url: func(testing.TB) string { return "http://nowhere.invalid/" }},
		{name: "takes the connection and hangs", url: raw(func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), failed: always},
		{name: "resets", url: raw(func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) })},
		{name: "speaks another language", url: raw(func(c net.Conn) { _, _ = c.Write([]byte("220 mail.example ESMTP\r\n")) })},
		{name: "endless header", url: raw(func(c net.Conn) {
			_, err := c.Write([]byte("HTTP/1.1 200 OK\r\n"))
			for err == nil {
				_, err = c.Write([]byte("X-More: " + strings.Repeat("x", 4000) + "\r\n"))
			}
		})},
		{name: "endless body", url: answers(endless(http.StatusOK)), failed: sendTried},
		{name: "endless body of an error", url: answers(endless(http.StatusInternalServerError))},
		{name: "certificate of a stranger", url: func(t testing.TB) string {
			s := httptest.NewTLSServer(http.NotFoundHandler())
			s.Config.ErrorLog = quiet
			t.Cleanup(s.Close)
			return s.URL
		}},
		{name: "no TLS", url: func(t testing.TB) string {
			return strings.Replace(answers(http.NotFound)(t), "http:", "https:", 1)
		}},
		{name: "redirects to itself", url: answers(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) })},
		{name: "503, come again", url: answers(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusServiceUnavailable)
		})},
	}
	for _, code := range []int{400, 401, 404, 413, 415, 429, 500, 502} {
		all = append(all, way{name: http.StatusText(code), code: code, url: answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })})
	}
	return append(all, disks(failing)...)
}

func disks(failing *failing) []way {
	fails := func(err error) func(testing.TB, string) {
		return func(t testing.TB, dir string) { failing.at(t, dir, func() error { return err }) }
	}
	return []way{
		{name: "disk error", after: fails(syscall.EIO), failed: diskFailed},
		{name: "disk full", before: fullDiskAt, failed: always},
		{name: "disk fills up", before: smallDiskAt, after: fillUp, failed: diskFailed},
		{name: "disk becomes read-only", after: fails(syscall.EROFS), failed: diskFailed},
		{name: "disk is read-only", before: func(t testing.TB, dir string) { mountTmpfs(t, filepath.Dir(dir), "ro") }, failed: always},
		{name: "disk hangs", after: func(t testing.TB, dir string) {
			ended := make(chan bool)
			failing.at(t, dir, func() error { <-ended; return syscall.EIO })
			t.Cleanup(func() { close(ended) })
		}, failed: always},
		{name: "folder is gone", after: func(t testing.TB, dir string) { require.NoError(t, os.RemoveAll(dir)) }, failed: diskFailed},
		{name: "file in place of the folder", before: func(t testing.TB, dir string) {
			require.NoError(t, os.WriteFile(dir, []byte("mine"), 0o600))
		}, failed: always},
	}
}

func smallDiskAt(t testing.TB, dir string) { mountTmpfs(t, filepath.Dir(dir), "size=1m") }

func fullDiskAt(t testing.TB, dir string) { smallDiskAt(t, dir); fillUp(t, dir) }

// fillUp leaves no room beside the folder, nor in what it keeps in reserve.
func fillUp(t testing.TB, dir string) {
	f, err := os.Create(filepath.Join(filepath.Dir(dir), "ballast"))
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	_, err = f.Write(make([]byte, 2<<20))
	require.ErrorIs(t, err, syscall.ENOSPC)
	_ = os.Remove(filepath.Join(dir, ".pawl-reserve")) // what the folder keeps for this case
	_, err = f.Write(make([]byte, 2<<20))
	require.ErrorIs(t, err, syscall.ENOSPC)
}

// failing has calls of the file system below some folders end as it is told.
type failing struct {
	mu  sync.Mutex
	how map[string]func() error
}

func newFailing(t testing.TB) *failing {
	f := &failing{how: map[string]func() error{}}
	hook := f.step
	seam.Step.Store(&hook)
	t.Cleanup(func() { seam.Step.Store(nil) })
	return f
}

func (f *failing) at(t testing.TB, dir string, how func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.how[dir] = how
	t.Cleanup(func() { f.mu.Lock(); defer f.mu.Unlock(); delete(f.how, dir) })
}

func (f *failing) step(_, path string, call func() error) error {
	f.mu.Lock()
	var how func() error
	for dir, h := range f.how {
		if strings.HasPrefix(path, dir) {
			how = h
		}
	}
	f.mu.Unlock()
	if how != nil {
		return how()
	}
	return call()
}

func refuses(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return "http://" + l.Addr().String()
}

// raw is a server that does something to a connection, and ends it.
func raw(serve func(net.Conn)) func(testing.TB) string {
	return func(t testing.TB) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { serve(c); _ = c.Close() }()
			}
		}()
		return "http://" + l.Addr().String()
	}
}

func answers(h http.HandlerFunc) func(testing.TB) string {
	return func(t testing.TB) string {
		s := httptest.NewServer(h)
		t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
		return s.URL
	}
}

func endless(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		for err := error(nil); err == nil && r.Context().Err() == nil; {
			_, err = w.Write(make([]byte, 4096))
		}
	}
}
