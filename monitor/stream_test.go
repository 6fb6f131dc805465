package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// memory is a Sink.
type memory struct {
	keep []bool
	keys []string
	data []string
}

func (m *memory) Append(keep bool, key string, data []byte) {
	m.keep, m.keys, m.data = append(m.keep, keep), append(m.keys, key), append(m.data, string(data))
}

func newStream(t *testing.T, sink Sink) *Stream {
	t.Helper()
	s, err := NewStream(StreamOptions{
		Device: "pump-7", Sink: sink, Boot: "0b7c5a1e",
		Now:    func() (time.Time, bool) { return time.Date(2031, 2, 3, 4, 5, 6, 789e6, time.UTC), true },
		Uptime: func() time.Duration { return 90 * time.Second },
	})
	require.NoError(t, err)
	s.run = "TESTRUN"
	return s
}

// TestGolden holds the JSON of one event of each shape.
func TestGolden(t *testing.T) {
	sink := &memory{}
	s := newStream(t, sink)
	s.Emit(Event{Kind: Boot, Reason: "watchdog"})
	s.Running(Release{Product: "pump", Variant: "arm", Seq: 4, Version: "1.3.0"})
	s.During("5-abc", &Release{Product: "pump", Variant: "arm", Seq: 5, Version: "1.4.0", Digest: "sha256:aa"})
	s.Emit(Event{Kind: Staged, Bytes: &Bytes{Metadata: 1, Content: 2, Report: 3, Wasted: 4}})
	s.Probe(Answer{Probe: "port", State: Sick, Saw: "nothing", Error: "refused", InRow: 2, Took: time.Millisecond})
	s.During("", nil)
	s.Emit(Event{
		Kind: Reverted, Tx: "5-abc", Release: &Release{Seq: 5}, From: &Release{Seq: 4}, Reason: "unhealthy: port: refused",
		Condemned: true, Needs: "reboot", Back: true, Took: time.Minute, Key: "5-abc/reverted",
	})
	s.Sample("machine", map[string]float64{"load1": 0.25, "nan": math.NaN(), "inf": math.Inf(1)})
	lost := s.LostEvent(map[string]float64{"metrics": 12})
	got := strings.Join(append(sink.data, string(lost)), "\n") + "\n"
	if os.Getenv("PAWL_UPDATE") == "1" {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile("testdata/events-0.jsonl", []byte(got), 0o644))
	}
	want, err := os.ReadFile("testdata/events-0.jsonl")
	require.NoError(t, err)
	require.Equal(t, string(want), got)
	require.Equal(t, []bool{true, true, false, true, false}, sink.keep)
	require.Equal(t, []string{"", "", "", "5-abc/reverted", ""}, sink.keys)
}

// TestFieldsAreDocumented: EVENTS.md names every field and kind.
func TestFieldsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("EVENTS.md")
	require.NoError(t, err)
	golden, err := os.ReadFile("testdata/events-0.jsonl")
	require.NoError(t, err)
	for l := range strings.Lines(string(golden)) {
		var fields map[string]any
		require.NoError(t, json.Unmarshal([]byte(l), &fields))
		for name := range fields {
			require.Contains(t, string(doc), "`"+name+"`")
		}
	}
	for _, k := range []Kind{Boot, Begin, Staged, Activated, Committed, Reverted, Stuck, Held, Failed, Repaired, Alert, Lost, Changed, Sample} {
		require.Contains(t, string(doc), "`"+string(k)+"`")
	}
}

// TestEventsAreBounded, whatever stands in them.
func TestEventsAreBounded(t *testing.T) {
	sink := &memory{}
	s := newStream(t, sink)
	long := strings.Repeat("\x1b\xffü\n", 1<<16)
	values := map[string]float64{}
	for i := range 5000 {
		values[fmt.Sprint(long[:100], i)] = math.MaxFloat64
	}
	s.Emit(Event{
		Kind: Kind(long), Tx: long, Component: long, Reason: long, Needs: long, Name: long, Values: values,
		Release: &Release{long, long, math.MaxUint64, long, long}, From: &Release{long, long, math.MaxUint64, long, long},
		Probe: &Answer{Probe: long, Saw: long, Error: long},
	})
	require.Less(t, len(sink.data[0]), 64<<10)
	require.True(t, json.Valid([]byte(sink.data[0])))
	require.Zero(t, s.Failed())
}

type broken struct{}

func (broken) Append(bool, string, []byte) { panic("the disk is gone") }

func TestSinkThatPanics(t *testing.T) {
	s := newStream(t, broken{})
	s.Emit(Event{Kind: Begin})
	s.Emit(Event{Kind: Begin})
	require.EqualValues(t, 2, s.Failed())
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		events := s.Events(ctx)
		quick, hung := make(chan uint64, 1000), make(chan bool)
		s.Tell(ctx, func(e Event) { quick <- e.Seq })
		s.Tell(ctx, func(Event) { <-hung })
		s.Tell(ctx, func(Event) { panic("a broken listener") })
		for n := range uint64(300) {
			s.Emit(Event{Kind: Sample})
			synctest.Wait()
			require.Equal(t, n+1, <-quick)
		}
		var slow []uint64
		for e := range events {
			slow = append(slow, e.Seq)
			if e.Seq == 300 {
				break
			}
		}
		require.Len(t, slow, 256, "the oldest are missed")
		require.Equal(t, uint64(45), slow[0])
		require.EqualValues(t, 1, s.Failed())
		close(hung)
		cancel()
		synctest.Wait()
		require.Empty(t, s.readers)
		for range s.Events(ctx) {
			require.Fail(t, "an event after the end")
		}
	})
}

// TestDefaults: the clocks of the machine.
func TestDefaults(t *testing.T) {
	_, err := NewStream(StreamOptions{})
	require.ErrorContains(t, err, "Device")
	_, err = NewStream(StreamOptions{Device: "a\nb"})
	require.ErrorContains(t, err, "Device")
	sink := &memory{}
	s, err := NewStream(StreamOptions{Device: "d", Sink: sink})
	require.NoError(t, err)
	s.Emit(Event{Kind: Boot})
	var e Event
	require.NoError(t, json.Unmarshal([]byte(sink.data[0]), &e))
	require.WithinDuration(t, time.Now(), e.Time, time.Minute)
	require.Positive(t, e.Uptime)
	require.Len(t, e.Boot, 36)
	require.Len(t, e.Run, 16)
}

// TestHealthIntoStream: the two fit.
func TestHealthIntoStream(t *testing.T) {
	sink := &memory{}
	s := newStream(t, sink)
	h, err := NewHealth(HealthOptions{Changed: s.Probe}, Probe{Name: "x", Ask: Func(func(context.Context) error { return errors.New("cold") })})
	require.NoError(t, err)
	require.Error(t, h.Check(t.Context()))
	require.Contains(t, sink.data[0], `"probe":{"probe":"x","state":"sick","error":"cold"`)
}
