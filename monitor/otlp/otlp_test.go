package otlp

import (
	"compress/gzip"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	logpost "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	metricpost "go.opentelemetry.io/proto/slim/otlp/collector/metrics/v1"
	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	"google.golang.org/protobuf/proto"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/monitor/outbox"
)

// collector is the receiving end of OTLP/HTTP, with OpenTelemetry's own
// messages. answer, where it is there, comes first: 0 goes on.
type collector struct {
	answer   func(w http.ResponseWriter, n int) int
	rejected int64

	mu      sync.Mutex
	n       int
	bad     []string
	metrics []*metricpost.ExportMetricsServiceRequest
	logs    []*logpost.ExportLogsServiceRequest
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	if c.answer != nil {
		if status := c.answer(w, c.n); status != 0 {
			w.WriteHeader(status)
			return
		}
	}
	var reply proto.Message
	body, err := io.ReadAll(plain(r))
	if err == nil {
		reply, err = c.take(r.URL.Path, body)
	}
	if err != nil || r.Header.Get("Content-Type") != "application/x-protobuf" {
		c.bad = append(c.bad, fmt.Sprint(r.URL.Path, r.Header, err))
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	data, _ := proto.Marshal(reply)
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(data)
}

func plain(r *http.Request) io.Reader {
	if r.Header.Get("Content-Encoding") != "gzip" {
		return r.Body
	}
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		return http.NoBody
	}
	return z
}

func (c *collector) take(path string, body []byte) (proto.Message, error) {
	switch path {
	case "/base/v1/metrics":
		m := &metricpost.ExportMetricsServiceRequest{}
		err := proto.Unmarshal(body, m)
		c.metrics = append(c.metrics, m)
		return &metricpost.ExportMetricsServiceResponse{PartialSuccess: &metricpost.ExportMetricsPartialSuccess{RejectedDataPoints: c.rejected}}, err
	case "/base/v1/logs":
		m := &logpost.ExportLogsServiceRequest{}
		err := proto.Unmarshal(body, m)
		c.logs = append(c.logs, m)
		return &logpost.ExportLogsServiceResponse{}, err
	}
	return nil, fmt.Errorf("nothing is at %s", path)
}

func serve(t *testing.T, c *collector) *Sender {
	t.Helper()
	server := httptest.NewTLSServer(c)
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	s, err := New(Options{URL: server.URL + "/base/", RootCAs: roots})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	s.client.HTTP.RetryWaitMin, s.client.HTTP.RetryWaitMax = time.Millisecond, time.Millisecond
	return s
}

var noon = time.Date(2031, 2, 3, 12, 0, 0, 0, time.UTC)

// item is an event in the outbox, of the boot "b" that began an hour before noon.
func item(t *testing.T, keep bool, e monitor.Event) outbox.Item {
	t.Helper()
	e.Device = "pump-7"
	data, err := json.Marshal(e)
	require.NoError(t, err)
	return outbox.Item{ID: "tag-1", Seq: 1, Keep: keep, Data: data}
}

// said are the attributes as a map.
func said(all []*common.KeyValue) map[string]string {
	is := map[string]string{}
	for _, kv := range all {
		if is[kv.Key] = kv.Value.GetStringValue(); is[kv.Key] == "" {
			is[kv.Key] = fmt.Sprint(kv.Value.GetIntValue())
		}
	}
	return is
}

