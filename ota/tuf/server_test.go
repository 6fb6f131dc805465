package tuf_test

import (
	"bytes"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/tuf"
)

type answer = func(w http.ResponseWriter, r *http.Request)

// flood writes until nobody reads any more.
func flood(w http.ResponseWriter, _ *http.Request) {
	chunk := bytes.Repeat([]byte("["), 64<<10)
	for err := error(nil); err == nil; {
		_, err = w.Write(chunk)
	}
}

func header(name, value string, then answer) answer {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(name, value)
		then(w, r)
	}
}

func text(s string) answer {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(s)) }
}

// fields are some of a header. They are made once: what is counted in a test is what
// the client allocates, and who writes them may be far ahead of it.
var fields = func() (all []byte) {
	for i := range 100 {
		all = fmt.Appendf(all, "X-%d: %s\r\n", i, strings.Repeat("x", 100))
	}
	return all
}()

// lies are answers that an honest server does not give.
func lies() map[string]struct {
	answer answer
	want   error
} {
	return map[string]struct {
		answer answer
		want   error
	}{
		"endless":             {flood, tuf.ErrUntrusted},
		"endless, short said": {header("Content-Length", "10", text("0123456789")), tuf.ErrUntrusted},
		"long said, short":    {header("Content-Length", "200", text("{}")), tuf.ErrUnavailable},
		"huge said, short":    {header("Content-Length", "1152921504606846976", text("{}")), nil},
		"no length, hang up": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Transfer-Encoding", "chunked")
			_, _ = w.Write([]byte("{"))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, tuf.ErrUnavailable},
		"a range unasked":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(206); _, _ = w.Write([]byte("{}")) }, nil},
		"empty":              {text(""), tuf.ErrUntrusted},
		"redirect to itself": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, tuf.ErrUnavailable},
		"redirect to a file": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		}, tuf.ErrUnavailable},
		"redirect to flood": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery == "" {
				http.Redirect(w, r, r.URL.Path+"?flood", http.StatusFound)
				return
			}
			flood(w, r)
		}, tuf.ErrUntrusted},
		"compressed": {header("Content-Encoding", "gzip", text("\x1f\x8b")), tuf.ErrUnavailable},
		"deep JSON":  {text(strings.Repeat("[", 12<<10)), tuf.ErrUntrusted},
		"a header without end": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			_, err = conn.Write([]byte("HTTP/1.1 200 OK\r\n"))
			for i := 0; err == nil && i < 1<<14; i++ {
				_, err = conn.Write(fields)
			}
		}, tuf.ErrUnavailable},
		"trickle": {func(w http.ResponseWriter, r *http.Request) {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				if _, err := w.Write([]byte(" ")); err != nil {
					return
				}
				_ = http.NewResponseController(w).Flush()
				select {
				case <-tick.C:
				case <-r.Context().Done():
					return
				}
			}
		}, tuf.ErrUnavailable},
	}
}

// TestLyingServer: each kind of file, each lie: the lookup ends in its error within
// a second or two, reads no more than the limits allow, and allocates no more than
// some ten times the largest.
func TestLyingServer(t *testing.T) {
	const limit = 256 << 10 // above what the repository has
	for name, lie := range lies() {
		for _, file := range []string{"metadata/2.root.json", "metadata/timestamp.json", "metadata/2.snapshot.json", "metadata/2.targets.json", "metadata/1.team.json", "targets/releases/", "targets/locators/"} {
			if testing.Short() && file != "metadata/2.targets.json" {
				continue
			}
			t.Run(name+" "+file, func(t *testing.T) {
				r := otatest.NewTUFRepo(t, today)
				r.Delegate("targets", "team", false, "releases/kiosk/arm/*", "locators/kiosk/arm/*")
				r.AddRelease("team", 1, nil)
				r.Publish()
				server := otatest.ServeTUF(t, r.Dir)
				server.Tamper(func(name string, w http.ResponseWriter, r *http.Request) bool {
					ours := strings.HasPrefix(name, file)
					if ours {
						lie.answer(w, r)
					}
					return ours
				})
				o := optionsFor(t, r, server.URL)
				o.Limits = tuf.Limits{Root: limit, Timestamp: limit, Snapshot: limit, Targets: limit}
				s := source(t, o)
				start, before := time.Now(), allocated()
				_, err := lookup(t, s)
				require.Less(t, time.Since(start), 30*time.Second)
				require.Error(t, err)
				if lie.want != nil {
					require.ErrorIs(t, err, lie.want)
				}
				require.LessOrEqual(t, s.Bytes(), int64(2*limit))
				require.Less(t, allocated()-before, uint64(20*limit), "allocated")
				server.Tamper(nil)
				_, err = latest(t, o)
				require.NoError(t, err)
			})
		}
	}
}

