package fetch_test

import (
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/fetch"
)

// TestDropsWithHeaders: a link that drops each connection after 64 KB lets less
// of the file through, and is mended for ever; the rest is asked for on condition
// that the file is the same.
func TestDropsWithHeaders(t *testing.T) {
	data := random(1 << 20)
	var n, conditional atomic.Int32
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		if r.Header.Get("If-Range") != "" {
			conditional.Add(1)
		}
		hangUp(file(data), 20_000)(w, r)
	})
	o := quick()
	o.RetryMin, o.RetryMax = time.Hour, time.Hour // there is nothing to wait for
	got, err := get(client(t, o), fetch.Request{URL: url, Length: int64(len(data))})
	require.NoError(t, err)
	require.Equal(t, data, got)
	require.EqualValues(t, 53, n.Load())
	require.EqualValues(t, 52, conditional.Load())
}

// TestSlowAfterAGoodStart: megabytes that came soon do not make up for a link
// that then carries next to nothing.
func TestSlowAfterAGoodStart(t *testing.T) {
	t.Parallel()
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(make([]byte, 4<<20))
		trickle(w, r)
	})
	o := quick()
	o.Stall, o.MinRate = time.Second, 10_000
	start := time.Now()
	_, err := get(client(t, o), fetch.Request{URL: url, Length: 8 << 20})
	require.ErrorIs(t, err, fetch.ErrSlow)
	require.Less(t, time.Since(start), o.Total/2)
}

// TestSkippedBytesAreNoStall: what comes before the part from a server without
// ranges counts for the rate.
func TestSkippedBytesAreNoStall(t *testing.T) {
	t.Parallel()
	data := random(400_000)
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		tick := time.NewTicker(60 * time.Millisecond)
		defer tick.Stop()
		for i := 0; i < len(data); i += 10_000 {
			<-tick.C
			_, _ = w.Write(data[i : i+10_000])
			w.(http.Flusher).Flush()
		}
	})
	o := quick()
	o.Stall, o.MinRate = time.Second, 10_000
	got, err := get(client(t, o), fetch.Request{URL: url, Offset: 399_000, Length: 1000})
	require.NoError(t, err)
	require.Equal(t, data[399_000:], got)
}

// TestReadToItsLastByte: whoever reads a part to its last byte and no further
// leaves the rest of the answer to the next one as well.
func TestReadToItsLastByte(t *testing.T) {
	data := random(500_000)
	var n atomic.Int32
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { n.Add(1); noRanges(data)(w, r) })
	o := quick()
	c := client(t, o)
	for at := 0; at < len(data); at += 50_000 {
		body, err := c.Get(t.Context(), fetch.Request{URL: url, Offset: int64(at), Length: 40_000})
		require.NoError(t, err)
		part := make([]byte, 40_000)
		_, err = io.ReadFull(body, part)
		require.NoError(t, err)
		require.NoError(t, body.Close())
		require.Equal(t, data[at:at+40_000], part)
	}
	require.EqualValues(t, 1, n.Load())
}

// TestOnce: what is asked for once is not asked for again, whatever fails.
func TestOnce(t *testing.T) {
	for name, bad := range map[string]http.HandlerFunc{
		"busy":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"dropped": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"cut": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("begin"))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
	} {
		var asked atomic.Int64
		url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			bad(w, r)
		})
		_, err := get(client(t, quick()), fetch.Request{URL: url, Length: -1, Once: true})
		require.Error(t, err, name)
		require.EqualValues(t, 1, asked.Load(), name)
	}
}
