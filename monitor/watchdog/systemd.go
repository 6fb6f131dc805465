package watchdog

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoSystemd is returned by NewSystemd in a process that was not started by
// systemd as a service of Type=notify, or without NotifyAccess=.
var ErrNoSystemd = errors.New("systemd does not listen to this process")

// Systemd tells systemd how a service is, in the protocol of sd_notify(3). Its
// time is WatchdogSec= of the unit, or what Arm says; when it is over systemd
// kills the service, and does what Restart= and StartLimitAction= say. Systemd
// is safe for concurrent use.
type Systemd struct {
	socket string
	every  time.Duration
}

// sendLimit is how long systemd may take to take a message.
const sendLimit = time.Second

// NewSystemd returns the systemd that $NOTIFY_SOCKET names.
func NewSystemd() (*Systemd, error) {
	s := &Systemd{socket: os.Getenv("NOTIFY_SOCKET")}
	switch {
	case s.socket == "":
		return nil, ErrNoSystemd
	case s.socket[0] != '/' && s.socket[0] != '@':
		return nil, fmt.Errorf("cannot notify systemd: the socket %.60q is none of a file system", s.socket)
	}
	pid := os.Getenv("WATCHDOG_PID")
	if micros, err := strconv.ParseUint(os.Getenv("WATCHDOG_USEC"), 10, 50); err == nil && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		s.every = time.Duration(micros) * time.Microsecond
	}
	return s, nil
}

// Timeout returns WatchdogSec= of the unit, 0 where it has none. A service that
// has one has to Kick in half of that time for as long as it runs.
func (s *Systemd) Timeout() time.Duration { return s.every }

// Ready says that the service has started, or is back from a reload.
func (s *Systemd) Ready() error { return s.send("READY=1") }

// Stopping says that the service is about to end.
func (s *Systemd) Stopping() error { return s.send("STOPPING=1") }

// Status shows one line in systemctl status.
func (s *Systemd) Status(text string) error {
	return s.send("STATUS=" + strings.Join(strings.Fields(text), " "))
}

// Extend asks for d from now on to start or to stop: for a Resume before Ready
// that may take longer than TimeoutStartSec=. It has to be repeated within that
// time.
func (s *Systemd) Extend(d time.Duration) error {
	return s.send("EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(d.Microseconds(), 10))
}

// Arm implements [Watchdog].
func (s *Systemd) Arm(d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("cannot arm systemd's watchdog: the time %v is not positive", d)
	}
	return s.send("WATCHDOG_USEC="+strconv.FormatInt(d.Microseconds(), 10), "WATCHDOG=1")
}

// Kick implements [Watchdog].
func (s *Systemd) Kick() error { return s.send("WATCHDOG=1") }

// Disarm implements [Watchdog]: the time is again that of the unit, and where
// that has none there is no watchdog.
func (s *Systemd) Disarm() error {
	return s.send("WATCHDOG_USEC="+strconv.FormatInt(s.every.Microseconds(), 10), "WATCHDOG=1")
}

// send sends one datagram, in its time.
func (s *Systemd) send(lines ...string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		limit := unix.NsecToTimeval(sendLimit.Nanoseconds())
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
		if err == nil {
			err = unix.Sendto(fd, []byte(strings.Join(lines, "\n")), unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: s.socket})
		}
		err = errors.Join(err, unix.Close(fd))
	}
	if err != nil {
		return fmt.Errorf("cannot notify systemd: %w", err)
	}
	return nil
}
