// Package mqtt sends events to a broker by MQTT 5, one message for each, as
// CloudEvents 1.0 in binary mode (cloudevents/spec, "MQTT Protocol Binding",
// section 3.1): the payload is the event as EVENTS.md in package monitor has it,
// the attributes are user properties.
//
//	sender, err := mqtt.New(mqtt.Options{URL: "mqtts://broker.example:8883", Device: "pump-7"})
//	…
//	go sender.Run(ctx)      // stays connected
//	go box.Run(ctx, sender) // box is an outbox.Outbox
//
// An event of a kind goes to the topic PREFIX/DEVICE/KIND with QoS 1: "pawl/pump-7/committed",
// so that "pawl/+/reverted" is what went wrong anywhere. It counts as taken when the
// broker acknowledged it. One that comes again has the same id.
//
// While [Sender.Run] stays connected, the retained message at PREFIX/DEVICE/status is
// "online". It is "offline" after an end that was in order, and by the last will when
// the device is gone without a word. Without Run a connection is made for each batch,
// and there is no status.
package mqtt

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/pawl-ota/pawl/monitor/internal/cloudevent"
	"github.com/pawl-ota/pawl/monitor/outbox"
)

// Options configure a [Sender]. URL and Device are needed.
type Options struct {
	// URL is the broker: "mqtts://host:8883", or "mqtt://host:1883" without
	// encryption. The ports may be left out.
	URL string
	// Device is the name of the device, at most 128 bytes.
	Device string
	// Prefix is what topics begin with; empty means "pawl".
	Prefix string
	// ClientID is what the broker knows the device by; empty means
	// "pawl-" and the device.
	ClientID string
	Username string
	Password []byte
	// TLS configures mqtts, with a client's certificate say; RootCAs, where it
	// is set, takes the place of the authorities in it and of the system's.
	TLS     *tls.Config
	RootCAs *x509.CertPool
	// KeepAlive is how long the connection may be silent, to the second; 0
	// means 1 minute. The broker tells the last will one and a half times
	// later.
	KeepAlive time.Duration
	// Dial makes the connection under TLS, through a proxy say; nil connects.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

const (
	connectTime = 30 * time.Second
	writeTime   = 30 * time.Second
	ackTime     = 30 * time.Second
	retryMin    = 2 * time.Second
	retryMax    = 5 * time.Minute
	maxAnswer   = 64 << 10 // bytes of a packet that the broker may send
	overhead    = 1 << 10  // bytes of a packet beside topic and payload
	maxDevice   = 128
	qos         = 1
)

// Sender is an [outbox.Sender]. It is safe for concurrent use.
type Sender struct {
	o     Options
	host  string
	tls   *tls.Config // nil for none
	bytes atomic.Int64

	mu   sync.Mutex
	stay bool // Run runs
	link *link
}

var _ outbox.Sender = (*Sender)(nil)

// New returns a Sender. It connects to nobody. An error names the option that is
// wrong.
func New(o Options) (*Sender, error) {
	u, err := url.Parse(o.URL)
	switch {
	case err != nil || u.Scheme != "mqtt" && u.Scheme != "mqtts" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "":
		return nil, errors.New("mqtt: field URL is not mqtt:// or mqtts:// with a host alone")
	case o.Device == "" || len(o.Device) > maxDevice:
		return nil, fmt.Errorf("mqtt: field Device is empty or longer than %d bytes", maxDevice)
	case strings.ContainsAny(o.Prefix, "+#\x00"):
		return nil, errors.New("mqtt: field Prefix holds a character that no topic may have")
	case o.KeepAlive < 0 || o.KeepAlive > 18*time.Hour:
		return nil, errors.New("mqtt: field KeepAlive is negative or above 18 hours")
	}
	o.Prefix = strings.Trim(cmp.Or(o.Prefix, "pawl"), "/")
	o.ClientID = cmp.Or(o.ClientID, "pawl-"+o.Device)
	o.KeepAlive = max(cmp.Or(o.KeepAlive, time.Minute), time.Second)
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
	s := &Sender{o: o}
	port := "1883"
	if u.Scheme == "mqtts" {
		s.tls, port = o.config(u.Hostname()), "8883"
	}
	s.host = net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port))
	return s, nil
}

