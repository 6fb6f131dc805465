package cloudevents

import (
	"compress/gzip"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/monitor/outbox"
)

// collector is a receiver that stores events by source and id. answer, where it
// is there, comes first: 0 goes on.
type collector struct {
	t      *testing.T
	answer func(w http.ResponseWriter, r *http.Request, n int) int

	mu    sync.Mutex
	n     int
	all   map[string]map[string]any
	order []string
	had   int // events that came again
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	if c.answer != nil {
		if status := c.answer(w, r, c.n); status != 0 {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "because")
			return
		}
	}
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		body = z
	}
	var events []map[string]any
	if err := json.NewDecoder(body).Decode(&events); err != nil || r.Header.Get("Content-Type") != contentType {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	for _, e := range events {
		id := fmt.Sprint(e["source"], " ", e["id"])
		if c.all[id] != nil {
			c.had++
			continue
		}
		if c.all == nil {
			c.all = map[string]map[string]any{}
		}
		c.all[id] = e
		c.order = append(c.order, fmt.Sprint(e["pawlclass"], " ", e["sequence"]))
	}
	w.WriteHeader(http.StatusAccepted)
}

func serve(t *testing.T, c *collector, o Options) *Sender {
	t.Helper()
	s := httptest.NewTLSServer(c)
	t.Cleanup(s.Close)
	o.URL = s.URL + "/events?token=secret"
	o.RootCAs = x509.NewCertPool()
	o.RootCAs.AddCert(s.Certificate())
	sender, err := New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sender.Close()) })
	return sender
}

func items(n int) []outbox.Item {
	var all []outbox.Item
	for i := range n {
		all = append(all, outbox.Item{
			ID: fmt.Sprint("tag-", i), Seq: uint64(i), Keep: i%2 == 0,
			Data: fmt.Appendf(nil, `{"kind":"committed","device":"pump 7","time":"2031-02-03T04:05:06Z","timeTrusted":%v}`, i%2 == 0),
		})
	}
	return all
}

func TestSend(t *testing.T) {
	c := &collector{t: t, answer: func(_ http.ResponseWriter, r *http.Request, _ int) int {
		if r.Header.Get("Authorization") != "Bearer x" || r.UserAgent() != "maker/2" || r.Header.Get("Content-Encoding") != "gzip" {
			return http.StatusForbidden
		}
		return 0
	}}
	s := serve(t, c, Options{Header: http.Header{"Authorization": {"Bearer x"}}, UserAgent: "maker/2"})
	require.NoError(t, s.Send(t.Context(), append(items(2), outbox.Item{ID: "x", Seq: 9, Data: []byte("no JSON")})))
	require.Equal(t, map[string]any{
		"specversion": "1.0", "id": "tag-0", "source": "/devices/pump%207", "type": "com.github.pawl-ota.committed", "time": "2031-02-03T04:05:06Z",
		"datacontenttype": "application/json", "sequence": "00000000000000000000", "pawlclass": "result",
		"data": map[string]any{"kind": "committed", "device": "pump 7", "time": "2031-02-03T04:05:06Z", "timeTrusted": true},
	}, c.all["/devices/pump%207 tag-0"])
	require.NotContains(t, c.all["/devices/pump%207 tag-1"], "time", "no time that is not trusted")
	require.Equal(t, "bm8gSlNPTg==", c.all["/devices/ x"]["data_base64"])
	require.Positive(t, s.Bytes())
}

// TestAnswers: what each kind of answer means to the outbox.
func TestAnswers(t *testing.T) {
	for status, want := range map[int]string{
		200: "", 202: "", 204: "", 400: "refused", 413: "refused", 422: "refused",
		301: "again", 307: "again", 401: "again", 403: "again", 404: "again", 408: "again", 415: "again", 429: "later", 500: "again", 503: "later",
	} {
		c := &collector{t: t, answer: func(w http.ResponseWriter, _ *http.Request, _ int) int {
			w.Header().Set("Location", "/elsewhere")
			if status == 429 || status == 503 {
				w.Header().Set("Retry-After", "120")
			}
			return status
		}}
		s := serve(t, c, Options{})
		err := s.Send(t.Context(), items(1))
		later, isLater := errors.AsType[*outbox.Later](err)
		_, isRefused := errors.AsType[*outbox.Refused](err)
		switch want {
		case "":
			require.NoError(t, err, status)
			continue
		case "later":
			require.True(t, isLater, status)
			require.Equal(t, 2*time.Minute, later.After)
		default:
			require.False(t, isLater, status)
		}
		require.Equal(t, want == "refused", isRefused, status)
		require.ErrorContains(t, err, fmt.Sprintf("answered %d: \"because\"", status))
		require.NotContains(t, err.Error(), "secret")
		if status != 415 {
			require.Equal(t, 1, c.n, "an answer is an answer")
		}
	}
}

