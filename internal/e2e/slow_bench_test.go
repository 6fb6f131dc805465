package e2e

import (
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// line puts something between a maker's server and the devices, and returns how
// to switch it on and off.
type line func(m *maker) func(on bool)

// quick is the link as it is.
func quick(*maker) func(bool) { return func(bool) {} }

const (
	slowRate  = 10e6 / 8               // bytes in a second, towards the device
	slowDelay = 100 * time.Millisecond // of a round trip
	slowChunk = 1448
)

// BenchmarkSlowLink is BenchmarkPairs over 10 Mbit/s and 100 ms of a round trip,
// with OSTree's own client too, which has to find out what is new as ours does.
// A proxy shapes the rate, of all connections together, and delays what goes
// either way; a connection costs a round trip of its own. What TCP does at the
// start of a connection on such a link it does not imitate.
func BenchmarkSlowLink(b *testing.B) {
	for _, path := range pairsOf(b) {
		b.Run(filepath.Base(filepath.Dir(path)), func(b *testing.B) {
			p := pair{resolve(b, filepath.Join(filepath.Dir(path), "old")), resolve(b, path)}
			b.Run("pawl", func(b *testing.B) { report(b, p, pawlRuns(b, p, b.N, slowly)) })
			b.Run("ostree", func(b *testing.B) { report(b, p, ostreeRuns(b, p, b.N, slowly, deltaFile())) })
			b.Run("pull", func(b *testing.B) { report(b, p, ostreeRuns(b, p, b.N, slowly, pulled())) })
			b.Run("whole", func(b *testing.B) { report(b, p, wholeRuns(b, p, b.N, slowly)) })
		})
	}
}

// slowly has a maker's address be that of a slow proxy.
func slowly(m *maker) func(bool) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(m.t, err)
	s := &slowProxy{to: m.server.Listener.Addr().String()}
	go s.serve(listener)
	m.t.Cleanup(func() { listener.Close() })
	m.url = "http://" + listener.Addr().String()
	return s.on.Store
}

type slowProxy struct {
	to   string
	on   atomic.Bool
	mu   sync.Mutex
	free time.Time // when the link has sent all that it was given
}

func (s *slowProxy) serve(l net.Listener) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		go s.connection(in)
	}
}

func (s *slowProxy) connection(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", s.to)
	if err != nil {
		return
	}
	defer out.Close()
	if s.on.Load() {
		<-time.After(slowDelay)
	}
	var both sync.WaitGroup
	both.Go(func() { s.copy(out, in, false) })
	both.Go(func() { s.copy(in, out, true) })
	both.Wait()
}

// parcel is on its way until due.
type parcel struct {
	data []byte
	due  time.Time
}

// copy has each piece arrive half a round trip after it was sent.
func (s *slowProxy) copy(to, from net.Conn, shaped bool) {
	way := make(chan parcel, 1<<10)
	go func() {
		defer close(way)
		for {
			buf := make([]byte, slowChunk)
			n, err := from.Read(buf)
			if n > 0 {
				way <- parcel{buf[:n], s.due(n, shaped)}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range way {
		<-time.After(time.Until(p.due))
		if _, err := to.Write(p.data); err != nil {
			_, _ = io.Copy(io.Discard, from)
			break
		}
	}
	for range way {
	}
	_ = to.(*net.TCPConn).CloseWrite()
}

// due returns when n bytes that are sent now are there.
func (s *slowProxy) due(n int, shaped bool) time.Time {
	now := time.Now()
	if !s.on.Load() {
		return now
	}
	if !shaped {
		return now.Add(slowDelay / 2)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free.Before(now) {
		s.free = now
	}
	s.free = s.free.Add(time.Duration(float64(n) / slowRate * float64(time.Second)))
	return s.free.Add(slowDelay / 2)
}
