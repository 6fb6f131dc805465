package watchdog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/systemdtest"
	"github.com/pawl-ota/pawl/monitor/probe"
)

// TestMain is also the service of the units below.
func TestMain(m *testing.M) {
	if role := os.Getenv("PAWL_ROLE"); role != "" {
		if err := serve(role); err != nil {
			fmt.Println("service:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serve is ready, and then kicks for a while, and no longer.
func serve(role string) error {
	s, err := NewSystemd()
	if err != nil {
		return err
	}
	switch role {
	case "slow":
		err = s.Extend(time.Minute)
		<-time.After(2500 * time.Millisecond)
		return errors.Join(err, s.Ready(), forever())
	case "handed back":
		err = errors.Join(s.Ready(), s.Arm(time.Hour), s.Kick(), s.Disarm())
		if s.Timeout() != time.Second {
			err = fmt.Errorf("WatchdogSec= is %v", s.Timeout())
		}
		return errors.Join(err, s.Status("the unit's own time"), forever())
	case "disarmed":
		return errors.Join(s.Ready(), s.Arm(500*time.Millisecond), s.Kick(), s.Disarm(), s.Status("disarmed"), forever())
	}
	err = errors.Join(s.Ready(), s.Arm(time.Second))
	for range 20 {
		<-time.After(100 * time.Millisecond)
		err = errors.Join(err, s.Kick())
	}
	return errors.Join(err, s.Status("kicked for long"), forever())
}

func forever() error {
	<-time.After(time.Minute)
	return nil
}

// becomes waits until the properties of a unit are so.
func becomes(t *testing.T, m *systemdtest.Manager, unit string, want ...string) {
	t.Helper()
	is := ""
	for range 1200 {
		is = m.Systemctl("show", "-p", "ActiveState,Result,StatusText,NRestarts", unit)
		ok := true
		for _, w := range want {
			ok = ok && strings.Contains(is, w+"\n")
		}
		if ok {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	require.Failf(t, "it did not come to that", "%s: want %q, is %q", unit, want, is)
}

// TestRealSystemd: a systemd kills a service that stops kicking, and leaves one
// alone that disarmed, in the time of the unit or of Arm, whichever holds. The
// probe for units sees each of it.
func TestRealSystemd(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	service := func(role, more string) string {
		return fmt.Sprintf("[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=notify\nExecStart=%s\nEnvironment=\"PAWL_ROLE=%s\"\nWatchdogSignal=SIGKILL\n%s\n", self, role, more)
	}
	m := systemdtest.New(t, t.TempDir())
	for name, text := range map[string]string{
		"test.target":       "[Unit]\nDescription=test\n",
		"starved.service":   service("starved", ""),
		"disarmed.service":  service("disarmed", ""),
		"handed.service":    service("handed back", "WatchdogSec=1s"),
		"slow.service":      service("slow", "TimeoutStartSec=2s"),
		"restarted.service": service("starved", "Restart=on-watchdog\nRestartSec=0"),
	} {
		m.Unit(name, text)
	}
	m.Start("test.target")
	ask := func(unit string, restarts int) (string, error) {
		return probe.Unit{Name: unit, Restarts: restarts, Args: []string{"--user"}, Env: m.Env()}.Ask()(context.Background())
	}
	restarts := probe.Unit{Name: "restarted.service", Restarts: 1, Args: []string{"--user"}, Env: m.Env()}.Ask()

	m.Systemctl("start", "slow.service", "starved.service", "disarmed.service", "handed.service", "restarted.service")
	_, err = restarts(t.Context())
	require.NoError(t, err)
	_, err = ask("slow.service", 0)
	require.NoError(t, err, "it got the time it asked for")
	becomes(t, m, "starved.service", "ActiveState=failed", "Result=watchdog", "StatusText=kicked for long")
	saw, err := ask("starved.service", 0)
	require.ErrorContains(t, err, "the unit is failed")
	require.Contains(t, saw, "result watchdog")
	becomes(t, m, "handed.service", "Result=watchdog", "StatusText=the unit's own time")
	becomes(t, m, "disarmed.service", "ActiveState=active", "StatusText=disarmed")
	require.Eventually(t, func() bool {
		_, err := restarts(t.Context())
		return err != nil && strings.Contains(err.Error(), "since the first look, more than 1")
	}, 2*time.Minute, 100*time.Millisecond)
	_, err = ask("nowhere.service", 0)
	require.ErrorContains(t, err, "does not know the unit")
}
