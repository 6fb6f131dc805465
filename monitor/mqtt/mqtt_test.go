package mqtt

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/monitor/outbox"
)

// broker is a mosquitto of the test's own, at a socket in a folder.
type broker struct {
	t      *testing.T
	path   string // of the program
	dir    string
	config string
	cmd    *exec.Cmd
}

func newBroker(t *testing.T, config ...string) *broker {
	t.Helper()
	b := &broker{t: t, path: testneeds.Program(t, "mosquitto")}
	dir, err := os.MkdirTemp("", "mqtt") // the name of a socket has to be short
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	b.dir = dir
	lines := append([]string{"listener 0 " + dir + "/socket", "persistence true", "persistence_location " + dir + "/", "autosave_on_changes true", "autosave_interval 1"}, config...)
	if os.Geteuid() == 0 {
		lines = append(lines, "user root")
	}
	if !strings.Contains(strings.Join(config, " "), "allow_anonymous") {
		lines = append(lines, "allow_anonymous true")
	}
	b.config = filepath.Join(dir, "conf")
	require.NoError(t, os.WriteFile(b.config, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *broker) start() {
	b.cmd = exec.Command(b.path, "-c", b.config)
	out, err := b.cmd.StderrPipe()
	require.NoError(b.t, err)
	require.NoError(b.t, b.cmd.Start())
	said, buf := "", make([]byte, 4096)
	for !strings.Contains(said, " running") {
		n, err := out.Read(buf)
		require.NoError(b.t, err, said)
		said += string(buf[:n])
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
}

// stop has it keep what it took.
func (b *broker) stop() {
	if b.cmd != nil {
		_ = b.cmd.Process.Signal(syscall.SIGTERM)
		_ = b.cmd.Wait()
		b.cmd = nil
	}
}

func (b *broker) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", b.dir+"/socket")
}

// sender is one for the device of the tests.
func (b *broker) sender(change ...func(*Options)) *Sender {
	o := Options{URL: "mqtt://broker", Device: "pump/7", Dial: b.dial}
	for _, c := range change {
		c(&o)
	}
	s, err := New(o)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = s.Close() })
	return s
}

// listen subscribes to all topics, and returns what comes. It is known to the
// broker, which keeps what comes for it while it is not connected.
func (b *broker) listen() chan *paho.Publish { return b.listenTo(make(chan *paho.Publish, 1000)) }

func (b *broker) listenTo(came chan *paho.Publish) chan *paho.Publish {
	t := b.t
	conn, err := b.dial(t.Context(), "", "")
	require.NoError(t, err)
	c := paho.NewClient(paho.ClientConfig{Conn: conn, OnPublishReceived: []func(paho.PublishReceived) (bool, error){
		func(p paho.PublishReceived) (bool, error) { came <- p.Packet; return true, nil },
	}})
	forever := uint32(3600)
	_, err = c.Connect(t.Context(), &paho.Connect{ClientID: "listener", KeepAlive: 60, Properties: &paho.ConnectProperties{SessionExpiryInterval: &forever}})
	require.NoError(t, err)
	_, err = c.Subscribe(t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "#", QoS: 1}}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Disconnect(&paho.Disconnect{}) })
	return came
}

func next(t *testing.T, came <-chan *paho.Publish) *paho.Publish {
	t.Helper()
	select {
	case p := <-came:
		return p
	case <-time.After(20 * time.Second):
		require.Fail(t, "nothing came")
		return nil
	}
}

func item(n int, kind string) outbox.Item {
	return outbox.Item{
		ID: fmt.Sprint("tag-", n), Seq: uint64(n), Keep: kind != "sample",
		Data: fmt.Appendf(nil, `{"kind":%q,"device":"pump/7","time":"2031-02-03T04:05:06Z","timeTrusted":true,"n":%d}`, kind, n),
	}
}

