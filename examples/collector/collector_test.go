package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/monitor/cloudevents"
	"github.com/pawl-ota/pawl/monitor/outbox"
)

// collect serves a collector with an empty store.
func collect(t *testing.T) (*store, *httptest.Server) {
	t.Helper()
	s, err := openStore(filepath.Join(t.TempDir(), "fleet.db"), 1000)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.close()) })
	server := httptest.NewServer(newHandler(s))
	t.Cleanup(server.Close)
	return s, server
}

func release(seq uint64) *monitor.Release {
	return &monitor.Release{Product: "pump", Variant: "arm", Seq: seq, Version: fmt.Sprint("1.", seq)}
}

// report has a device send its events through an outbox.
func report(t *testing.T, url, name string, events ...monitor.Event) {
	t.Helper()
	box, err := outbox.Open(t.Context(), outbox.Options{Dir: t.TempDir() + "/box", Interval: time.Nanosecond, RetryMax: time.Millisecond, RetryMin: time.Millisecond})
	require.NoError(t, err)
	stream, err := monitor.NewStream(monitor.StreamOptions{Device: name, Sink: box})
	require.NoError(t, err)
	stream.Running(*release(4))
	for _, e := range events {
		if e.Tx != "" && e.Release == nil {
			e.Release = release(5)
		}
		stream.Emit(e)
	}
	sender, err := cloudevents.New(cloudevents.Options{URL: url + "/events"})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- box.Run(ctx, sender) }()
	require.NoError(t, box.Flush(ctx))
	require.Eventually(t, func() bool { s := box.Stats(); return s.Results+s.Metrics == 0 }, 20*time.Second, 5*time.Millisecond)
	cancel()
	<-ended
	require.NoError(t, box.Close())
}

// fill has a fleet of five devices send what happens in a rollout.
func fill(t *testing.T, url string) {
	t.Helper()
	begin := monitor.Event{Kind: monitor.Begin, Tx: "5-abc", From: release(4)}
	report(t, url, "pump-1", monitor.Event{Kind: monitor.Boot}, begin, monitor.Event{Kind: monitor.Activated, Tx: "5-abc", From: release(4)},
		monitor.Event{Kind: monitor.Committed, Tx: "5-abc", From: release(4), Release: release(5)})
	report(t, url, "pump-2", begin, monitor.Event{Kind: monitor.Reverted, Tx: "5-abc", From: release(4), Release: release(5), Reason: "unhealthy: app: it is cold (2 degrees)"},
		monitor.Event{Kind: monitor.Held, Reason: "the release failed its trial on this device"})
	report(t, url, "pump-3", begin, monitor.Event{Kind: monitor.Staged, Tx: "5-abc", From: release(4)})
	report(t, url, "pump-4", monitor.Event{Kind: monitor.Boot}, monitor.Event{Kind: monitor.Alert, Name: "hot", Reason: "device temperature.max is 90, limit 85", Values: map[string]float64{"firing": 1}},
		monitor.Event{Kind: monitor.Changed, Name: "port", Reason: "connection refused", Probe: &monitor.Answer{Probe: "port", State: monitor.Sick}},
		monitor.Event{Kind: monitor.Changed, Name: "disk", Probe: &monitor.Answer{Probe: "disk", State: monitor.Sick}},
		monitor.Event{Kind: monitor.Changed, Name: "disk", Probe: &monitor.Answer{Probe: "disk", State: monitor.Well}})
	report(t, url, `<script>alert("5")</script>&/`, monitor.Event{Kind: monitor.Boot})
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode, string(body))
	return string(body)
}

