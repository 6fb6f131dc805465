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
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/pawl-ota/pawl/monitor/internal/cloudevent"
	"github.com/pawl-ota/pawl/monitor/internal/post"
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
	url    string
	client *post.Client
}

var _ outbox.Sender = (*Sender)(nil)

const contentType = "application/cloudevents-batch+json; charset=UTF-8"

// New returns a Sender. An error names the option that is wrong.
func New(o Options) (*Sender, error) {
	if !post.IsURL(o.URL) {
		return nil, errors.New("cloudevents: field URL is not an http or https URL with a host")
	}
	return &Sender{o.URL, post.New(post.Options{
		Header: o.Header, TLS: o.TLS, RootCAs: o.RootCAs, Proxy: o.Proxy, UserAgent: o.UserAgent, Plain: o.Plain, Retries: o.Retries,
	})}, nil
}

// Close lets go of idle connections. The Sender may be used on.
func (s *Sender) Close() error {
	s.client.Close()
	return nil
}

// Bytes returns how many bytes of events were sent, as they went over the line.
func (s *Sender) Bytes() int64 { return s.client.Bytes() }

// Send implements [outbox.Sender].
func (s *Sender) Send(ctx context.Context, items []outbox.Item) error {
	body, err := encode(items)
	if err == nil {
		_, err = s.client.Post(ctx, s.url, contentType, body)
	}
	if err != nil {
		return fmt.Errorf("cannot send %d events: %w", len(items), err)
	}
	return nil
}

func encode(items []outbox.Item) ([]byte, error) {
	all := make([]cloudevent.Event, len(items))
	for i, item := range items {
		all[i] = cloudevent.Of(item)
	}
	return json.Marshal(all)
}
