package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

// link is one connection, with what the broker said of it.
type link struct {
	*paho.Client
	most int  // bytes of a packet; 0 for any
	will bool // there is a status
}

// connected returns the connection, or makes one.
func (s *Sender) connected(ctx context.Context) (*link, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link != nil {
		select {
		case <-s.link.Done():
			s.link = nil
		default:
			return s.link, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	l, err := s.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to %s: %w", s.host, err)
	}
	s.link = l
	return l, nil
}

var errLost = errors.New("the connection to the broker ended")

// while returns a context that ends with the link, for errLost, at the latest when
// done is called: the client may wait for an answer until its time is over although
// the connection ended.
func (l *link) while(ctx context.Context) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-l.Done():
			cancel(errLost)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// release closes what was opened for one batch.
func (s *Sender) release(l *link) {
	s.mu.Lock()
	stay := s.stay
	s.mu.Unlock()
	if !stay {
		_ = s.drop(l) // everything that counts was acknowledged
	}
}

// Close ends the connection in order. The Sender may be used on.
func (s *Sender) Close() error {
	s.mu.Lock()
	l := s.link
	s.mu.Unlock()
	if l == nil {
		return nil
	}
	return s.drop(l)
}

func (s *Sender) drop(l *link) error {
	s.mu.Lock()
	if s.link == l {
		s.link = nil
	}
	s.mu.Unlock()
	select {
	case <-l.Done():
		return nil
	default:
	}
	var err error
	if l.will {
		ctx, cancel := context.WithTimeout(context.Background(), writeTime)
		defer cancel()
		err = s.status(ctx, l, "offline")
	}
	return errors.Join(err, l.Disconnect(&paho.Disconnect{}))
}

// connect makes a connection, with a last will where it is to stay.
func (s *Sender) connect(ctx context.Context) (*link, error) {
	conn, err := s.o.Dial(ctx, "tcp", s.host)
	if err != nil {
		return nil, err
	}
	if s.tls != nil {
		secured := tls.Client(conn, s.tls)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		conn = secured
	}
	c := paho.NewClient(paho.ClientConfig{Conn: &limited{Conn: conn}, PacketTimeout: ackTime})
	answer, err := c.Connect(ctx, s.hello())
	if answer != nil && answer.ReasonCode >= 0x80 {
		return nil, fmt.Errorf("the broker answered %#x: %w", answer.ReasonCode, err)
	}
	if err != nil {
		return nil, err
	}
	l := &link{Client: c, will: s.stay}
	if p := answer.Properties; p != nil && p.MaximumPacketSize != nil {
		l.most = int(min(*p.MaximumPacketSize, 1<<30))
	}
	if l.will {
		if err := s.status(ctx, l, "online"); err != nil {
			// The broker may have it already: the last will takes it back.
			return nil, errors.Join(err, c.Disconnect(&paho.Disconnect{ReasonCode: packets.DisconnectDisconnectWithWillMessage}))
		}
	}
	return l, nil
}

// hello is the first packet. The session ends with the connection: what was not
// acknowledged is still in the outbox.
func (s *Sender) hello() *paho.Connect {
	answers, one := uint32(maxAnswer), uint16(1)
	c := &paho.Connect{
		ClientID: s.o.ClientID, CleanStart: true, KeepAlive: uint16(s.o.KeepAlive / time.Second),
		Username: s.o.Username, UsernameFlag: s.o.Username != "", Password: s.o.Password, PasswordFlag: s.o.Password != nil,
		Properties: &paho.ConnectProperties{MaximumPacketSize: &answers, ReceiveMaximum: &one},
	}
	if s.stay {
		c.WillMessage = &paho.WillMessage{Retain: true, QoS: qos, Topic: s.topic("status"), Payload: []byte("offline")}
		c.WillProperties = &paho.WillProperties{ContentType: "text/plain"}
	}
	return c
}

func (s *Sender) status(ctx context.Context, l *link, word string) error {
	_, err := l.Publish(ctx, &paho.Publish{
		QoS: qos, Retain: true, Topic: s.topic("status"), Payload: []byte(word),
		Properties: &paho.PublishProperties{ContentType: "text/plain"},
	})
	return err
}

// limited ends a write that does not get through, and is a [sync.Locker] as the
// client wants it: a packet is more than one write.
type limited struct {
	net.Conn
	sync.Mutex
}

func (c *limited) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
