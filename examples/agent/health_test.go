package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
)

// checkOf makes a check of the health section of a configuration.
func checkOf(t *testing.T, text string) ota.Check {
	t.Helper()
	c, err := parseConfig([]byte(strings.Replace(goodConfig, `[{"exec": ["/bin/true"]}]`, text, 1)))
	require.NoError(t, err)
	c.resolve(t.TempDir())
	check, err := (&agent{config: c}).health()
	require.NoError(t, err)
	return check
}

func TestHealthAnswers(t *testing.T) {
	require.Nil(t, checkOf(t, `[]`), "without probes the engine asks nobody")
	require.NoError(t, checkOf(t, `[{"exec": ["/bin/sh", "-c", "exit 0"]}]`)(t.Context()))
	sick := checkOf(t, `[{"exec": ["/bin/sh", "-c", "exit 0"]}, {"exec": ["/bin/sh", "-c", "echo starting; echo no camera >&2; exit 3"]}]`)
	require.EqualError(t, sick(t.Context()), `exec sh #2: /bin/sh: exit status 3 (no camera)`)
	missing := checkOf(t, `[{"name": "test", "exec": ["/nowhere/at/all"]}]`)
	require.ErrorContains(t, missing(t.Context()), "test: ")
}

func TestProbeHasAFixedEnvironment(t *testing.T) {
	t.Setenv("SECRET", "1")
	check := checkOf(t, `[{"exec": ["/bin/sh", "-c", "echo \"<$SECRET> <$PAWL_PHASE>\"; exit 1"]}]`)
	require.ErrorContains(t, check(t.Context()), "<> <health>")
}

// TestAdvisory has a probe be asked that decides nothing.
func TestAdvisory(t *testing.T) {
	require.NoError(t, checkOf(t, `[{"exec": ["/bin/false"], "advisory": true}]`)(t.Context()))
	require.ErrorContains(t, checkOf(t, `[{"exec": ["/bin/false"]}]`)(t.Context()), "exec false: ")
}

// TestHysteresis has a probe be sick only the second time, and well again only
// the second time.
func TestHysteresis(t *testing.T) {
	gate := filepath.Join(t.TempDir(), "gate")
	check := checkOf(t, `[{"exec": ["/usr/bin/test", "-e", "`+gate+`"], "successes": 2, "failures": 2}]`)
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	require.ErrorContains(t, check(t.Context()), "not enough yet")
	require.NoError(t, check(t.Context()))
	require.NoError(t, os.Remove(gate))
	require.NoError(t, check(t.Context()))
	require.Error(t, check(t.Context()))
}

func TestHealthRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"exec": []}`: "health[0].exec: it is empty",
		`{"exec": ["a"], "name": "x"}, {"exec": ["b"], "name": "x"}`: "two probes have the name x",
		`{"exec": ["a"], "failures": -1}`:                            "negative",
	} {
		_, err := parseConfig([]byte(strings.Replace(goodConfig, `[{"exec": ["/bin/true"]}]`, "["+text+"]", 1)))
		require.ErrorContains(t, err, want, text)
	}
}

// TestHangingProbe has a probe with a child of its own that both wait for
// ever: at the time limit neither is left.
func TestHangingProbe(t *testing.T) {
	t.Parallel()
	pids := filepath.Join(t.TempDir(), "pids")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // a busy machine may take long to start it
	defer cancel()
	begin := time.Now()
	err := checkOf(t, `[{"exec": ["/bin/sh", "-c", "sleep 100 & echo $$ $! > \"$1\"; echo waiting; wait", "sh", "`+pids+`"]}]`)(ctx)
	require.ErrorContains(t, err, `did not answer in time and was killed (waiting)`)
	require.Less(t, time.Since(begin), time.Minute)
	text, err := os.ReadFile(pids)
	require.NoError(t, err)
	for _, field := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(field)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return !alive(pid) }, time.Minute, 10*time.Millisecond, "process %d is left", pid)
	}
}

// alive reports whether pid runs; one that ended and was not waited for yet
// does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestOutputOfAProbeIsBounded(t *testing.T) {
	err := checkOf(t, `[{"exec": ["/bin/sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done; printf '%0600d' 7; exit 1"]}]`)(t.Context())
	require.Error(t, err)
	require.Less(t, len(err.Error()), 700)
}