// lookup is what a device does for an update, without the content.
func lookup(t *testing.T, s *tuf.Source) (uint64, error) {
	r, err := s.Latest(t.Context(), device)
	if err != nil {
		return 0, err
	}
	_, err = s.Locator(t.Context(), r)
	return r.Seq, err
}

// allocated is how many bytes this process ever took from its heap.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// TestLimits: each one alone refuses what is one byte above it, and takes what is
// not, signed or not.
func TestLimits(t *testing.T) {
	r := otatest.NewTUFRepo(t, today)
	r.AddRelease("targets", 1, nil)
	r.AddTarget("targets", "a/file", bytes.Repeat([]byte("x"), 5000), nil)
	r.Rotate(func() {})
	r.Publish()
	size := func(name string) int64 { return int64(len(read1(r, name))) }
	for name, c := range map[string]struct {
		set  func(l *tuf.Limits, n int64)
		size int64
	}{
		"root":      {func(l *tuf.Limits, n int64) { l.Root = n }, size("2.root.json")},
		"timestamp": {func(l *tuf.Limits, n int64) { l.Timestamp = n }, size("timestamp.json")},
		"snapshot":  {func(l *tuf.Limits, n int64) { l.Snapshot = n }, size("2.snapshot.json")},
		"targets":   {func(l *tuf.Limits, n int64) { l.Targets = n }, size("2.targets.json")},
		"target":    {func(l *tuf.Limits, n int64) { l.Target = n }, 5000},
	} {
		t.Run(name, func(t *testing.T) {
			for _, url := range media(t, r.Dir) {
				for _, less := range []int64{0, 1} {
					o := optionsFor(t, r, url)
					c.set(&o.Limits, c.size-less)
					s := source(t, o)
					found, err := s.Find(t.Context(), "a/file")
					if err == nil {
						_, err = s.Read(t.Context(), found)
					}
					if less == 0 {
						require.NoError(t, err)
						continue
					}
					require.ErrorIs(t, err, tuf.ErrTooLarge)
				}
			}
		})
	}
	for range 4 {
		r.Rotate(func() {})
	}
	o := optionsFor(t, r, r.Dir)
	o.Limits.Rotations = 2
	for i, want := range []int{3, 5, 6, 6} {
		require.NoError(t, refresh(t, o), "lookup %d", i)
		require.Equal(t, want, stored(t, o)["root"])
	}
}

// TestFoldersElsewhere: metadata from one host, targets from another, content
// from a third.
func TestFoldersElsewhere(t *testing.T) {
	r := otatest.NewTUFRepo(t, today)
	want := r.AddRelease("targets", 1, nil)
	r.Publish()
	servers := map[string]*otatest.TUFServer{}
	for _, folder := range []string{"metadata", "targets", "content"} {
		servers[folder] = otatest.ServeTUF(t, r.Dir)
	}
	o := optionsFor(t, r, servers["content"].URL)
	o.MetadataURL, o.TargetsURL = servers["metadata"].URL+"/metadata", servers["targets"].URL+"/targets/"
	s := source(t, o)
	got, err := s.Latest(t.Context(), device)
	require.NoError(t, err)
	require.Equal(t, want.ID, got.ID)
	l, err := s.Locator(t.Context(), got)
	require.NoError(t, err)
	_, err = read(s, t, l.Packs[0].Name, 0, -1)
	require.NoError(t, err)
	for folder, server := range servers {
		names := server.Requests()
		require.NotEmpty(t, names)
		for _, name := range names {
			require.True(t, strings.HasPrefix(name, folder+"/"), "%s of %s", name, folder)
		}
	}
	mixed := optionsFor(t, r, servers["content"].URL)
	mixed.MetadataURL, mixed.MaxStale = r.Dir+"/metadata", 400*day
	mixed.Now = func() time.Time { return today.Add(100 * day) }
	_, err = latest(t, mixed)
	require.NoError(t, err, "what is on a medium may be stale")
	for _, bad := range []tuf.Options{{MetadataURL: "ftp://h/"}, {TargetsURL: "ftp://h/"}} {
		bad.URL, bad.Root, bad.Dir = r.Dir, r.First, t.TempDir()
		_, err := tuf.New(bad)
		require.ErrorContains(t, err, "neither an http or https URL nor a folder")
	}
}