// TestSend: what arrives of events, each as one message.
func TestSend(t *testing.T) {
	b := newBroker(t)
	came := b.listen()
	s := b.sender()
	items := []outbox.Item{item(1, "committed"), item(2, "sample"), {ID: "tag-3", Seq: 3, Data: []byte("\xff not JSON")}, item(4, "odd/#+kind")}
	require.NoError(t, s.Send(t.Context(), items))
	for i, topic := range []string{"pawl/pump%2F7/committed", "pawl/pump%2F7/sample", "pawl/pump%2F7/event", "pawl/pump%2F7/odd%2F%23%2Bkind"} {
		p := next(t, came)
		require.Equal(t, topic, p.Topic)
		require.Equal(t, items[i].Data, p.Payload)
		require.EqualValues(t, 1, p.QoS)
		require.False(t, p.Retain)
		require.Equal(t, items[i].ID, p.Properties.User.Get("id"))
		require.Equal(t, "1.0", p.Properties.User.Get("specversion"))
		if i == 0 {
			require.Equal(t, "application/json", p.Properties.ContentType)
			for key, want := range map[string]string{
				"source": "/devices/pump%2F7", "type": "com.github.pawl-ota.committed", "time": "2031-02-03T04:05:06Z",
				"sequence": "00000000000000000001", "pawlclass": "result",
			} {
				require.Equal(t, want, p.Properties.User.Get(key))
			}
		}
	}
	require.EqualValues(t, len(items[0].Data)+len(items[1].Data)+len(items[2].Data)+len(items[3].Data), s.Bytes())
	require.Nil(t, s.link, "it is not kept without Run")
	require.Empty(t, came, "and there is no status")
}

// deaf is a connection that hears nothing once it has said that it is online.
type deaf struct {
	net.Conn
	said   atomic.Bool
	closed chan struct{}
}

func (d *deaf) Write(p []byte) (int, error) {
	d.said.CompareAndSwap(false, bytes.Contains(p, []byte("online")))
	return d.Conn.Write(p)
}

