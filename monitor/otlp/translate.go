package otlp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	logs "go.opentelemetry.io/proto/slim/otlp/logs/v1"
	metrics "go.opentelemetry.io/proto/slim/otlp/metrics/v1"
	resource "go.opentelemetry.io/proto/slim/otlp/resource/v1"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/monitor/outbox"
)

const (
	scope      = "github.com/pawl-ota/pawl/monitor"
	maxName    = 255 // bytes of the name of a metric
	maxClocks  = 16
	namePrefix = "pawl."
)

// batch is what becomes of some items.
type batch struct {
	metrics []*metrics.ResourceMetrics
	logs    []*logs.ResourceLogs
	undated int64

	key    string // of the resource that the last item was of
	gauges map[string]*metrics.Gauge
}

// translate makes messages of items: one for each stretch of the same resource.
func (s *Sender) translate(items []outbox.Item) *batch {
	b := &batch{}
	events := make([]monitor.Event, len(items))
	for i, item := range items {
		if json.Unmarshal(item.Data, &events[i]) == nil {
			s.clocks.learn(events[i])
		}
	}
	s.clocks.learnNow()
	for i, item := range items {
		e := events[i]
		if item.Keep {
			b.result(e, item)
			continue
		}
		at, ok := s.clocks.date(e)
		if !ok {
			b.undated += int64(max(len(e.Values), 1))
			continue
		}
		b.metric(e, uint64(at.UnixNano()))
	}
	return b
}

// about begins a new stretch where e is of another resource than the one before.
func (b *batch) about(e monitor.Event, class string) (r *resource.Resource, fresh bool) {
	release := monitor.Release{}
	if e.Release != nil {
		release = *e.Release
	}
	key := fmt.Sprintf("%s %q %+v", class, e.Device, release)
	if key == b.key {
		return nil, false
	}
	b.key = key
	r = &resource.Resource{Attributes: attributes(
		"service.name", "pawl", "host.name", e.Device, "service.version", release.Version,
		"pawl.product", release.Product, "pawl.variant", release.Variant)}
	if release.Seq > 0 {
		r.Attributes = append(r.Attributes, &common.KeyValue{Key: "pawl.seq", Value: &common.AnyValue{
			Value: &common.AnyValue_IntValue{IntValue: int64(release.Seq)},
		}})
	}
	return r, true
}

// attributes makes pairs of keys and texts, without those that are empty.
func attributes(pairs ...string) (all []*common.KeyValue) {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			all = append(all, &common.KeyValue{Key: pairs[i], Value: text(pairs[i+1])})
		}
	}
	return all
}

// text is a value; protobuf takes no text that is not UTF-8.
func text(s string) *common.AnyValue {
	return &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: strings.ToValidUTF8(s, "?")}}
}

// metric adds the values of an event.
func (b *batch) metric(e monitor.Event, at uint64) {
	if r, fresh := b.about(e, "metrics"); fresh {
		b.gauges = map[string]*metrics.Gauge{}
		b.metrics = append(b.metrics, &metrics.ResourceMetrics{
			Resource: r, ScopeMetrics: []*metrics.ScopeMetrics{{Scope: &common.InstrumentationScope{Name: scope}}},
		})
	}
	if e.Probe != nil {
		well := 0.0
		if e.Probe.State == monitor.Well {
			well = 1
		}
		b.point("probe.well", e.Probe.Probe, well, at)
	}
	sample, of, _ := strings.Cut(e.Name, "/")
	for _, name := range slices.Sorted(maps.Keys(e.Values)) {
		b.point(sample+"."+name, of, e.Values[name], at)
	}
}

