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
)

func TestHealthAnswers(t *testing.T) {
	require.Nil(t, healthOf(nil), "without probes the engine asks nobody")
	good := healthOf([]probe{{Exec: []string{"/bin/sh", "-c", "exit 0"}}})
	require.NoError(t, good(t.Context()))

	sick := healthOf([]probe{
		{Exec: []string{"/bin/sh", "-c", "exit 0"}},
		{Exec: []string{"/bin/sh", "-c", "echo starting; echo no camera >&2; exit 3"}},
	})
	require.ErrorContains(t, sick(t.Context()), `/bin/sh: exit status 3: "no camera"`)

	missing := healthOf([]probe{{Exec: []string{filepath.Join(t.TempDir(), "gone")}}})
	require.Error(t, missing(t.Context()))
}

func TestProbeHasAFixedEnvironment(t *testing.T) {
	t.Setenv("SECRET", "1")
	err := runProbe(t.Context(), []string{"/bin/sh", "-c", `echo "<$SECRET> <$PAWL_PHASE>"; exit 1`})
	require.ErrorContains(t, err, "<> <health>")
}

// TestHangingProbe has a probe with a child of its own that both wait for
// ever: at the time limit neither is left.
func TestHangingProbe(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	err := runProbe(ctx, []string{"/bin/sh", "-c", `sleep 100 & echo $$ $! > "$1"; echo waiting; wait`, "sh", pids})
	require.ErrorContains(t, err, `did not answer in time and was killed: "waiting"`)
	require.Less(t, time.Since(begin), 5*time.Second)
	text, err := os.ReadFile(pids)
	require.NoError(t, err)
	for _, field := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(field)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return !alive(pid) }, 5*time.Second, 10*time.Millisecond, "process %d is left", pid)
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
	err := runProbe(t.Context(), []string{"/bin/sh", "-c", `i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done; printf '%0600d' 7; exit 1`})
	require.Error(t, err)
	require.Less(t, len(err.Error()), 700)
}