// TestMetrics: what a collector finds of samples and probes, dated when they were
// measured.
func TestMetrics(t *testing.T) {
	c := &collector{rejected: 2}
	s := serve(t, c)
	r4, r5 := &monitor.Release{Product: "pump", Variant: "arm", Seq: 4, Version: "1.3"}, &monitor.Release{Product: "pump", Variant: "arm", Seq: 5, Version: "1.4"}
	err := s.Send(t.Context(), []outbox.Item{
		item(t, false, monitor.Event{Kind: monitor.Sample, Boot: "b", Uptime: 30 * time.Minute, Release: r4, Name: "device", Values: map[string]float64{"cpu.busy": 0.5, "disk./var.free": 7}}),
		item(t, false, monitor.Event{Kind: monitor.Sample, Boot: "b", Uptime: time.Hour, Time: noon, TimeTrusted: true, Release: r4, Name: "device", Values: map[string]float64{"cpu.busy": 0.25}}),
		item(t, false, monitor.Event{Kind: monitor.Sample, Boot: "older", Time: time.Unix(9, 0), Release: r4, Name: "device", Values: map[string]float64{"x": 1, "y": 2}}),
		item(t, false, monitor.Event{Kind: monitor.Sample, Boot: "b", Uptime: time.Hour, Release: r4, Name: "unit/app.service", Values: map[string]float64{"memory": 3}}),
		item(t, false, monitor.Event{Kind: monitor.Changed, Boot: "b", Uptime: time.Hour, Release: r5, Name: "port", Probe: &monitor.Answer{Probe: "port", State: monitor.Well}}),
		{ID: "x", Data: []byte("\xff no JSON")},
	})
	require.NoError(t, err)
	require.Empty(t, c.bad)
	require.Len(t, c.metrics, 1)
	require.Empty(t, c.logs)
	require.EqualValues(t, 3, s.Undated())
	require.EqualValues(t, 2, s.Rejected())
	require.Positive(t, s.Bytes())

	of := c.metrics[0].ResourceMetrics
	require.Len(t, of, 2)
	require.Equal(t, map[string]string{
		"service.name": "pawl", "host.name": "pump-7", "service.version": "1.3", "pawl.product": "pump", "pawl.variant": "arm", "pawl.seq": "4",
	}, said(of[0].Resource.Attributes))
	require.Equal(t, "1.4", said(of[1].Resource.Attributes)["service.version"])
	got := map[string]string{}
	for _, r := range of {
		for _, m := range r.ScopeMetrics[0].Metrics {
			for _, p := range m.GetGauge().DataPoints {
				got[m.Name] += fmt.Sprintf("%g at %s %v;", p.GetAsDouble(), time.Unix(0, int64(p.TimeUnixNano)).UTC().Format("15:04"), said(p.Attributes))
			}
		}
	}
	require.Equal(t, map[string]string{
		"pawl.device.cpu.busy":       "0.5 at 11:30 map[];0.25 at 12:00 map[];",
		"pawl.device.disk./var.free": "7 at 11:30 map[];",
		"pawl.unit.memory":           "3 at 12:00 map[name:app.service];",
		"pawl.probe.well":            "1 at 12:00 map[name:port];",
	}, got)
}

// TestLogs: what it finds of results.
func TestLogs(t *testing.T) {
	c := &collector{}
	s := serve(t, c)
	first := item(t, true, monitor.Event{Kind: monitor.Reverted, Time: noon, TimeTrusted: true, Tx: "5-abc", Reason: "cold"})
	require.NoError(t, s.Send(t.Context(), []outbox.Item{first, item(t, true, monitor.Event{Kind: monitor.Alert, Name: "hot", Values: map[string]float64{"firing": 1}}),
		item(t, true, monitor.Event{Kind: monitor.Held}), item(t, true, monitor.Event{Kind: monitor.Committed}), {ID: "x", Keep: true, Data: []byte("\xff")}}))
	require.Empty(t, c.bad)
	require.Empty(t, c.metrics)
	var all []string
	for _, r := range c.logs[0].ResourceLogs {
		for _, l := range r.ScopeLogs[0].LogRecords {
			all = append(all, l.EventName+" "+l.SeverityText)
			require.NotZero(t, l.ObservedTimeUnixNano)
		}
	}
	require.Equal(t, []string{"pawl.reverted ERROR", "pawl.alert ERROR", "pawl.held WARN", "pawl.committed INFO", "pawl. INFO"}, all)
	l := c.logs[0].ResourceLogs[0].ScopeLogs[0].LogRecords
	require.Equal(t, string(first.Data), l[0].Body.GetStringValue())
	require.EqualValues(t, noon.UnixNano(), l[0].TimeUnixNano)
	require.Zero(t, l[1].TimeUnixNano)
	require.Equal(t, map[string]string{"pawl.id": "tag-1", "pawl.tx": "5-abc", "pawl.reason": "cold"}, said(l[0].Attributes))
	require.Equal(t, "hot", said(l[1].Attributes)["pawl.name"])
}