// point adds one value to the gauge of a name.
func (b *batch) point(name, of string, v float64, at uint64) {
	name = metricName(name)
	g := b.gauges[name]
	if g == nil {
		g = &metrics.Gauge{}
		b.gauges[name] = g
		in := b.metrics[len(b.metrics)-1].ScopeMetrics[0]
		in.Metrics = append(in.Metrics, &metrics.Metric{Name: name, Data: &metrics.Metric_Gauge{Gauge: g}})
	}
	g.DataPoints = append(g.DataPoints, &metrics.NumberDataPoint{
		TimeUnixNano: at, Value: &metrics.NumberDataPoint_AsDouble{AsDouble: v}, Attributes: attributes("name", of),
	})
}

// metricName keeps to what a name may hold (OpenTelemetry specification, "Metrics
// API", instrument name syntax).
func metricName(name string) string {
	name = strings.Map(func(c rune) rune {
		if c < 0x80 && (c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.ContainsRune("_.-/", c)) {
			return c
		}
		return '_'
	}, namePrefix+name)
	return name[:min(len(name), maxName)]
}

// result adds a record for an event.
func (b *batch) result(e monitor.Event, item outbox.Item) {
	if r, fresh := b.about(e, "logs"); fresh {
		b.logs = append(b.logs, &logs.ResourceLogs{
			Resource: r, ScopeLogs: []*logs.ScopeLogs{{Scope: &common.InstrumentationScope{Name: scope}}},
		})
	}
	in := b.logs[len(b.logs)-1].ScopeLogs[0]
	record := &logs.LogRecord{
		ObservedTimeUnixNano: uint64(time.Now().UnixNano()), Body: text(string(item.Data)), EventName: namePrefix + string(e.Kind),
		Attributes: attributes("pawl.id", item.ID, "pawl.tx", e.Tx, "pawl.name", e.Name, "pawl.reason", e.Reason),
	}
	record.SeverityNumber, record.SeverityText = severity(e)
	if e.TimeTrusted {
		record.TimeUnixNano = uint64(e.Time.UnixNano())
	}
	in.LogRecords = append(in.LogRecords, record)
}

func severity(e monitor.Event) (logs.SeverityNumber, string) {
	switch {
	case e.Kind == monitor.Stuck, e.Kind == monitor.Reverted, e.Kind == monitor.Alert && e.Values["firing"] == 1:
		return logs.SeverityNumber_SEVERITY_NUMBER_ERROR, "ERROR"
	case e.Kind == monitor.Failed, e.Kind == monitor.Held, e.Kind == monitor.Lost, e.Kind == monitor.Repaired && e.Reason != "":
		return logs.SeverityNumber_SEVERITY_NUMBER_WARN, "WARN"
	}
	return logs.SeverityNumber_SEVERITY_NUMBER_INFO, "INFO"
}

// clocks know when boots began, of events with a trusted time: they date the
// others of the same boot.
type clocks struct {
	mu    sync.Mutex
	began map[string]time.Time // by boot
	order []string
}

func (c *clocks) learn(e monitor.Event) {
	if e.TimeTrusted && e.Boot != "" {
		c.set(e.Boot, e.Time.Add(-e.Uptime))
	}
}

// learnNow asks for this boot, where its clock is trusted by now.
func (c *clocks) learnNow() {
	now, trusted := monitor.WallClock()
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	var up unix.Timespec
	if trusted && err == nil && unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) == nil {
		c.set(string(bytes.TrimSpace(id)), now.Add(-time.Duration(up.Nano())))
	}
}

func (c *clocks) set(boot string, began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.began == nil {
		c.began = map[string]time.Time{}
	}
	if _, ok := c.began[boot]; !ok {
		c.order = append(c.order, boot)
	}
	c.began[boot] = began
	if len(c.order) > maxClocks {
		delete(c.began, c.order[0])
		c.order = c.order[1:]
	}
}

// date returns when e happened.
func (c *clocks) date(e monitor.Event) (time.Time, bool) {
	if e.TimeTrusted {
		return e.Time, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	began, ok := c.began[e.Boot]
	return began.Add(e.Uptime), ok && e.Boot != ""
}
