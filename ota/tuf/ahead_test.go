package tuf_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/fetch"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// pairing is a server that answers a request only when the one that belongs to it
// has come too, or after some time: then it was alone.
type pairing struct {
	dir  string
	of   map[string]string // by the ends of names
	mu   sync.Mutex
	came map[string]chan struct{}
	all  []string // names, in the order of the requests
	lone []string // names that waited in vain
	busy atomic.Int64
}

func (p *pairing) gate(name string) chan struct{} {
	if p.came == nil {
		p.came = map[string]chan struct{}{}
	}
	if p.came[name] == nil {
		p.came[name] = make(chan struct{})
	}
	return p.came[name]
}

func (p *pairing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.busy.Add(1)
	defer p.busy.Add(-1)
	name := strings.TrimPrefix(r.URL.Path, "/")
	key := name
	if strings.HasPrefix(name, "targets/") {
		key = path.Dir(name)
	}
	p.mu.Lock()
	p.all = append(p.all, name)
	select {
	case <-p.gate(key):
	default:
		close(p.gate(key))
	}
	var other chan struct{}
	if p.of[key] != "" {
		other = p.gate(p.of[key])
	}
	p.mu.Unlock()
	if other != nil {
		select {
		case <-other:
		case <-time.After(20 * time.Second):
			p.mu.Lock()
			p.lone = append(p.lone, name)
			p.mu.Unlock()
		}
	}
	http.ServeFile(w, r, p.dir+"/"+name)
}

// inPairs has a server wait for both of each two names.
func inPairs(dir string, names ...string) *pairing {
	p := &pairing{dir: dir, of: map[string]string{}}
	for i := 0; i < len(names); i += 2 {
		p.of[names[i]], p.of[names[i+1]] = names[i+1], names[i]
	}
	return p
}

// found looks for the newest release and its locator.
func found(t *testing.T, o tuf.Options) (seq uint64, bytes int64) {
	t.Helper()
	s := source(t, o)
	seq, err := lookup(t, s)
	require.NoError(t, err)
	return seq, s.Bytes()
}

// slowClient is patient.
func slowClient(t *testing.T, o fetch.Options) *fetch.Client {
	o.Stall, o.Proxy = 30*time.Second, http.ProxyURL(nil)
	c, err := fetch.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// TestRoundTrips: the timestamp comes with the next root, the snapshot with what
// roles there are, the locator with the release; each is asked for once.
func TestRoundTrips(t *testing.T) {
	for _, team := range []bool{false, true} {
		m := newMaker(t)
		m.add(newRelease(1))
		pairs := []string{
			"metadata/2.root.json", "metadata/timestamp.json", "metadata/4.snapshot.json", "metadata/4.targets.json",
			"targets/releases/kiosk/arm", "targets/locators/kiosk/arm",
		}
		if team {
			m.delegate("team", false, "releases/kiosk/arm/*", "locators/kiosk/arm/*")
			m.addTo(m.delegated["team"], newRelease(1))
			m.delegated["team"].Signed.Version = 6
			pairs[3] = "metadata/8.team.json"
		}
		m.publish()
		o := m.options(m.dir)
		o.Client = slowClient(t, fetch.Options{})
		seq, _ := found(t, o)
		require.EqualValues(t, 1, seq)
		role := m.targets
		if team {
			role = m.delegated["team"]
		}
		m.addTo(role, newRelease(2))
		m.publish()
		server := inPairs(m.dir, pairs...)
		s := httptest.NewServer(server)
		defer s.Close()
		o.URL = s.URL
		seq, _ = found(t, o)
		require.EqualValues(t, 2, seq)
		require.Empty(t, server.lone)
		want := 6
		if team {
			want = 7
		}
		require.Len(t, server.all, want, "%v", server.all)
		require.Zero(t, server.busy.Load())
	}
}

// TestRoundTripsOverTLS: an idle lookup costs one handshake.
func TestRoundTripsOverTLS(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		m := newMaker(t)
		m.add(newRelease(1))
		m.publish()
		server := inPairs(m.dir)
		s := httptest.NewUnstartedServer(server)
		s.EnableHTTP2 = h2
		s.StartTLS()
		defer s.Close()
		pool := x509.NewCertPool()
		pool.AddCert(s.Certificate())
		var connections atomic.Int64
		o := m.options(m.dir)
		_, _ = found(t, o)
		o.URL = s.URL
		o.Client = slowClient(t, fetch.Options{RootCAs: pool, TLS: &tls.Config{VerifyConnection: func(tls.ConnectionState) error { connections.Add(1); return nil }}})
		_, err := latest(t, o)
		require.NoError(t, err)
		require.Empty(t, server.lone)
		require.Len(t, server.all, 2)
		require.EqualValues(t, 1, connections.Load())
	}
}