func TestFleet(t *testing.T) {
	s, server := collect(t)
	require.Contains(t, get(t, server.URL+"/fleet"), "No device has sent anything yet")
	fill(t, server.URL)
	all, err := s.fleet(t.Context(), 100)
	require.NoError(t, err)
	var lines []string
	for _, d := range all {
		lines = append(lines, fmt.Sprintf("%s runs %d, %s %d: %s %v", d.Device, d.Seq, d.State, d.WantedSeq, d.Reason, d.Troubles))
	}
	require.Equal(t, []string{
		"pump-2 runs 4, rolled back 5: unhealthy: app: it is cold (2 degrees) []",
		"pump-4 runs 4,  0:  [{alert hot device temperature.max is 90, limit 85} {probe port connection refused}]",
		"pump-3 runs 4, staged 5:  []",
		`<script>alert("5")</script>&/ runs 4,  0:  []`,
		"pump-1 runs 5, ok 0:  []",
	}, lines)
	rollouts, err := s.rollouts(t.Context())
	require.NoError(t, err)
	require.Equal(t, []rollout{{Product: "pump", Variant: "arm", Seq: 5, Done: 1, OnTheWay: 1, RolledBack: 1, Rest: 2, All: 5}}, rollouts)

	page := get(t, server.URL+"/fleet")
	require.Contains(t, page, "1 of 5 run it, 1 are on the way, 1 went back, 2 have not begun")
	require.Contains(t, page, "unhealthy: app: it is cold (2 degrees)")
	require.NotContains(t, page, "<script>")
	require.Contains(t, get(t, server.URL+"/"), "refresh()")
	past := get(t, server.URL+"/device?name=pump-2")
	require.Less(t, strings.Index(past, "held"), strings.Index(past, "reverted"))
	require.Contains(t, past, "5-abc")
	require.Contains(t, get(t, server.URL+"/device?name=nobody"), "Nothing is known of it")
}

// TestAgain: what comes again changes nothing, also after a new start, and what
// is old goes.
func TestAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.db")
	event := func(n int, kind string) cloudEvent {
		return cloudEvent{"1.0", fmt.Sprint(n), "/devices/d", fmt.Appendf(nil, `{"kind":%q,"device":"d","tx":"t","reason":"why %d"}`, kind, n)}
	}
	for range 2 {
		s, err := openStore(path, 50)
		require.NoError(t, err)
		require.NoError(t, s.take(t.Context(), []cloudEvent{event(1, "begin"), event(2, "reverted")}, time.Now()))
		require.NoError(t, s.take(t.Context(), []cloudEvent{event(1, "begin")}, time.Now()))
		all, err := s.fleet(t.Context(), 9)
		require.NoError(t, err)
		require.Equal(t, "rolled back why 2", all[0].State+" "+all[0].Reason)
		require.NoError(t, s.close())
	}
	s, err := openStore(path, 50)
	require.NoError(t, err)
	for n := range 200 {
		require.NoError(t, s.take(t.Context(), []cloudEvent{event(100+n, "failed")}, time.Now()))
	}
	all, err := s.history(t.Context(), "d", 1000)
	require.NoError(t, err)
	require.Len(t, all, 50)
	require.NoError(t, s.close())
}

func TestRefused(t *testing.T) {
	s, server := collect(t)
	const kind = "application/cloudevents-batch+json"
	for _, c := range []struct {
		kind, body string
		status     int
	}{
		{"application/json", "[]", 400}, {kind, "{", 400}, {kind, `[{"specversion":"0.3","id":"1","source":"s"}]`, 400},
		{kind, `[{"specversion":"1.0","source":"s"}]`, 400}, {kind, "[" + strings.Repeat(" ", maxBody) + "]", 413},
		{kind, `[{"specversion":"1.0","id":"1","source":"s","data_base64":"AAAA"}]`, 204}, {kind, "[]", 204},
	} {
		resp, err := http.Post(server.URL+"/events", c.kind, strings.NewReader(c.body))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, c.status, resp.StatusCode, "%.60s", c.body)
	}
	all, err := s.fleet(t.Context(), 9)
	require.NoError(t, err)
	require.Len(t, all, 1)
	_, err = openStore(filepath.Join(t.TempDir(), "no", "folder"), 1)
	require.ErrorContains(t, err, "cannot open")
}

func TestRun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, run(ctx, []string{"-listen", "127.0.0.1:0", "-db", filepath.Join(t.TempDir(), "fleet.db")}))
	require.Error(t, run(ctx, []string{"-no-such-flag"}))
	require.Error(t, run(ctx, []string{"-listen", "nowhere", "-db", filepath.Join(t.TempDir(), "fleet.db")}))
}
