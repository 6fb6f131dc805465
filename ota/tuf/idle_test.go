package tuf_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/tuf"
)

// TestTimestampThatIsHere: a lookup that finds nothing new asks for the next root
// and whether the timestamp is another one, and writes nothing. A server that says
// so for ever does no more than one that sends the old file for ever.
func TestTimestampThatIsHere(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	m.publish()
	old := func() {
		at := time.Now().Add(-time.Hour)
		require.NoError(t, os.Chtimes(filepath.Join(m.dir, "metadata", "timestamp.json"), at, at))
	}
	old()
	lies := false
	var asked []string
	var mu sync.Mutex
	files := http.FileServer(http.Dir(m.dir))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.URL.Path)
		mu.Unlock()
		if lies && r.Header.Get("If-Modified-Since") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		files.ServeHTTP(w, r)
	}))
	defer server.Close()
	o := m.options(server.URL)
	look := func() (seq uint64, bytes int64, err error) {
		asked = nil
		s := source(t, o)
		r, err := s.Latest(t.Context(), device)
		if err == nil {
			seq = r.Seq
		}
		return seq, s.Bytes(), err
	}
	_, _, err := look()
	require.NoError(t, err)
	before, err := os.Stat(filepath.Join(o.Dir, "trust"))
	require.NoError(t, err)
	seq, bytes, err := look()
	require.NoError(t, err)
	require.EqualValues(t, 1, seq)
	require.ElementsMatch(t, []string{"/metadata/2.root.json", "/metadata/timestamp.json"}, asked)
	require.Zero(t, bytes)
	after, err := os.Stat(filepath.Join(o.Dir, "trust"))
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after), "the trust store was written")

	m.add(newRelease(2))
	m.publish()
	old()
	lies = true
	seq, _, err = look()
	require.NoError(t, err)
	require.EqualValues(t, 1, seq)
	o.TrustClock, o.Now = true, func() time.Time { return today.Add(1000 * day) }
	_, _, err = look()
	require.ErrorIs(t, err, tuf.ErrExpired)
	o.Now = func() time.Time { return today }
	lies = false
	at := time.Now().Add(-time.Minute)
	require.NoError(t, os.Chtimes(filepath.Join(m.dir, "metadata", "timestamp.json"), at, at))
	seq, _, err = look()
	require.NoError(t, err)
	require.EqualValues(t, 2, seq)

	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.Empty(t, r.Header.Get("If-Modified-Since"), "of another server")
		files.ServeHTTP(w, r)
	}))
	defer mirror.Close()
	o.URL = mirror.URL
	_, _, err = look()
	require.NoError(t, err)
}
