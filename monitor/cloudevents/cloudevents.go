// Package cloudevents sends events as CloudEvents 1.0 over HTTPS, many at a time,
// as JSON (cloudevents/spec, "JSON Event Format", section 4, and "HTTP Protocol
// Binding", section 3.3), compressed.
//
//	sender, err := cloudevents.New(cloudevents.Options{URL: "https://collector.example/events"})
//	…
//	go box.Run(ctx, sender) // box is an outbox.Outbox
//
// The attributes of an event: id and sequence are of [outbox.Item], time is there
// where the device trusted its clock, source is the device, type is
// "com.github.pawl-ota." and the kind, and data is the event as EVENTS.md in
// package monitor has it. A receiver answers with 2xx when it has stored
// all of them, and drops those whose source and id it has already.
//
// Other answers: 400, 413 and 422 mean that the batch will never be taken as it
// is; it comes again in smaller ones until it is known which event is meant. All
// others mean later, after what Retry-After says.
package cloudevents

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/pawl-ota/pawl/monitor/internal/cloudevent"
	"github.com/pawl-ota/pawl/monitor/outbox"
)

// Options configure a [Sender]. URL is needed.
type Options struct {
	// URL takes the events; http or https.
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
	// Plain sends without compression. It is not needed for a receiver that
	// answers 415.
	Plain bool
	// Retries is how often a request is made again at once when the connection
	// fails; 0 means 2, a negative number never.
	Retries int
}

// Sender is an [outbox.Sender]. It is safe for concurrent use.
type Sender struct {
	o      Options
	client *retryablehttp.Client
	plain  atomic.Bool
	bytes  atomic.Int64
}

var _ outbox.Sender = (*Sender)(nil)

const (
	contentType = "application/cloudevents-batch+json; charset=UTF-8"
	maxAnswer   = 4 << 10
	maxHeader   = 64 << 10
	connectTime = 30 * time.Second
	retryMin    = time.Second
	retryMax    = 10 * time.Second
)

// New returns a Sender. An error names the option that is wrong.
func New(o Options) (*Sender, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("cloudevents: field URL is not an http or https URL with a host")
	}
	o.UserAgent = cmp.Or(o.UserAgent, "pawl")
	if o.Proxy == nil {
		o.Proxy = http.ProxyFromEnvironment
	}
	s := &Sender{o: o}
	s.plain.Store(o.Plain)
	s.client = &retryablehttp.Client{
		HTTPClient:   &http.Client{Transport: o.transport(), CheckRedirect: stay},
		RetryMax:     max(cmp.Or(o.Retries, 2), 0),
		RetryWaitMin: retryMin,
		RetryWaitMax: retryMax,
		CheckRetry:   onlyBroken,
		Backoff:      jitter,
		ErrorHandler: gaveUp,
	}
	return s, nil
}

func (o Options) transport() *http.Transport {
	conf := &tls.Config{}
	if o.TLS != nil {
		conf = o.TLS.Clone()
	}
	conf.MinVersion = max(conf.MinVersion, tls.VersionTLS12)
	if o.RootCAs != nil {
		conf.RootCAs = o.RootCAs
	}
	return &http.Transport{
		Proxy: o.Proxy, TLSClientConfig: conf, TLSHandshakeTimeout: connectTime, ForceAttemptHTTP2: true,
		DisableCompression: true, MaxIdleConnsPerHost: 1, IdleConnTimeout: connectTime, MaxResponseHeaderBytes: maxHeader,
	}
}

// stay has a redirect be an answer: events go nowhere else.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// onlyBroken tries again where there was no answer at all; the outbox decides
// about answers. Events have ids: one that arrived is not taken twice.
func onlyBroken(ctx context.Context, _ *http.Response, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	return err != nil && !untrusted, nil
}

func jitter(least, most time.Duration, attempt int, _ *http.Response) time.Duration {
	return rand.N(min(most, least<<min(attempt, 10)))
}

// gaveUp takes the place of a message that shows the whole URL.
func gaveUp(resp *http.Response, err error, _ int) (*http.Response, error) {
	if broken, ok := errors.AsType[*url.Error](err); ok {
		err = broken.Err
	}
	return resp, err
}

// Close lets go of idle connections. The Sender may be used on.
func (s *Sender) Close() error {
	s.client.HTTPClient.CloseIdleConnections()
	return nil
}

// Bytes returns how many bytes of events were sent, as they went over the line.
func (s *Sender) Bytes() int64 { return s.bytes.Load() }

// Send implements [outbox.Sender].
func (s *Sender) Send(ctx context.Context, items []outbox.Item) error {
	body, err := encode(items)
	if err == nil {
		err = s.post(ctx, body)
	}
	if err != nil {
		return fmt.Errorf("cannot send %d events: %w", len(items), err)
	}
	return nil
}

// post sends once, and without compression once more where that was not
// understood.
func (s *Sender) post(ctx context.Context, body []byte) error {
	for {
		plain := s.plain.Load()
		resp, err := s.request(ctx, body, plain)
		if err != nil {
			return err
		}
		err = judge(resp)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUnsupportedMediaType || plain {
			return err
		}
		s.plain.Store(true)
	}
}

func (s *Sender) request(ctx context.Context, body []byte, plain bool) (*http.Response, error) {
	sent := body
	if !plain {
		var err error
		if sent, err = compress(body); err != nil {
			return nil, err
		}
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, s.o.URL, sent)
	if err != nil {
		return nil, err
	}
	if s.o.Header != nil {
		req.Header = s.o.Header.Clone()
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("User-Agent", s.o.UserAgent)
	if !plain {
		req.Header.Set("Content-Encoding", "gzip")
	}
	s.bytes.Add(int64(len(sent)))
	return s.client.Do(req)
}

func compress(data []byte) ([]byte, error) {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(data)
	err = errors.Join(err, w.Close())
	return out.Bytes(), err
}

// judge says what an answer means.
func judge(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // what did not arrive of a message is not missed
	if resp.StatusCode/100 == 2 {
		return nil
	}
	err := fmt.Errorf("the receiver answered %d: %.200q", resp.StatusCode, bytes.TrimSpace(text))
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return &outbox.Refused{Err: err}
	}
	if after := retryAfter(resp.Header, time.Now()); after > 0 {
		return &outbox.Later{After: after, Err: err}
	}
	return err
}

// retryAfter reads Retry-After (RFC 9110, section 10.2.3): seconds, or a date,
// which is taken against the receiver's own clock where the answer says it.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	if theirs, err := http.ParseTime(h.Get("Date")); err == nil {
		now = theirs
	}
	return max(at.Sub(now), 0)
}

func encode(items []outbox.Item) ([]byte, error) {
	all := make([]cloudevent.Event, len(items))
	for i, item := range items {
		all[i] = cloudevent.Of(item)
	}
	return json.Marshal(all)
}
