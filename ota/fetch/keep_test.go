package fetch_test

import (
	"context"
	"io"
	"math/rand"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/fetch"
)

// counting counts the bytes that h sends, and its requests.
type counting struct {
	h        http.HandlerFunc
	sent     atomic.Int64
	requests atomic.Int64
}

func (c *counting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.requests.Add(1)
	c.h(&countedWriter{w, &c.sent}, r)
}

type countedWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (w *countedWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.n.Add(int64(n))
	return n, err
}

// TestPartsInOnePass asks a server without ranges for parts of a file in their
// order: the file is sent once, and its owner is told once.
func TestPartsInOnePass(t *testing.T) {
	data := random(4 << 20)
	s := &counting{h: noRanges(data)}
	url := serve(t, s.ServeHTTP)
	var mu sync.Mutex
	var warnings []error
	o := quick()
	o.Warn = func(err error) {
		mu.Lock()
		defer mu.Unlock()
		warnings = append(warnings, err)
	}
	c := client(t, o)
	for at := int64(1000); at < 4<<20; at += 200_000 {
		n := min(100_000, int64(len(data))-at)
		got, err := get(c, fetch.Request{URL: url, Offset: at, Length: n})
		require.NoError(t, err)
		require.Equal(t, data[at:at+n], got, "from %d on", at)
	}
	require.EqualValues(t, 1, s.requests.Load())
	require.LessOrEqual(t, s.sent.Load(), int64(len(data)))
	require.Len(t, warnings, 1)
	require.ErrorIs(t, warnings[0], fetch.ErrNoRanges)

	// What lies before is asked for anew.
	got, err := get(c, fetch.Request{URL: url, Offset: 5, Length: 10})
	require.NoError(t, err)
	require.Equal(t, data[5:15], got)
	require.EqualValues(t, 2, s.requests.Load())
	require.Len(t, warnings, 1)
}

// TestPartsInAnyOrder has several readers at once take parts of two files, some
// of which are given up.
func TestPartsInAnyOrder(t *testing.T) {
	files := map[string][]byte{"/a": random(1 << 20), "/b": random(1<<20 + 7)}
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { noRanges(files[r.URL.Path])(w, r) })
	c := client(t, quick())
	var wg sync.WaitGroup
	for worker := range 4 {
		rnd := rand.New(rand.NewSource(int64(worker)))
		wg.Go(func() {
			for range 50 {
				name := []string{"/a", "/b"}[rnd.Intn(2)]
				data := files[name]
				at := rnd.Intn(len(data))
				n := rnd.Intn(min(len(data)-at, 60_000) + 1)
				body, err := c.Get(context.Background(), fetch.Request{URL: url + name, Offset: int64(at), Length: int64(n)})
				if err != nil {
					t.Errorf("cannot get: %v", err)
					return
				}
				if rnd.Intn(4) > 0 {
					got, err := io.ReadAll(body)
					if err != nil || string(got) != string(data[at:at+n]) {
						t.Errorf("%d bytes at %d: %v", n, at, err)
					}
				}
				body.Close()
			}
		})
	}
	wg.Wait()
}

// TestKeptAnswerBreaks drops the connection between two parts: the second is
// asked for anew.
func TestKeptAnswerBreaks(t *testing.T) {
	data := random(8 << 20)
	s := &counting{h: func(w http.ResponseWriter, r *http.Request) {
		w.Write(data[:2<<20])
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		panic(http.ErrAbortHandler)
	}}
	whole := atomic.Bool{}
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if whole.Load() {
			noRanges(data)(w, r)
			return
		}
		s.ServeHTTP(w, r)
	})
	c := client(t, quick())
	got, err := get(c, fetch.Request{URL: url, Offset: 10, Length: 1000})
	require.NoError(t, err)
	require.Equal(t, data[10:1010], got)
	whole.Store(true)
	got, err = get(c, fetch.Request{URL: url, Offset: 3 << 20, Length: 1000})
	require.NoError(t, err)
	require.Equal(t, data[3<<20:3<<20+1000], got)
}

// TestMaxRate holds two readers together to a rate. Nothing is said of how long
// they take at most: machines are slow at times.
func TestMaxRate(t *testing.T) {
	data := random(300_000)
	url := serve(t, file(data))
	o := impatient()
	o.MaxRate = 1_000_000
	o.MinRate = 900_000 // what is waited for is not held against the server
	c := client(t, o)
	began := time.Now()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if got, err := get(c, fetch.Request{URL: url, Length: int64(len(data))}); err != nil || len(got) != len(data) {
				t.Errorf("%d bytes: %v", len(got), err)
			}
		})
	}
	wg.Wait()
	// 600 kB less the 250 kB that go at once.
	require.GreaterOrEqual(t, time.Since(began), 340*time.Millisecond)

	o.MaxRate, o.Total = 1000, 100*time.Millisecond
	_, err := get(client(t, o), fetch.Request{URL: url, Length: int64(len(data))})
	require.ErrorIs(t, err, fetch.ErrBudget)
}
