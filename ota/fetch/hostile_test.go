package fetch_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/fetch"
)

// TestHostileServers: whatever a server does, Get ends in the right error, soon
// and with little read.
func TestHostileServers(t *testing.T) {
	header := func(code int, kv ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < len(kv); i += 2 {
				w.Header().Set(kv[i], kv[i+1])
			}
			w.WriteHeader(code)
			w.Write(bytes.Repeat([]byte("x"), 100))
		}
	}
	hang := func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		request fetch.Request
		want    error
	}{
		{"no answer", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, fetch.Request{Length: -1}, fetch.ErrStalled},
		{"no body", hang, fetch.Request{Length: -1}, fetch.ErrStalled},
		{"stalls on", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("x")); hang(w, r) }, fetch.Request{Length: -1}, fetch.ErrStalled},
		{"stalled error", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503); hang(w, r) }, fetch.Request{Length: -1}, &fetch.StatusError{}},
		{"stalled redirect", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/again")
			w.WriteHeader(302)
			hang(w, r)
		}, fetch.Request{Length: -1}, fetch.ErrRedirect},
		{"trickles", trickle, fetch.Request{Length: -1}, fetch.ErrSlow},
		{"endless", endless, fetch.Request{Length: -1, MaxBytes: 5000}, fetch.ErrTooLong},
		{"too long", header(200), fetch.Request{Length: -1, MaxBytes: 99}, fetch.ErrTooLong},
		{"too long a length", header(200), fetch.Request{Length: 100, MaxBytes: 99}, fetch.ErrTooLong},
		{"endless header", endlessHeader, fetch.Request{Length: -1}, errAny},
		{"redirects in a ring", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) }, fetch.Request{Length: -1}, fetch.ErrRedirect},
		{"redirects elsewhere", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "ftp://h/", http.StatusFound) }, fetch.Request{Length: -1}, fetch.ErrRedirect},
		{"compresses", header(200, "Content-Encoding", "gzip"), fetch.Request{Length: -1}, fetch.ErrEncoding},
		{"part unasked", header(206, "Content-Range", "bytes 0-99/100"), fetch.Request{Length: -1}, fetch.ErrRange},
		{"other part", header(206, "Content-Range", "bytes 0-99/1000"), fetch.Request{Offset: 10, Length: 100}, fetch.ErrRange},
		{"longer part", header(206, "Content-Range", "bytes 10-109/1000"), fetch.Request{Offset: 10, Length: 99}, fetch.ErrRange},
		{"no range named", header(206), fetch.Request{Offset: 10, Length: 99}, fetch.ErrRange},
		{"several parts", header(206, "Content-Type", "multipart/byteranges"), fetch.Request{Offset: 10, Length: 99}, fetch.ErrRange},
		{"part of no file", header(206, "Content-Range", "bytes 10-109/50"), fetch.Request{Offset: 10, Length: 100}, fetch.ErrRange},
		{"part of other length", header(206, "Content-Range", "bytes 10-19/1000"), fetch.Request{Offset: 10, Length: 100}, fetch.ErrRange},
		{"huge numbers", header(206, "Content-Range", "bytes 99999999999999999999-1/1"), fetch.Request{Offset: 10, Length: 100}, fetch.ErrRange},
		{"not satisfiable", header(416), fetch.Request{Offset: 10, Length: 100}, fetch.ErrRange},
		{"short", header(416, "Content-Range", "bytes */5"), fetch.Request{Offset: 10, Length: 100}, io.ErrUnexpectedEOF},
		{"shorter than asked", header(200), fetch.Request{Length: 101}, io.ErrUnexpectedEOF},
		{"missing", header(404), fetch.Request{Length: -1}, &fetch.StatusError{}},
		{"no content", header(204), fetch.Request{Length: -1}, &fetch.StatusError{}},
		{"busy for long", header(503, "Retry-After", "86400"), fetch.Request{Length: -1}, &fetch.StatusError{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := impatient()
			o.MinRate = 10_000
			c.request.URL = serve(t, c.handler)
			start := time.Now()
			cl := client(t, o)
			_, err := get(cl, c.request)
			switch want := c.want.(type) {
			case *fetch.StatusError:
				require.ErrorAs(t, err, &want)
			default:
				if c.want != errAny {
					require.ErrorIs(t, err, c.want)
				}
				require.Error(t, err)
			}
			require.Less(t, time.Since(start), o.Total/2)
			require.Less(t, cl.Bytes().Total(), int64(100_000))
		})
	}
}

var errAny = errors.New("any error")

func trickle(w http.ResponseWriter, r *http.Request) {
	w.(http.Flusher).Flush()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		select {
		case <-tick.C:
			w.Write([]byte("x"))
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

func endless(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := w.Write(make([]byte, 1000)); err != nil {
			return
		}
	}
}

func endlessHeader(w http.ResponseWriter, r *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nX: ")
	for err == nil {
		_, err = conn.Write(bytes.Repeat([]byte("x"), 1000))
	}
}

// TestAnnouncedLength: an answer that says it is too long is not read at all.
func TestAnnouncedLength(t *testing.T) {
	for _, size := range []int64{1<<31 + 1, 1<<32 + 1, 1 << 40} {
		url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
			endless(w, r)
		})
		c := client(t, quick())
		_, err := c.Get(t.Context(), fetch.Request{URL: url, Length: -1, MaxBytes: size - 1})
		require.ErrorIs(t, err, fetch.ErrTooLong)
		require.Zero(t, c.Bytes().Total())
		body, err := c.Get(t.Context(), fetch.Request{URL: url, Length: -1, MaxBytes: size})
		require.NoError(t, err)
		require.NoError(t, body.Close())
	}
}

// TestRangesBeyond32Bits: offsets where 32 bits end are kept.
func TestRangesBeyond32Bits(t *testing.T) {
	for _, offset := range []int64{1<<31 - 1, 1 << 31, 1<<32 - 1, 1<<32 + 1} {
		url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if want := fmt.Sprintf("bytes=%d-%d", offset, offset+4); r.Header.Get("Range") != want {
				w.WriteHeader(http.StatusTeapot)
				return
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", offset, offset+4, offset+1000))
			w.WriteHeader(http.StatusPartialContent)
			io.WriteString(w, "hello")
		})
		got, err := get(client(t, quick()), fetch.Request{URL: url, Offset: offset, Length: 5})
		require.NoError(t, err)
		require.Equal(t, "hello", string(got))
	}
}
