//go:build monitor

package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/monitor"
)

// heard is a monitor.Sink that keeps events in memory.
type heard struct {
	mu  sync.Mutex
	all []string
}

func (h *heard) Append(_ bool, _ string, data []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, string(data))
}

func (h *heard) text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.all, "\n")
}

// TestRules: those of the device's owner go before those of the release, what
// cannot be read is told once and is no rule, and a release needs none.
func TestRules(t *testing.T) {
	dir, sink := t.TempDir(), &heard{}
	stream, err := monitor.NewStream(monitor.StreamOptions{Device: "d1", Sink: sink})
	require.NoError(t, err)
	w := &watcher{conf: rules{File: filepath.Join(dir, "own.json"), Release: filepath.Join(dir, "release.json")}, stream: stream}
	write := func(path, rules string) {
		t.Helper()
		require.NoError(t, os.WriteFile(path, []byte(`{"format": "pawl-alerts/0", "rules": [`+rules+`]}`), 0o600))
	}
	write(w.conf.File, `{"name": "hot", "sample": "device", "value": "temperature.max", "above": 70}`)
	require.Len(t, w.load(), 1)
	require.Empty(t, sink.text(), "a release need not have any")
	write(w.conf.Release, `{"name": "hot", "sample": "device", "value": "temperature.max", "above": 90}, {"name": "port", "probe": "port"}`)
	all := w.load()
	require.Len(t, all, 2)
	require.Equal(t, 70.0, *all[0].Above)

	require.NoError(t, os.WriteFile(w.conf.Release, []byte("{"), 0o600))
	require.Len(t, w.load(), 1)
	w.load()
	require.Len(t, sink.all, 1)
	require.Contains(t, sink.text(), `"alert rules"`)
}

// TestFileLog has an alert come of a line that is added to a file.
func TestFileLog(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	log := filepath.Join(f.dir, "app.log")
	require.NoError(t, os.WriteFile(log, []byte("out of memory, long ago\n"), 0o600))
	own := filepath.Join(f.dir, "own.json")
	require.NoError(t, os.WriteFile(own, []byte(`{"format": "pawl-alerts/0", "rules": [{"name": "oom", "log": "file/`+log+`", "match": "out of memory"}]}`), 0o600))
	f.config["report"].(map[string]any)["alerts"] = map[string]any{"file": own}
	f.release("1", "clear")
	r := f.start()
	f.until("committed 1", monitor.Committed)
	out, err := os.OpenFile(log, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	defer out.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(f.to.told(monitor.Alert)) == 0 { // it may not be followed yet
		_, err = out.WriteString("camera: out of memory\n")
		require.NoError(t, err)
		<-tick.C
	}
	require.Contains(t, f.to.told(monitor.Alert)[0], "camera: out of memory")
	r.stop()
}
