// Package otlp sends events to a collector of OpenTelemetry, as OTLP over HTTP in
// protobuf (opentelemetry-proto, "OTLP Specification 1.x", OTLP/HTTP): samples and
// probes as metrics to URL/v1/metrics, results as log records to URL/v1/logs.
//
//	sender, err := otlp.New(otlp.Options{URL: "https://collector.example:4318"})
//	…
//	go box.Run(ctx, sender) // box is an outbox.Outbox
//
// Where results go elsewhere, outbox.ByClass(other, sender) takes metrics here alone.
//
// # Metrics
//
// Each value is a point of a gauge, dated when it was measured, so that what waited
// in the outbox for weeks arrives where it belongs: "cpu.busy" of the sample "device"
// is pawl.device.cpu.busy, and "memory" of "unit/app.service" is pawl.unit.memory with
// the attribute name. A probe is pawl.probe.well, 1 or 0, with the attribute name. A
// value whose time nobody knows is left out: its boot never had a trusted clock.
//
// # Logs
//
// A result is a record with the event as JSON for its body, the event name pawl.KIND,
// and the attributes pawl.id, which stays the same when it comes again, pawl.tx and
// pawl.reason. Its time is missing where the device did not trust its clock.
//
// The resource has service.name "pawl", host.name, which is the device, and the
// release that runs as service.version, pawl.product, pawl.variant and pawl.seq.
package otlp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	logpost "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	metricpost "go.opentelemetry.io/proto/slim/otlp/collector/metrics/v1"
	"google.golang.org/protobuf/proto"

	"github.com/pawl-ota/pawl/monitor/internal/post"
	"github.com/pawl-ota/pawl/monitor/outbox"
)

// Options configure a [Sender]. URL is needed.
type Options struct {
	// URL is the collector, http or https; /v1/metrics and /v1/logs are added.
	URL string
	// Header is sent along, such as Authorization.
	Header http.Header
	// TLS configures https, with a client's certificate say; RootCAs, where it
	// is set, takes the place of the authorities in it and of the system's.
	TLS     *tls.Config
	RootCAs *x509.CertPool
	// Proxy picks a proxy; nil goes by the environment.
	Proxy func(*http.Request) (*url.URL, error)
	// UserAgent is "pawl" where it is empty.
	UserAgent string
	// Retries is how often a request is made again at once when the connection
	// fails; 0 means 2, a negative number never.
	Retries int
}

// Sender is an [outbox.Sender]. It is safe for concurrent use.
type Sender struct {
	url    string
	client *post.Client
	clocks clocks

	undated, rejected atomic.Int64
}

var _ outbox.Sender = (*Sender)(nil)

const contentType = "application/x-protobuf"

// New returns a Sender. An error names the option that is wrong.
func New(o Options) (*Sender, error) {
	if !post.IsURL(o.URL) || strings.ContainsAny(o.URL, "?#") {
		return nil, errors.New("otlp: field URL is not an http or https URL with a host and no more than a path")
	}
	return &Sender{url: strings.TrimRight(o.URL, "/"), client: post.New(post.Options{
		Header: o.Header, TLS: o.TLS, RootCAs: o.RootCAs, Proxy: o.Proxy, UserAgent: o.UserAgent, Retries: o.Retries,
	})}, nil
}

// Close lets go of idle connections. The Sender may be used on.
func (s *Sender) Close() error {
	s.client.Close()
	return nil
}

// Bytes returns how many bytes were sent, as they went over the line.
func (s *Sender) Bytes() int64 { return s.client.Bytes() }

// Undated returns how many values were left out because nobody knows when they
// were measured, and Rejected how many values and records the collector took
// no interest in: neither is sent again.
func (s *Sender) Undated() int64 { return s.undated.Load() }

// Rejected is there beside [Sender.Undated].
func (s *Sender) Rejected() int64 { return s.rejected.Load() }

// Send implements [outbox.Sender].
func (s *Sender) Send(ctx context.Context, items []outbox.Item) error {
	b := s.translate(items)
	if err := s.sendMetrics(ctx, b); err != nil {
		return fmt.Errorf("cannot send %d events: %w", len(items), err)
	}
	if err := s.sendLogs(ctx, b); err != nil {
		return fmt.Errorf("cannot send %d events: %w", len(items), err)
	}
	s.undated.Add(b.undated)
	return nil
}

func (s *Sender) sendMetrics(ctx context.Context, b *batch) error {
	if len(b.metrics) == 0 {
		return nil
	}
	var answer metricpost.ExportMetricsServiceResponse
	if err := s.export(ctx, "/v1/metrics", &metricpost.ExportMetricsServiceRequest{ResourceMetrics: b.metrics}, &answer); err != nil {
		return err
	}
	s.rejected.Add(max(answer.GetPartialSuccess().GetRejectedDataPoints(), 0))
	return nil
}

func (s *Sender) sendLogs(ctx context.Context, b *batch) error {
	if len(b.logs) == 0 {
		return nil
	}
	var answer logpost.ExportLogsServiceResponse
	if err := s.export(ctx, "/v1/logs", &logpost.ExportLogsServiceRequest{ResourceLogs: b.logs}, &answer); err != nil {
		return err
	}
	s.rejected.Add(max(answer.GetPartialSuccess().GetRejectedLogRecords(), 0))
	return nil
}

// export posts a message. An answer of 2xx that cannot be read is one without
// news.
func (s *Sender) export(ctx context.Context, path string, message, answer proto.Message) error {
	body, err := proto.Marshal(message)
	if err != nil {
		return &outbox.Refused{Err: err}
	}
	data, err := s.client.Post(ctx, s.url+path, contentType, body)
	if err != nil {
		return err
	}
	if proto.Unmarshal(data, answer) != nil {
		proto.Reset(answer)
	}
	return nil
}
