package watchdog

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// listen stands in for systemd at a socket of the name.
func listen(t *testing.T, name string) func() string {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	t.Setenv("NOTIFY_SOCKET", name)
	return func() string {
		data := make([]byte, 4096)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
		n, err := c.Read(data)
		require.NoError(t, err)
		return string(data[:n])
	}
}

func TestSystemd(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@pawl-watchdog-" + strconv.Itoa(os.Getpid())} {
		for _, c := range []struct {
			usec, pid string
			unit      time.Duration
		}{
			{"30000000", strconv.Itoa(os.Getpid()), 30 * time.Second},
			{"30000000", "", 30 * time.Second},
			{"30000000", "1", 0},
			{"", "", 0},
			{"-1", "", 0},
			{"99999999999999999999", "", 0},
		} {
			t.Run(c.usec, func(t *testing.T) {
				next := listen(t, name)
				t.Setenv("WATCHDOG_USEC", c.usec)
				t.Setenv("WATCHDOG_PID", c.pid)
				s, err := NewSystemd()
				require.NoError(t, err)
				require.Equal(t, c.unit, s.Timeout())
				for _, call := range []struct {
					do   func() error
					want string
				}{
					{s.Ready, "READY=1"},
					{s.Stopping, "STOPPING=1"},
					{func() error { return s.Status("updating\nREADY=1 ") }, "STATUS=updating READY=1"},
					{func() error { return s.Extend(90 * time.Second) }, "EXTEND_TIMEOUT_USEC=90000000"},
					{func() error { return s.Arm(time.Minute) }, "WATCHDOG_USEC=60000000\nWATCHDOG=1"},
					{s.Kick, "WATCHDOG=1"},
					{s.Disarm, "WATCHDOG_USEC=" + strconv.FormatInt(c.unit.Microseconds(), 10) + "\nWATCHDOG=1"},
				} {
					require.NoError(t, call.do())
					require.Equal(t, call.want, next())
				}
				require.ErrorContains(t, s.Arm(0), "not positive")
			})
			_ = os.Remove(name)
		}
	}
}

func TestNoSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	_, err := NewSystemd()
	require.ErrorIs(t, err, ErrNoSystemd)
	t.Setenv("NOTIFY_SOCKET", "vsock:2:1234")
	_, err = NewSystemd()
	require.ErrorContains(t, err, "none of a file system")
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	s, err := NewSystemd()
	require.NoError(t, err)
	require.ErrorIs(t, s.Kick(), os.ErrNotExist)
	t.Setenv("NOTIFY_SOCKET", "/"+strings.Repeat("x", 200))
	s, err = NewSystemd()
	require.NoError(t, err)
	require.Error(t, s.Kick())
}

// TestSystemdThatHangs: a full socket is waited for no longer than a second.
func TestSystemdThatHangs(t *testing.T) {
	listen(t, filepath.Join(t.TempDir(), "notify"))
	s, err := NewSystemd()
	require.NoError(t, err)
	began, sent := time.Now(), 0
	for err == nil && sent < 10000 {
		err = s.Kick()
		sent++
	}
	require.ErrorContains(t, err, "resource temporarily unavailable")
	require.Less(t, time.Since(began), time.Minute)
}
