package main

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/micro/systemctl"
)

// withSupervisor puts a supervisor into the good configuration.
func withSupervisor(text string) string {
	return strings.Replace(goodConfig, `"trial"`, `"supervisor": `+text+`, "trial"`, 1)
}

func TestSupervisors(t *testing.T) {
	open := func(text string) micro.Supervisor {
		c, err := parseConfig([]byte(withSupervisor(text)))
		require.NoError(t, err)
		s, err := c.Supervisor.open()
		require.NoError(t, err)
		return s
	}
	want, err := newSystemd()
	require.NoError(t, err)
	require.IsType(t, want, open(`"systemd"`))
	require.IsType(t, &systemctl.Supervisor{}, open(`"systemctl"`))
	require.Nil(t, open(`null`))
	s := open(`{"start": ["/bin/true"], "stop": ["/bin/sh", "-c", "[ $0 = camera ]", "{}"], "status": ["/bin/false"], "reread": ["/bin/true"]}`)
	require.NoError(t, s.Do(context.Background(), micro.Start, "camera"))
	require.NoError(t, s.Do(context.Background(), micro.Stop, "camera"))
	require.Error(t, s.Do(context.Background(), micro.Stop, "another"))
	state, err := s.State(context.Background(), "camera")
	require.NoError(t, err)
	require.False(t, state.Running)
}

func TestSupervisorRefused(t *testing.T) {
	for text, want := range map[string]string{
		`"upstart"`:                       `"upstart" is not known`,
		`{"start": ["a"], "stop": ["b"]}`: "status are needed",
		`{"start": ["a"], "stop": ["b"], "status": ["c"], "halt": ["d"]}`: `"halt"`,
		`7`: "supervisor",
	} {
		_, err := parseConfig([]byte(withSupervisor(text)))
		require.ErrorContains(t, err, want, text)
	}
}

// TestServicesArePartOfHealth has a supervisor whose status command fails: a
// component without services is healthy all the same.
func TestServicesArePartOfHealth(t *testing.T) {
	c, err := parseConfig([]byte(withSupervisor(`{"start": ["/bin/true"], "stop": ["/bin/true"], "status": ["/bin/false"]}`)))
	require.NoError(t, err)
	c.Health = nil
	c.resolve(t.TempDir())
	a := &agent{config: c}
	require.NoError(t, a.makeBackends())
	check, err := a.health()
	require.NoError(t, err)
	require.NotNil(t, check, "services are asked for without any probe")
	require.NoError(t, check(t.Context()))

	c.Supervisor = nil
	require.NoError(t, a.makeBackends())
	check, err = a.health()
	require.NoError(t, err)
	require.Nil(t, check)
}