func (d *deaf) Read(p []byte) (int, error) {
	n, err := d.Conn.Read(p)
	if d.said.Load() {
		<-d.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (d *deaf) Close() error { close(d.closed); return d.Conn.Close() }

// TestEndsBeforeItIsOnline: who is told to end before the broker has acknowledged
// that it is online is offline all the same.
func TestEndsBeforeItIsOnline(t *testing.T) {
	b := newBroker(t)
	came := b.listen()
	s := b.sender(func(o *Options) {
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := b.dial(ctx, network, address)
			return &deaf{Conn: c, closed: make(chan struct{})}, err
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	require.Equal(t, "online", string(next(t, came).Payload))
	cancel()
	require.Equal(t, "offline", string(next(t, came).Payload))
	require.ErrorIs(t, <-ended, context.Canceled)
}

// TestStatus: online while it is, offline after an end in order, and after one
// without a word.
func TestStatus(t *testing.T) {
	b := newBroker(t)
	came := b.listen()
	conns := make(chan net.Conn, 9)
	s := b.sender(func(o *Options) {
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := b.dial(ctx, network, address)
			conns <- c
			return c, err
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	status := func(want string) {
		t.Helper()
		p := next(t, came)
		require.Equal(t, "pawl/pump%2F7/status", p.Topic)
		require.Equal(t, want, string(p.Payload))
	}
	status("online")
	require.NoError(t, s.Send(t.Context(), []outbox.Item{item(1, "boot")}))
	require.Equal(t, "pawl/pump%2F7/boot", next(t, came).Topic)
	require.NoError(t, s.Send(t.Context(), []outbox.Item{item(2, "boot")}))
	require.Equal(t, "pawl/pump%2F7/boot", next(t, came).Topic)
	require.Len(t, conns, 1)
	require.NoError(t, (<-conns).Close()) // without a word
	status("offline")
	status("online")
	cancel()
	status("offline")
	require.ErrorIs(t, <-ended, context.Canceled)
	fresh := b.sender(func(o *Options) { o.ClientID = "other" })
	require.NoError(t, fresh.Send(t.Context(), []outbox.Item{item(3, "boot")}))
	require.Equal(t, "pawl/pump%2F7/boot", next(t, came).Topic)
}

// TestOutbox: everything arrives, in order, although the broker goes and comes
// back.
func TestOutbox(t *testing.T) {
	b := newBroker(t)
	came := b.listen()
	box, err := outbox.Open(t.Context(), outbox.Options{Dir: t.TempDir(), RetryMin: time.Millisecond, RetryMax: 50 * time.Millisecond, BatchItems: 5})
	require.NoError(t, err)
	stream, err := monitor.NewStream(monitor.StreamOptions{Device: "pump/7", Sink: box})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = box.Run(ctx, b.sender()) }()
	for n := 1; n <= 60; n++ {
		stream.Emit(monitor.Event{Kind: monitor.Held})
		switch n {
		case 20:
			b.stop()
		case 40:
			b.start()
			b.listenTo(came)
		}
	}
	order, seen := []string{}, map[string]bool{}
	for len(order) < 60 {
		p := next(t, came)
		if id := p.Properties.User.Get("id"); !seen[id] {
			seen[id] = true
			order = append(order, p.Properties.User.Get("sequence"))
		}
	}
	require.IsIncreasing(t, order)
	require.Eventually(t, func() bool { return box.Stats().Results == 0 }, 10*time.Second, 10*time.Millisecond)
	require.Zero(t, box.Stats().Lost)
	cancel()
	<-ended
	require.NoError(t, box.Close())
}

// TestRefused: what a broker may answer, and nobody at all.
func TestRefused(t *testing.T) {
	b := newBroker(t, "max_packet_size 3000")
	large := item(1, "committed")
	large.Data = append(large.Data, strings.Repeat(" ", 4000)...)
	err := b.sender().Send(t.Context(), []outbox.Item{large})
	var refused *outbox.Refused
	require.ErrorAs(t, err, &refused)
	require.ErrorContains(t, err, "more than the 3000")

	strict := newBroker(t, "allow_anonymous false")
	err = strict.sender().Send(t.Context(), []outbox.Item{item(1, "boot")})
	require.ErrorContains(t, err, "the broker answered 0x87")
	require.NotErrorAs(t, err, &refused)
	strict.stop()
	err = strict.sender().Send(t.Context(), []outbox.Item{item(1, "boot")})
	require.ErrorContains(t, err, "cannot connect to broker:1883")

	hangs := strict.sender(func(o *Options) {
		o.Dial = func(context.Context, string, string) (net.Conn, error) {
			c, other := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, other) }()
			return c, nil
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, hangs.Send(ctx, []outbox.Item{item(1, "boot")}), context.DeadlineExceeded)

	require.ErrorAs(t, judge(0x99, errors.New("why")), &refused)
	var later *outbox.Later
	require.ErrorAs(t, judge(0x97, errors.New("why")), &later)
	require.ErrorContains(t, judge(0x87, errors.New("why")), "0x87: why")
}

// TestTLS: the broker has to be who it should be.
func TestTLS(t *testing.T) {
	b := newBroker(t)
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	front, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: web.TLS.Certificates})
	require.NoError(t, err)
	defer func() { require.NoError(t, front.Close()) }()
	go func() {
		for {
			c, err := front.Accept()
			if err != nil {
				return
			}
			to, err := b.dial(context.Background(), "", "")
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(to, c); _ = to.Close() }()
			go func() { _, _ = io.Copy(c, to); _ = c.Close() }()
		}
	}()
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	o := Options{URL: "mqtts://" + front.Addr().String(), Device: "pump/7", RootCAs: roots}
	s, err := New(o)
	require.NoError(t, err)
	require.NoError(t, s.Send(t.Context(), []outbox.Item{item(1, "boot")}))
	o.RootCAs = x509.NewCertPool()
	s, err = New(o)
	require.NoError(t, err)
	require.ErrorContains(t, s.Send(t.Context(), []outbox.Item{item(1, "boot")}), "certificate")
}

func TestOptions(t *testing.T) {
	for want, o := range map[string]Options{
		"field URL":       {URL: "http://h", Device: "d"},
		"field URL is":    {URL: "mqtt://", Device: "d"},
		"a host alone":    {URL: "mqtt://u:p@h", Device: "d"},
		"host alone":      {URL: "mqtt://h/path", Device: "d"},
		"field Device":    {URL: "mqtt://h"},
		"field Prefix":    {URL: "mqtt://h", Device: "d", Prefix: "a/+"},
		"field KeepAlive": {URL: "mqtt://h", Device: "d", KeepAlive: -1},
	} {
		_, err := New(o)
		require.ErrorContains(t, err, want)
	}
	for url, host := range map[string]string{"mqtt://h": "h:1883", "mqtts://h": "h:8883", "mqtts://[::1]:99/": "[::1]:99"} {
		s, err := New(Options{URL: url, Device: "d"})
		require.NoError(t, err)
		require.Equal(t, host, s.host)
	}
}
