//go:build monitor

package main

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCollector has examples/collector, as the program that it is, be told by an
// agent, and show why the device went back. It is a module of its own, so that
// this runs with PAWL_COLLECTOR=1 alone.
func TestCollector(t *testing.T) {
	if os.Getenv("PAWL_COLLECTOR") == "" {
		return
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "collector")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-C", "../collector", "-o", program, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	cmd := exec.CommandContext(t.Context(), program, "-listen", "127.0.0.1:0", "-db", filepath.Join(dir, "fleet.db"))
	cmd.WaitDelay = 5 * time.Second
	said, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(said).ReadString('\n')
	require.NoError(t, err)
	_, events, ok := strings.Cut(strings.TrimSpace(line), "events go to ")
	require.True(t, ok, line)

	f := newFleet(t)
	f.set("report", "url", events)
	f.play()
	page := pageOf(t, strings.TrimSuffix(events, "events")+"fleet")
	require.Contains(t, page, "cam-1")
	require.Contains(t, page, "not healthy for 0s within 300ms: lens: /bin/sh: exit status 1 (dirty)")
	past := pageOf(t, strings.TrimSuffix(events, "events")+"device?name=cam-1")
	for _, kind := range []string{"boot", "begin", "staged", "activated", "committed", "reverted"} {
		require.Contains(t, past, kind)
	}
}

func pageOf(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	return string(body)
}
