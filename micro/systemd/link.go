//go:build linux

package systemd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/micro"
)

// link is one connection, which ends as a whole.
type link struct {
	*systemd.Conn
	gone context.Context
	end  context.CancelFunc
}

func (c *link) alive() bool { return c.gone.Err() == nil && c.Connected() }

// The sockets of the systemd that runs the device.
const (
	ownSocket = "unix:path=/run/systemd/private"
	systemBus = "unix:path=/run/dbus/system_bus_socket"
)

// reconnectPause is waited before another try to connect, which fails while
// systemd executes itself anew.
const reconnectPause = 100 * time.Millisecond

// call calls f with a connection, and once more with a new one where the
// connection was lost in it: everything that is asked of systemd can be asked
// twice.
func (s *Supervisor) call(ctx context.Context, f func(*link) error) error {
	for try := 0; ; try++ {
		c, err := s.connect(ctx)
		if err != nil {
			return err
		}
		err = f(c)
		if broken(err) {
			c.end() // the reading side need not have noticed yet
		}
		if err == nil || c.alive() || ctx.Err() != nil {
			return explain(err)
		}
		if try == 2 {
			return fmt.Errorf("%w: %w", micro.ErrSupervisor, err)
		}
	}
}

// broken reports whether err is of the connection, and no answer of systemd's.
func broken(err error) bool {
	for _, lost := range []error{unix.EPIPE, unix.ECONNRESET, io.EOF, net.ErrClosed, dbus.ErrClosed} {
		if errors.Is(err, lost) {
			return true
		}
	}
	return false
}

// connect returns the connection, which it makes if there is none.
func (s *Supervisor) connect(ctx context.Context) (*link, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link != nil && s.link.alive() {
		return s.link, nil
	}
	s.drop()
	var err error
	for range 20 {
		if s.link, err = s.dial(ctx); err == nil {
			return s.link, nil
		}
		pause := time.NewTimer(reconnectPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, fmt.Errorf("%w: %w: %w", micro.ErrSupervisor, ctx.Err(), err)
		}
	}
	return nil, fmt.Errorf("%w: %w", micro.ErrSupervisor, err)
}

// drop ends a connection.
func (s *Supervisor) drop() {
	if s.link != nil {
		s.link.end()
		s.link.Close()
		s.link = nil
	}
}

// Close ends the connection. The next call makes another one.
func (s *Supervisor) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
	return nil
}

// dial connects to the first address that answers.
func (s *Supervisor) dial(ctx context.Context) (*link, error) {
	if s.opts.Address != "" {
		return dialOne(ctx, s.opts.Address, s.opts.Direct)
	}
	var failed error
	if os.Geteuid() == 0 {
		c, err := dialOne(ctx, ownSocket, true)
		if err == nil {
			return c, nil
		}
		failed = err
	}
	c, err := dialOne(ctx, systemBus, false)
	if err != nil {
		return nil, errors.Join(failed, err)
	}
	return c, nil
}

// dialOne makes a connection whose life is its own; ctx bounds the making.
func dialOne(ctx context.Context, address string, direct bool) (*link, error) {
	gone, end := context.WithCancel(context.Background())
	unbound := context.AfterFunc(ctx, end)
	conn, err := systemd.NewConnection(func() (*dbus.Conn, error) {
		c, err := open(gone, address, direct)
		if err == nil {
			context.AfterFunc(c.Context(), end)
		}
		return c, err
	})
	if err == nil && !unbound() {
		conn.Close()
		err = ctx.Err()
	}
	if err != nil {
		end()
		return nil, fmt.Errorf("cannot connect to systemd at %s: %w", address, err)
	}
	return &link{conn, gone, end}, nil
}

func open(ctx context.Context, address string, direct bool) (*dbus.Conn, error) {
	c, err := dbus.Dial(address, dbus.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	err = c.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))})
	if err == nil && !direct {
		err = c.Hello()
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// job has systemd carry out a job, and waits for its end.
func (s *Supervisor) job(ctx context.Context, a micro.Action, name string, wait bool, enqueue func(*link, chan<- string) error) error {
	var ended chan string
	var c *link
	err := s.call(ctx, func(l *link) error {
		if c = l; wait {
			ended = make(chan string, 1)
		}
		return enqueue(l, ended)
	})
	if err != nil || !wait {
		return err
	}
	result := ""
	select {
	case result = <-ended:
	case <-c.gone.Done():
		result, err = s.outcome(ctx, a, name)
	case <-ctx.Done():
		err = fmt.Errorf("the job of %s did not end in its time: %w", name, ctx.Err())
	}
	if err != nil || result == "done" {
		return err
	}
	state, err := s.State(context.WithoutCancel(ctx), name)
	if err != nil {
		state.Detail = err.Error()
	}
	return &JobError{name, a, result, state}
}

// outcome finds out how a job ended whose end nobody told, because the
// connection was lost.
func (s *Supervisor) outcome(ctx context.Context, a micro.Action, name string) (string, error) {
	tick := time.NewTicker(reconnectPause)
	defer tick.Stop()
	for {
		all, err := s.properties(ctx, name)
		if err != nil {
			return "", err
		}
		active := show(all["ActiveState"])
		switch {
		case show(all["Job"]) != "":
		case (a == micro.Stop) == (active == "inactive" || active == "failed"):
			return "done", nil
		default:
			return "lost", nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", fmt.Errorf("the job of %s did not end in its time: %w", name, ctx.Err())
		}
	}
}