func (o Options) config(host string) *tls.Config {
	conf := &tls.Config{}
	if o.TLS != nil {
		conf = o.TLS.Clone()
	}
	conf.MinVersion = max(conf.MinVersion, tls.VersionTLS12)
	conf.ServerName = cmp.Or(conf.ServerName, host)
	if o.RootCAs != nil {
		conf.RootCAs = o.RootCAs
	}
	return conf
}

// Bytes returns how many bytes of events were sent, without what MQTT adds.
func (s *Sender) Bytes() int64 { return s.bytes.Load() }

// Send implements [outbox.Sender].
func (s *Sender) Send(ctx context.Context, items []outbox.Item) error {
	l, err := s.connected(ctx)
	if err != nil {
		return fmt.Errorf("cannot send %d events: %w", len(items), err)
	}
	defer s.release(l)
	for i, item := range items {
		if err := s.publish(ctx, l, item); err != nil {
			return fmt.Errorf("cannot send event %d of %d: %w", i+1, len(items), err)
		}
	}
	return nil
}

func (s *Sender) publish(ctx context.Context, l *link, item outbox.Item) error {
	e := cloudevent.Of(item)
	p := &paho.Publish{QoS: qos, Topic: s.topic(e.Kind), Payload: item.Data, Properties: &paho.PublishProperties{ContentType: e.ContentType}}
	for _, a := range [][2]string{
		{"specversion", e.SpecVersion}, {"id", e.ID}, {"source", e.Source}, {"type", e.Type}, {"time", e.Time},
		{"sequence", e.Sequence}, {"pawlclass", e.Class},
	} {
		if a[1] != "" {
			p.Properties.User.Add(a[0], a[1])
		}
	}
	if size := len(p.Payload) + len(p.Topic) + overhead; l.most > 0 && size > l.most {
		return &outbox.Refused{Err: fmt.Errorf("%d bytes are more than the %d that the broker takes", size, l.most)}
	}
	s.bytes.Add(int64(len(p.Payload)))
	ctx, done := l.while(ctx)
	defer done()
	answer, err := l.Publish(ctx, p)
	if err == nil {
		return nil
	}
	if errors.Is(context.Cause(ctx), errLost) {
		return errLost
	}
	if answer != nil {
		return judge(answer.ReasonCode, err)
	}
	return err
}

// judge says what a broker's reason means (MQTT 5.0, section 3.4.2.1).
func judge(code byte, err error) error {
	err = fmt.Errorf("the broker answered %#x: %w", code, err)
	switch code {
	case packets.PubackTopicNameInvalid, packets.PubackPayloadFormatInvalid, packets.DisconnectPacketTooLarge:
		return &outbox.Refused{Err: err}
	case packets.PubackQuotaExceeded:
		return &outbox.Later{After: time.Minute, Err: err}
	}
	return err
}

// topic is one for events of a kind, or the status.
func (s *Sender) topic(last string) string {
	escape := strings.NewReplacer("%", "%25", "/", "%2F", "+", "%2B", "#", "%23", "\x00", "%00", "$", "%24")
	return s.o.Prefix + "/" + escape.Replace(s.o.Device) + "/" + escape.Replace(last)
}

// Run stays connected until ctx ends, whose error it returns: it connects anew
// after a time by chance that grows with each failure. One Run at a time belongs
// to a Sender.
func (s *Sender) Run(ctx context.Context) error {
	s.staying(true)
	defer s.leave()
	for tries := 0; ; tries++ {
		l, err := s.connected(ctx)
		if err == nil {
			began := time.Now()
			select {
			case <-l.Done():
			case <-ctx.Done():
				return ctx.Err()
			}
			if time.Since(began) > retryMax {
				tries = 0
			}
		}
		t := time.NewTimer(rand.N(min(retryMax, retryMin<<min(tries, 10)) + 1))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

func (s *Sender) staying(stay bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stay = stay
}

// leave says that the device is offline, in order.
func (s *Sender) leave() {
	s.staying(false)
	_ = s.Close() // the broker finds out by itself
}
