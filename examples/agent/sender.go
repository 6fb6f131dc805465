//go:build monitor

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"

	"github.com/pawl-ota/pawl/monitor/cloudevents"
	"github.com/pawl-ota/pawl/monitor/mqtt"
	"github.com/pawl-ota/pawl/monitor/otlp"
	"github.com/pawl-ota/pawl/monitor/outbox"
)

// sender is where events go, and what is to run besides while they do.
type sender struct {
	outbox.Sender
	beside func(ctx context.Context) error // nil for nothing
	counts []interface{ Bytes() int64 }    // of what was sent
}

// bytes are those that were sent.
func (s sender) bytes() (sum int64) {
	for _, c := range s.counts {
		sum += c.Bytes()
	}
	return sum
}

// sender makes what the configuration asks for; its Sender is nil where events
// go nowhere.
func (r *reports) sender(device string) (s sender, err error) {
	switch {
	case r.URL != "":
		s, err = r.cloudEvents()
	case r.MQTT != nil:
		s, err = r.MQTT.sender(device)
	}
	if err != nil || r.OTLP == nil {
		return s, err
	}
	metrics, err := r.OTLP.otlp()
	switch {
	case err != nil:
		return s, fmt.Errorf("otlp: %w", err)
	case s.Sender == nil:
		s.Sender = metrics
	default:
		s.Sender = outbox.ByClass(s.Sender, metrics)
	}
	s.counts = append(s.counts, metrics)
	return s, nil
}

func (r *reports) cloudEvents() (sender, error) {
	conf, pool, err := r.tls()
	if err != nil {
		return sender{}, err
	}
	to, err := cloudevents.New(cloudevents.Options{URL: r.URL, Header: r.header(), TLS: conf, RootCAs: pool, UserAgent: "pawl-agent"})
	if err != nil {
		return sender{}, err
	}
	return sender{Sender: to, counts: []interface{ Bytes() int64 }{to}}, nil
}

func (e *endpoint) otlp() (*otlp.Sender, error) {
	conf, pool, err := e.tls()
	if err != nil {
		return nil, err
	}
	return otlp.New(otlp.Options{URL: e.URL, Header: e.header(), TLS: conf, RootCAs: pool, UserAgent: "pawl-agent"})
}

func (b *broker) sender(device string) (sender, error) {
	conf, pool, err := b.tls()
	if err != nil {
		return sender{}, err
	}
	var password []byte
	if b.PasswordFile != "" {
		if password, err = readAtMost(b.PasswordFile, 4<<10); err != nil {
			return sender{}, err
		}
	}
	to, err := mqtt.New(mqtt.Options{
		URL: b.URL, Device: device, Prefix: b.Prefix, Username: b.Username, Password: bytes.TrimSpace(password), TLS: conf, RootCAs: pool,
	})
	if err != nil {
		return sender{}, err
	}
	return sender{to, to.Run, []interface{ Bytes() int64 }{to}}, nil
}

func (e *endpoint) header() http.Header {
	h := http.Header{}
	for name, value := range e.Headers {
		h.Set(name, value)
	}
	return h
}

// tls returns what the files say; the pool is nil for the system's authorities.
func (i identity) tls() (*tls.Config, *x509.CertPool, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	var pool *x509.CertPool
	var err error
	if i.CA != "" {
		if pool, err = authorities(i.CA); err != nil {
			return nil, nil, fmt.Errorf("ca: %w", err)
		}
	}
	if i.Cert != "" {
		pair, err := tls.LoadX509KeyPair(i.Cert, i.Key)
		if err != nil {
			return nil, nil, fmt.Errorf("cert: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, pool, nil
}

// errNowhere is a sender's that could not be made: events wait.
type errNowhere struct{ error }

// Send implements outbox.Sender.
func (e errNowhere) Send(context.Context, []outbox.Item) error {
	return errors.New("cannot send: " + e.Error())
}