// TestReceiverWithoutGzip is asked once more at once, and never compressed
// again.
func TestReceiverWithoutGzip(t *testing.T) {
	c := &collector{t: t, answer: func(_ http.ResponseWriter, r *http.Request, _ int) int {
		if r.Header.Get("Content-Encoding") != "" {
			return http.StatusUnsupportedMediaType
		}
		return 0
	}}
	s := serve(t, c, Options{})
	require.NoError(t, s.Send(t.Context(), items(3)))
	require.NoError(t, s.Send(t.Context(), items(3)))
	require.Equal(t, 3, c.n)
	require.Len(t, c.all, 3)
}

// TestBrokenConnections: a request is made again where no answer came, in its
// time.
func TestBrokenConnections(t *testing.T) {
	c := &collector{t: t, answer: func(_ http.ResponseWriter, _ *http.Request, n int) int {
		if n == 1 {
			panic(http.ErrAbortHandler)
		}
		return 0
	}}
	s := serve(t, c, Options{})
	s.client.HTTP.RetryWaitMin, s.client.HTTP.RetryWaitMax = time.Millisecond, time.Millisecond
	require.NoError(t, s.Send(t.Context(), items(3)))
	require.Equal(t, 2, c.n)

	gone, err := New(Options{URL: "https://127.0.0.1:1/?token=secret", Retries: -1})
	require.NoError(t, err)
	err = gone.Send(t.Context(), items(1))
	require.ErrorContains(t, err, "refused")
	require.NotContains(t, err.Error(), "secret")
	untrusted := httptest.NewTLSServer(c)
	defer untrusted.Close()
	stranger, err := New(Options{URL: untrusted.URL})
	require.NoError(t, err)
	require.ErrorContains(t, stranger.Send(t.Context(), items(1)), "certificate")

	slow := serve(t, &collector{t: t, answer: func(_ http.ResponseWriter, r *http.Request, _ int) int {
		_, _ = io.Copy(io.Discard, r.Body) // only then it is noticed that the client is gone
		<-r.Context().Done()
		return 500
	}}, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, slow.Send(ctx, items(1)), context.DeadlineExceeded)
}

func TestOptions(t *testing.T) {
	for _, u := range []string{"", "ftp://host/", "https://", ":"} {
		_, err := New(Options{URL: u})
		require.ErrorContains(t, err, "field URL")
	}
}

// TestFromStreamToCollector: all of it together, against a receiver that fails in
// every way and takes only few at a time: every event is stored once.
func TestFromStreamToCollector(t *testing.T) {
	c := &collector{t: t, answer: func(w http.ResponseWriter, r *http.Request, n int) int {
		switch n % 6 {
		case 1:
			return http.StatusServiceUnavailable
		case 2:
			panic(http.ErrAbortHandler)
		case 3:
			w.Header().Set("Retry-After", "0")
			return http.StatusTooManyRequests
		}
		if r.ContentLength > 2500 {
			return http.StatusRequestEntityTooLarge
		}
		return 0
	}}
	sender := serve(t, c, Options{})
	sender.client.HTTP.RetryWaitMin, sender.client.HTTP.RetryWaitMax = time.Millisecond, time.Millisecond
	box, err := outbox.Open(t.Context(), outbox.Options{
		Dir: t.TempDir() + "/box", Interval: time.Millisecond, Delay: time.Millisecond, RetryMin: time.Millisecond, RetryMax: 2 * time.Millisecond,
	})
	require.NoError(t, err)
	stream, err := monitor.NewStream(monitor.StreamOptions{Device: "pump-7", Sink: box})
	require.NoError(t, err)
	for n := range 300 {
		stream.Emit(monitor.Event{Kind: monitor.Reverted, Tx: fmt.Sprint("tx", n), Reason: strings.Repeat("why ", n%50)})
		stream.Sample("load", map[string]float64{"load1": float64(n)})
	}
	require.NoError(t, box.Flush(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- box.Run(ctx, sender) }()
	require.Eventually(t, func() bool { s := box.Stats(); return s.Results+s.Metrics == 0 }, 30*time.Second, 10*time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.NoError(t, box.Close())
	require.Len(t, c.all, 600)
	next := map[string]int{}
	for _, is := range c.order {
		class, _, _ := strings.Cut(is, " ")
		next[class]++
		require.Equal(t, fmt.Sprintf("%s %020d", class, next[class]), is)
	}
	require.Zero(t, box.Stats().Lost)
}