// TestAnswers: what is sent again, what later, what never.
func TestAnswers(t *testing.T) {
	one := []outbox.Item{item(t, true, monitor.Event{Kind: monitor.Boot})}
	var refused *outbox.Refused
	var later *outbox.Later
	for status, check := range map[int]func(error){
		400: func(err error) { require.ErrorAs(t, err, &refused) },
		503: func(err error) { require.ErrorAs(t, err, &later); require.Equal(t, 7*time.Second, later.After) },
		401: func(err error) { require.ErrorContains(t, err, "401"); require.NotErrorAs(t, err, &refused) },
	} {
		c := &collector{answer: func(w http.ResponseWriter, _ int) int {
			if status == 503 {
				w.Header().Set("Retry-After", "7")
			}
			return status
		}}
		check(serve(t, c).Send(t.Context(), one))
		require.Equal(t, 1, c.n)
	}
	garbage := &collector{answer: func(w http.ResponseWriter, _ int) int { _, _ = w.Write([]byte("<html>")); return 200 }}
	require.NoError(t, serve(t, garbage).Send(t.Context(), one))
	for _, u := range []string{"", "ftp://h", "http://", "http://h/?q"} {
		_, err := New(Options{URL: u})
		require.ErrorContains(t, err, "field URL")
	}
}

// TestByClass: the whole way out of an outbox, of metrics alone, past a collector
// that fails at first.
func TestByClass(t *testing.T) {
	c := &collector{answer: func(_ http.ResponseWriter, n int) int { return []int{0, 503, 0, 429, 0}[min(n, 4)] }}
	box, err := outbox.Open(t.Context(), outbox.Options{
		Dir: t.TempDir() + "/box", Interval: time.Millisecond, Delay: time.Millisecond, RetryMin: time.Millisecond, RetryMax: 2 * time.Millisecond, BatchItems: 20,
	})
	require.NoError(t, err)
	stream, err := monitor.NewStream(monitor.StreamOptions{Device: "pump-7", Sink: box, Now: func() (time.Time, bool) { return noon, true }})
	require.NoError(t, err)
	for n := range 100 {
		stream.Emit(monitor.Event{Kind: monitor.Held, Tx: fmt.Sprint(n)})
		stream.Sample("load", map[string]float64{"n": float64(n)})
	}
	require.NoError(t, box.Flush(t.Context()))
	results := &keeper{}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- box.Run(ctx, outbox.ByClass(results, serve(t, c))) }()
	require.Eventually(t, func() bool { s := box.Stats(); return s.Results+s.Metrics == 0 }, 30*time.Second, 10*time.Millisecond)
	cancel()
	<-ended
	require.NoError(t, box.Close())
	require.Equal(t, 100, results.n)
	require.Empty(t, c.logs)
	var got []float64
	for _, m := range c.metrics {
		for _, p := range m.ResourceMetrics[0].ScopeMetrics[0].Metrics[0].GetGauge().DataPoints {
			got = append(got, p.GetAsDouble())
		}
	}
	require.Len(t, got, 100)
	require.IsIncreasing(t, got)
}

// keeper counts what it is given.
type keeper struct{ n int }

func (k *keeper) Send(_ context.Context, items []outbox.Item) error { k.n += len(items); return nil }

func TestMetricName(t *testing.T) {
	for name, want := range map[string]string{"a.b": "pawl.a.b", "disk.ä b.free": "pawl.disk.__b.free", "temperature.cpu-thermal": "pawl.temperature.cpu-thermal"} {
		require.Equal(t, want, metricName(name))
	}
	require.Len(t, metricName(string(make([]byte, 400))), 255)
}

func TestClocksAreBounded(t *testing.T) {
	var c clocks
	for n := range 100 {
		c.learn(monitor.Event{Boot: fmt.Sprint(n), TimeTrusted: true})
	}
	require.Len(t, c.began, maxClocks)
	_, ok := c.date(monitor.Event{Boot: "99"})
	require.True(t, ok)
	_, ok = c.date(monitor.Event{Boot: "3"})
	require.False(t, ok)
	_, ok = c.date(monitor.Event{})
	require.False(t, ok)
}
