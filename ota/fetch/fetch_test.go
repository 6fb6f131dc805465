package fetch_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"math/rand"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/fetch"
)

// quick are options under which every try comes soon. No answer that does come
// is given up, however busy the machine.
func quick() fetch.Options {
	return fetch.Options{
		Stall: 15 * time.Second, Total: time.Minute,
		RetryMin: time.Millisecond, RetryMax: 20 * time.Millisecond,
		Proxy: http.ProxyURL(nil),
	}
}

// impatient is quick, and soon gives up who says nothing.
func impatient() fetch.Options {
	o := quick()
	o.Stall = 150 * time.Millisecond
	return o
}

func client(t *testing.T, o fetch.Options) *fetch.Client {
	t.Helper()
	c, err := fetch.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func get(c *fetch.Client, r fetch.Request) ([]byte, error) {
	body, err := c.Get(context.Background(), r)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func random(n int) []byte {
	data := make([]byte, n)
	rand.New(rand.NewSource(int64(n))).Read(data)
	return data
}

// file serves data as a good server does.
func file(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"one"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
}

// noRanges serves data as a server without Range does.
func noRanges(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { w.Write(data) }
}

// hangUp lets at most n bytes of each answer through and then drops the
// connection.
func hangUp(h http.HandlerFunc, n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { h(&cutWriter{w, n}, r) }
}

type cutWriter struct {
	http.ResponseWriter
	left int
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if len(p) < w.left {
		w.left -= len(p)
		return w.ResponseWriter.Write(p)
	}
	w.ResponseWriter.Write(p[:w.left])
	w.ResponseWriter.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func TestGetRanges(t *testing.T) {
	data := random(300_000)
	for name, handler := range map[string]http.HandlerFunc{
		"ranges": file(data), "no ranges": noRanges(data),
		"ranges, cut": hangUp(file(data), 70_000), "no etag, cut": hangUp(func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		}, 70_000),
	} {
		t.Run(name, func(t *testing.T) {
			c, url := client(t, quick()), serve(t, handler)
			for _, r := range []fetch.Request{
				{Offset: 0, Length: -1}, {Offset: 0, Length: 1}, {Offset: 10, Length: 0}, {Offset: 1000, Length: 200_000},
				{Offset: 299_999, Length: 1}, {Offset: 299_999, Length: -1}, {Offset: 300_000, Length: -1},
			} {
				r.URL = url + "/pack"
				got, err := get(c, r)
				require.NoError(t, err, "%+v", r)
				want := data[r.Offset:]
				if r.Length >= 0 {
					want = want[:r.Length]
				}
				require.True(t, bytes.Equal(want, got), "%+v: %d bytes", r, len(got))
			}
			for _, r := range []fetch.Request{{Offset: 299_999, Length: 2}, {Offset: 300_001, Length: 1}, {Offset: 300_001, Length: -1}} {
				r.URL = url
				_, err := get(c, r)
				require.ErrorIs(t, err, io.ErrUnexpectedEOF, "%+v", r)
			}
		})
	}
}

func TestResumeAsksForTheRest(t *testing.T) {
	data := random(200_000)
	var asked []string
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Range")+" "+r.Header.Get("If-Range"))
		hangUp(file(data), 80_000)(w, r)
	})
	c := client(t, quick())
	got, err := get(c, fetch.Request{URL: url, Length: -1})
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.Equal(t, []string{" ", `bytes=80000-199999 "one"`, `bytes=160000-199999 "one"`}, asked)
	require.Equal(t, fetch.Bytes{Content: 200_000}, c.Bytes())
}

