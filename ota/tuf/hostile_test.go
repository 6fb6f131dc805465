package tuf_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/fetch"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// TestHostileServers: one file of the repository misbehaves in every way; each
// lookup ends soon, in the right error, and the next one at the good
// server is fine.
func TestHostileServers(t *testing.T) {
	endless := func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write([]byte(strings.Repeat(" ", 1000))); err != nil {
				return
			}
		}
	}
	hang := func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) }
	}
	files := []string{"/metadata/2.root.json", "/metadata/timestamp.json", "/metadata/3.snapshot.json", "/metadata/3.targets.json", "/targets/releases/"}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    error // nil: a StatusError
	}{
		"endless": {endless, tuf.ErrUntrusted}, "stalled": {hang, fetch.ErrStalled}, "busy": {status(503), nil}, "teapot": {status(418), nil},
		"ring":  {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, fetch.ErrRedirect},
		"login": {func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") }, tuf.ErrUntrusted},
		"gzip": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write([]byte("x"))
		}, fetch.ErrEncoding},
		"missing": {status(404), os.ErrNotExist}, "forbidden": {status(403), os.ErrNotExist},
	} {
		for _, file := range files {
			if c.want == os.ErrNotExist && file == files[0] {
				continue // that there is no next root is the rule
			}
			t.Run(name+file, func(t *testing.T) {
				t.Parallel()
				m := newMaker(t)
				m.add(newRelease(1))
				m.publish()
				good := http.FileServer(http.Dir(m.dir))
				s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.HasPrefix(r.URL.Path, file) {
						c.handler(w, r)
						return
					}
					good.ServeHTTP(w, r)
				}))
				defer s.Close()
				o := m.options(s.URL)
				src := source(t, o)
				_, err := src.Latest(t.Context(), device)
				if c.want == nil {
					var status *fetch.StatusError
					require.ErrorAs(t, err, &status)
				} else {
					require.ErrorIs(t, err, c.want)
				}
				require.Less(t, src.Bytes(), int64(6<<20))
				o.URL = m.dir
				_, err = latest(t, o)
				require.NoError(t, err)
			})
		}
	}
}

func TestLookupEndsInTime(t *testing.T) {
	m := newMaker(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	}))
	t.Cleanup(s.Close)
	o := m.options(s.URL)
	o.Timeout = 50 * time.Millisecond
	_, err := latest(t, o)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// TestHostileFolder: a medium is no more to be trusted than a server.
func TestHostileFolder(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(outside, []byte("secret"), 0o600))
	for name, put := range map[string]func(file string) error{
		"pipe":    func(file string) error { return syscall.Mkfifo(file, 0o600) },
		"folder":  func(file string) error { return os.Mkdir(file, 0o700) },
		"link":    func(file string) error { return os.Symlink(outside, file) },
		"huge":    func(file string) error { return os.WriteFile(file, make([]byte, 20<<10), 0o600) },
		"device":  func(file string) error { return os.Symlink("/dev/zero", file) },
		"missing": func(string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaker(t)
			m.add(newRelease(1))
			m.publish()
			file := filepath.Join(m.dir, "metadata", "timestamp.json")
			require.NoError(t, os.Remove(file))
			require.NoError(t, put(file))
			_, err := latest(t, m.options(m.dir))
			require.Error(t, err)
			require.NotErrorIs(t, err, ota.ErrNoRelease)
			require.NoError(t, os.RemoveAll(file))
			m.refresh()
			_, err = latest(t, m.options(m.dir))
			require.NoError(t, err)
		})
	}
}

// TestSignedLengthAboveTheLimit: a publisher's word does not lift the device's
// own limits.
func TestSignedLengthAboveTheLimit(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	m.publish()
	file, err := os.Stat(filepath.Join(m.dir, "metadata", "3.targets.json"))
	require.NoError(t, err)
	m.snapshot.Signed.Meta["targets.json"].Length = file.Size()
	m.snapshot.Signed.Version++
	m.writeSnapshot()
	m.refresh()
	o := m.options(m.dir)
	_, err = latest(t, o)
	require.NoError(t, err)
	o = m.options(m.dir)
	o.Limits.Targets = file.Size() - 1
	_, err = latest(t, o)
	require.ErrorIs(t, err, tuf.ErrTooLarge)
}