// TestWrongGuess: what was fetched ahead and is another version than the one that
// counts has no effect, be it there or not; nor has one of great length.
func TestWrongGuess(t *testing.T) {
	for _, there := range []string{"", "newer", "older", "huge"} {
		t.Run(there, func(t *testing.T) {
			m := newMaker(t)
			m.add(newRelease(1))
			m.publish()
			o := m.options(serve(t, m.dir))
			found(t, o)
			m.add(newRelease(2))
			m.publish()
			m.snapshot.Signed.Version++ // two publications, of which one changed the targets
			m.writeSnapshot()
			m.refresh()
			switch there {
			case "newer":
				m.targets.Signed.Version++
				m.add(newRelease(3))
				m.writeTargets("targets", m.targets) // on its way, and not listed yet
			case "older":
				old, err := os.ReadFile(m.dir + "/metadata/3.targets.json")
				require.NoError(t, err)
				m.write("metadata/5.targets.json", old)
			case "huge":
				m.write("metadata/5.targets.json", make([]byte, 3<<20))
			}
			seq, bytes := found(t, o)
			require.EqualValues(t, 2, seq)
			require.Less(t, bytes, int64(40<<10))
		})
	}
}

// TestAheadHasNoEffect: servers that fail, refuse, hang or lie where a file is
// asked for before its turn, and answer well in its turn.
func TestAheadHasNoEffect(t *testing.T) {
	for name, bad := range map[string]http.HandlerFunc{
		"busy":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"refused": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"cut":     func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"hangs":   func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"same":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) },
	} {
		for _, file := range []string{"/metadata/timestamp.json", "/metadata/4.snapshot.json", "/metadata/4.targets.json", "/targets/locators/"} {
			t.Run(name+file, func(t *testing.T) {
				m := newMaker(t)
				m.add(newRelease(1))
				m.publish()
				o := m.options(m.dir)
				found(t, o)
				m.add(newRelease(2))
				m.publish()
				var times atomic.Int64
				good := http.FileServer(http.Dir(m.dir))
				s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.HasPrefix(r.URL.Path, file) && times.Add(1) == 1 {
						bad(w, r)
						return
					}
					good.ServeHTTP(w, r)
				}))
				defer s.Close()
				o.URL = s.URL
				seq, _ := found(t, o)
				require.EqualValues(t, 2, seq)
				require.EqualValues(t, 2, times.Load())
			})
		}
	}
}

// TestAheadEnds: a lookup leaves nothing behind that runs, and waits for what it
// need not have no longer than for the rest.
func TestAheadEnds(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	m.publish()
	o := m.options(m.dir)
	found(t, o)
	o.Client = slowClient(t, fetch.Options{})
	for i, c := range []struct{ hangs, after string }{
		{"/metadata/5.targets.json", "/metadata/4.targets.json"}, // a wrong guess
		{"/targets/locators/", "/targets/releases/"},
		{"/metadata/timestamp.json", "/metadata/2.root.json"},
	} {
		m.add(newRelease(uint64(i + 2)))
		m.publish()
		if i == 0 {
			m.snapshot.Signed.Version++
			m.writeSnapshot()
			m.refresh()
		}
		asked := make(chan struct{}, 9)
		good := http.FileServer(http.Dir(m.dir))
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasPrefix(r.URL.Path, c.hangs):
				asked <- struct{}{}
				<-r.Context().Done()
				return
			case strings.HasPrefix(r.URL.Path, c.after):
				<-asked
				asked <- struct{}{}
			}
			good.ServeHTTP(w, r)
		}))
		defer s.Close()
		o.URL = s.URL
		if c.after == "/metadata/2.root.json" {
			m.write(c.after, []byte("no root"))
		}
		begin := time.Now()
		_, err := latest(t, o)
		if c.after == "/metadata/2.root.json" {
			require.ErrorIs(t, err, tuf.ErrUntrusted)
		} else {
			require.NoError(t, err)
		}
		require.Len(t, asked, 1)
		require.Less(t, time.Since(begin), 10*time.Second)
		stacks := make([]byte, 1<<20) // a goroutine that has done its work may still be about to end
		require.NotContains(t, string(stacks[:runtime.Stack(stacks, true)]), "tuf.(*Source).readTagged")
	}
}

// TestAheadOfNewKeys: the next root brings other keys for the timestamp. That the
// stored one is the newest, as a server says of the one that was asked for ahead, is
// no answer then.
func TestAheadOfNewKeys(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	m.publish()
	lies := false
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if lies && r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("ETag", `"always"`)
		http.ServeFile(w, r, m.dir+r.URL.Path)
	}))
	defer s.Close()
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(m.dir+"/metadata/timestamp.json", old, old))
	o := m.options(s.URL)
	found(t, o)
	m.rotate(func() { m.replaceKeys("timestamp") })
	m.add(newRelease(2))
	m.publish()
	lies = true
	seq, _ := found(t, o)
	require.EqualValues(t, 2, seq)
}

// TestEarlyLocator: the locator that came with the release is for whoever asks for
// it first, and for nothing else.
func TestEarlyLocator(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	m.add(newRelease(2))
	m.publish()
	var locators atomic.Int64
	good := http.FileServer(http.Dir(m.dir))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/targets/locators/") {
			locators.Add(1)
		}
		good.ServeHTTP(w, r)
	}))
	defer s.Close()
	src := source(t, m.options(s.URL))
	_, err := src.Latest(t.Context(), device)
	require.NoError(t, err)
	require.EqualValues(t, 1, locators.Load())
	old, err := src.Release(t.Context(), device, 1)
	require.NoError(t, err)
	require.EqualValues(t, 1, old.Seq)
	newest, err := src.Latest(t.Context(), device)
	require.NoError(t, err)
	for i := range 3 {
		_, err = src.Locator(t.Context(), newest)
		require.NoError(t, err)
		require.EqualValues(t, max(2, i+2), locators.Load())
	}
}
