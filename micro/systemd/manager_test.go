//go:build linux

package systemd_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/systemdtest"
	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/micro/systemctl"
	"github.com/pawl-ota/pawl/micro/systemd"
)

// manager is a systemd of the test's own.
type manager struct {
	*systemdtest.Manager
	t testing.TB
}

func newManager(t testing.TB, units string) *manager {
	t.Helper()
	return &manager{systemdtest.New(t, units), t}
}

func (m *manager) supervisor(o systemd.Options) *systemd.Supervisor {
	m.t.Helper()
	o.Address, o.Direct = m.Address(), true
	s, err := systemd.New(o)
	require.NoError(m.t, err)
	m.t.Cleanup(func() { require.NoError(m.t, s.Close()) })
	return s
}

// systemctl is the supervisor through the program.
func (m *manager) systemctl() *systemctl.Supervisor {
	return &systemctl.Supervisor{Args: []string{"--user"}, Env: m.Env()}
}

// until waits for a state of a service.
func until(t testing.TB, s micro.Supervisor, name string, is func(micro.ServiceState) bool) micro.ServiceState {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var state micro.ServiceState
	for range 6000 {
		var err error
		state, err = s.State(t.Context(), name)
		require.NoError(t, err)
		if is(state) {
			return state
		}
		<-tick.C
	}
	t.Fatalf("%s is %+v", name, state)
	return state
}

func running(s micro.ServiceState) bool { return s.Running }
func down(s micro.ServiceState) bool {
	return !s.Running && !s.Starting && !s.Queued
}

// tooLong is when something hangs, and is not only kept waiting by a busy
// machine: less than the 100 s that are systemd's and the supervisors' own limit.
const tooLong = 80 * time.Second

// soon is a context for what does not hang.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*tooLong, errors.New("it took too long"))
	t.Cleanup(cancel)
	return ctx
}