func TestResumeNoticesAnotherFile(t *testing.T) {
	one, two := random(200_000), random(200_001)
	for name, other := range map[string]http.HandlerFunc{
		"etag": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"two"`)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(one))
		},
		"size": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(two)))
			w.Write(two)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if n.Add(1) == 1 {
					hangUp(file(one), 80_000)(w, r)
				}
				other(w, r)
			})
			_, err := get(client(t, quick()), fetch.Request{URL: url, Length: -1})
			require.ErrorIs(t, err, fetch.ErrChanged)
		})
	}
}

func TestBreaksAreBounded(t *testing.T) {
	var n atomic.Int32
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		hangUp(file(random(200_000)), 1000)(w, r)
	})
	_, err := get(client(t, quick()), fetch.Request{URL: url, Length: -1})
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.EqualValues(t, 5, n.Load())
}

func TestRetries(t *testing.T) {
	var n atomic.Int32
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch n.Add(1) {
		case 1:
			w.WriteHeader(503)
		case 2:
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(429)
		case 3:
			panic(http.ErrAbortHandler)
		default:
			file([]byte("hello"))(w, r)
		}
	})
	got, err := get(client(t, quick()), fetch.Request{URL: url, Length: -1})
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))

	for code, missing := range map[int]bool{403: true, 404: true, 410: true, 401: false, 418: false} {
		url := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) })
		_, err := get(client(t, quick()), fetch.Request{URL: url, Length: -1})
		require.Equal(t, missing, errors.Is(err, fs.ErrNotExist), code)
	}

	n.Store(-100)
	busy := serve(t, func(w http.ResponseWriter, r *http.Request) { n.Add(1); w.WriteHeader(503) })
	_, err = get(client(t, quick()), fetch.Request{URL: busy + "/x?token=secret", Length: -1})
	status := &fetch.StatusError{}
	require.ErrorAs(t, err, &status)
	require.Equal(t, 503, status.Code)
	require.EqualValues(t, -95, n.Load(), "one try and four more")
	require.NotContains(t, err.Error(), "secret")
}

func TestRetryAfterIsKept(t *testing.T) {
	var first time.Time
	var waited time.Duration
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if first.IsZero() {
			first = time.Now()
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(503)
			return
		}
		waited = time.Since(first)
	})
	o := quick()
	o.RetryMax = 200 * time.Millisecond
	_, err := get(client(t, o), fetch.Request{URL: url, Length: -1})
	require.NoError(t, err)
	require.GreaterOrEqual(t, waited, time.Second)
}

func TestTotalEnds(t *testing.T) {
	o := quick()
	o.Total, o.MinRate = 100*time.Millisecond, -1
	c := client(t, o)
	_, err := get(c, fetch.Request{URL: serve(t, trickle), Length: -1})
	require.ErrorIs(t, err, fetch.ErrBudget)

	ctx, cancel := context.WithCancel(context.Background())
	body, err := client(t, quick()).Get(ctx, fetch.Request{URL: serve(t, trickle), Length: -1})
	require.NoError(t, err)
	cancel()
	_, err = io.ReadAll(body)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, body.Close())
}

func TestBytesByCause(t *testing.T) {
	data := random(1000)
	c := client(t, quick())
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/file":
			file(data)(w, r)
		case "/plain":
			noRanges(data)(w, r)
		default:
			w.WriteHeader(404)
			w.Write(make([]byte, 10))
		}
	})
	for _, r := range []fetch.Request{
		{URL: url + "/file", Length: -1, Cause: fetch.Metadata},
		{URL: url + "/file", Offset: 100, Length: 50},
		{URL: url + "/plain", Offset: 100, Length: 50, Cause: fetch.Report},
	} {
		_, err := get(c, r)
		require.NoError(t, err)
	}
	require.Equal(t, fetch.Bytes{Metadata: 1000, Content: 50, Report: 50, Wasted: 100}, c.Bytes())
	require.EqualValues(t, 1200, c.Bytes().Total())
}

// A file that is not there costs no connection, unless the server has much to say
// about it or takes its time.
func TestConnectionOutlivesMissingFile(t *testing.T) {
	for name, c := range map[string]struct {
		say  func(w http.ResponseWriter, r *http.Request)
		want int32
	}{
		"short": {func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 1000)) }, 1},
		"long":  {func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 1<<20)) }, 2},
		"slow": {func(w http.ResponseWriter, r *http.Request) {
			w.Write(make([]byte, 10))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			var connections atomic.Int32
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/file" {
					file(random(10))(w, r)
					return
				}
				w.WriteHeader(404)
				c.say(w, r)
			}))
			server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew {
					connections.Add(1)
				}
			}
			server.Start()
			defer server.Close()
			o := quick()
			o.Stall = time.Minute
			cl := client(t, o)
			_, err := get(cl, fetch.Request{URL: server.URL + "/gone", Length: -1})
			require.ErrorIs(t, err, fs.ErrNotExist)
			_, err = get(cl, fetch.Request{URL: server.URL + "/file", Length: -1})
			require.NoError(t, err)
			require.Equal(t, c.want, connections.Load())
		})
	}
}

func TestHeadersStayWithTheirHost(t *testing.T) {
	var got []http.Header
	see := func(w http.ResponseWriter, r *http.Request) { got = append(got, r.Header.Clone()) }
	other := serve(t, see)
	same := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if see(w, r); r.URL.Path == "/away" {
			http.Redirect(w, r, other+"/?sig=1", http.StatusFound)
		} else if r.URL.Path == "/here" {
			http.Redirect(w, r, "/there", http.StatusFound)
		}
	})
	o := quick()
	o.Header = http.Header{"X-Token": {"secret"}, "Authorization": {"Bearer secret"}}
	o.UserAgent = "maker/1"
	c := client(t, o)
	for _, path := range []string{"/away", "/here"} {
		_, err := get(c, fetch.Request{URL: same + path, Length: -1})
		require.NoError(t, err)
	}
	require.Len(t, got, 4)
	for i, token := range []string{"secret", "", "secret", "secret"} {
		require.Equal(t, token, got[i].Get("X-Token"), i)
		require.Equal(t, token, strings.TrimPrefix(got[i].Get("Authorization"), "Bearer "), i)
		require.Equal(t, "identity", got[i].Get("Accept-Encoding"))
		require.Equal(t, "maker/1", got[i].Get("User-Agent"))
		require.Empty(t, got[i].Get("Referer"))
	}
}

func TestProxy(t *testing.T) {
	var asked atomic.Value
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.URL.String())
		w.Write([]byte("from the proxy"))
	})
	var through atomic.Pointer[string]
	o := quick()
	o.Proxy = func(r *http.Request) (*urlURL, error) {
		if p := through.Load(); p != nil {
			return parseURL(*p)
		}
		return nil, nil
	}
	c := client(t, o)
	direct := serve(t, noRanges([]byte("direct")))
	got, err := get(c, fetch.Request{URL: direct, Length: -1})
	require.NoError(t, err)
	require.Equal(t, "direct", string(got))
	through.Store(&proxy)
	got, err = get(c, fetch.Request{URL: "http://updates.invalid/pack", Length: -1})
	require.NoError(t, err)
	require.Equal(t, "from the proxy", string(got))
	require.Equal(t, "http://updates.invalid/pack", asked.Load())

	other := serve(t, noRanges([]byte("from the other")))
	through.Store(&other)
	got, err = get(c, fetch.Request{URL: "http://updates.invalid/pack", Length: -1})
	require.NoError(t, err)
	require.Equal(t, "from the other", string(got))
	through.Store(nil)
	got, err = get(c, fetch.Request{URL: direct, Length: -1})
	require.NoError(t, err)
	require.Equal(t, "direct", string(got))

	nobody := "http://camera:geheim@" + strings.TrimPrefix(closedServer(t), "http://")
	through.Store(&nobody)
	for _, scheme := range []string{"http", "https"} {
		_, err = get(c, fetch.Request{URL: scheme + "://updates.invalid/pack", Length: -1})
		require.Error(t, err)
		require.NotContains(t, err.Error(), "geheim")
	}
}

// closedServer returns the address of a server that is gone.
func closedServer(t *testing.T) string {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	return s.URL
}

// TestProxyTunnel reaches an HTTPS server through a proxy, end to end: the
// proxy sees a name and a port, and the password that is meant for it.
func TestProxyTunnel(t *testing.T) {
	server := httptest.NewTLSServer(noRanges([]byte("sealed")))
	t.Cleanup(server.Close)
	var told atomic.Value
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
		told.Store(r.Method + " " + r.Host + " " + r.Header.Get("Proxy-Authorization"))
		there, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer there.Close()
		w.WriteHeader(http.StatusOK)
		here, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		go func() { _, _ = io.Copy(there, buffered) }()
		_, _ = io.Copy(here, there)
	})
	o := quick()
	o.Proxy = func(*http.Request) (*urlURL, error) {
		return parseURL(strings.Replace(proxy, "http://", "http://camera:geheim@", 1))
	}
	o.RootCAs = x509.NewCertPool()
	o.RootCAs.AddCert(server.Certificate())
	got, err := get(client(t, o), fetch.Request{URL: server.URL, Length: -1})
	require.NoError(t, err)
	require.Equal(t, "sealed", string(got))
	require.Equal(t, "CONNECT "+strings.TrimPrefix(server.URL, "https://")+" Basic "+
		base64.StdEncoding.EncodeToString([]byte("camera:geheim")), told.Load())
}

func TestOptionsNameTheField(t *testing.T) {
	for field, o := range map[string]fetch.Options{
		"Stall": {Stall: -1}, "Total": {Total: -1}, "RetryMin": {RetryMin: -1}, "MaxRate": {MaxRate: -1}, "RetryMax": {RetryMin: 2, RetryMax: 1},
	} {
		_, err := fetch.New(o)
		require.ErrorContains(t, err, "Options."+field)
	}
	c := client(t, fetch.Options{})
	for _, r := range []fetch.Request{
		{URL: "file:///etc/passwd"}, {URL: "http://"}, {URL: "://"}, {URL: "http://h/", Offset: -1}, {URL: "http://h/", Length: -2},
		{URL: "http://h/", Offset: 1, Length: 1<<63 - 1}, {URL: "http://h/", Cause: 9},
	} {
		_, err := get(c, r)
		require.ErrorContains(t, err, "cannot fetch")
	}
}

// TestDefaultsUntouched: the client shares nothing with the process.
func TestDefaultsUntouched(t *testing.T) {
	before, transport := *http.DefaultClient, http.DefaultTransport
	conf := transport.(*http.Transport).Clone()
	o := quick()
	o.TLS = &tls.Config{ServerName: "given"}
	_, err := get(client(t, o), fetch.Request{URL: serve(t, noRanges([]byte("x"))), Length: -1})
	require.NoError(t, err)
	require.Equal(t, before, *http.DefaultClient)
	require.Same(t, transport, http.DefaultTransport)
	now := transport.(*http.Transport)
	require.Equal(t, conf.TLSClientConfig == nil, now.TLSClientConfig == nil)
	require.Equal(t, conf.MaxIdleConns, now.MaxIdleConns)
	require.Equal(t, conf.DisableCompression, now.DisableCompression)
	require.Zero(t, o.TLS.MinVersion, "the caller's tls.Config is copied")
}

// TestNoGoroutinesStay: after every kind of end nothing runs on.
func TestNoGoroutinesStay(t *testing.T) {
	t.Run("traffic", func(t *testing.T) {
		url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/stall":
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			case "/cut":
				hangUp(file(random(200_000)), 1000)(w, r)
			default:
				file(random(200_000))(w, r)
			}
		})
		c := client(t, impatient())
		for _, path := range []string{"/", "/stall", "/cut", "/missing"} {
			get(c, fetch.Request{URL: url + path, Length: -1})
		}
		body, err := c.Get(context.Background(), fetch.Request{URL: url, Length: -1})
		require.NoError(t, err)
		require.NoError(t, body.Close())
		_, err = body.Read(make([]byte, 1))
		require.Error(t, err)
	})
	require.Eventually(t, func() bool {
		stacks := make([]byte, 1<<20)
		return !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("net/http."))
	}, time.Minute, 5*time.Millisecond)
}
