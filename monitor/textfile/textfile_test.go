package textfile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/monitor"
)

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pawl.prom")
	f := New(path)
	at := time.Date(2031, 2, 3, 4, 5, 6, 789e6, time.UTC)
	old := &monitor.Release{Product: "pump", Variant: "arm", Seq: 4, Version: "1.3"}
	now := &monitor.Release{Product: "pump", Variant: "arm", Seq: 5, Version: `1.4 "\`}
	for _, e := range []monitor.Event{
		{Kind: monitor.Boot, Release: old},
		{Kind: monitor.Staged, Release: now, Tx: "t"},
		{Kind: monitor.Committed, Release: now, Tx: "t"},
		{Kind: monitor.Changed, Probe: &monitor.Answer{Probe: "port", State: monitor.Well}},
		{Kind: monitor.Changed, Probe: &monitor.Answer{Probe: "disk", State: monitor.Sick}},
		{Kind: monitor.Sample, Name: "machine", Values: map[string]float64{"load1": 0.5, "free": 1e12}},
	} {
		e.Device, e.Time = "pump-7", at
		f.Event(e)
	}
	require.NoError(t, f.Write())
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, `# TYPE pawl_events_total counter
pawl_events_total{kind="boot"} 1
pawl_events_total{kind="committed"} 1
pawl_events_total{kind="probe"} 2
pawl_events_total{kind="sample"} 1
pawl_events_total{kind="staged"} 1
# TYPE pawl_info gauge
pawl_info{device="pump-7",product="pump",variant="arm",version="1.4 \"\\"} 1
# TYPE pawl_last_event_seconds gauge
pawl_last_event_seconds{kind="boot"} 1.927857906789e+09
pawl_last_event_seconds{kind="committed"} 1.927857906789e+09
pawl_last_event_seconds{kind="probe"} 1.927857906789e+09
pawl_last_event_seconds{kind="sample"} 1.927857906789e+09
pawl_last_event_seconds{kind="staged"} 1.927857906789e+09
# TYPE pawl_probe_well gauge
pawl_probe_well{probe="disk"} 0
pawl_probe_well{probe="port"} 1
# TYPE pawl_release_seq gauge
pawl_release_seq 5
# TYPE pawl_sample gauge
pawl_sample{name="machine",value="free"} 1e+12
pawl_sample{name="machine",value="load1"} 0.5
`, string(data))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o644), info.Mode())
	require.Error(t, New(filepath.Join(path, "no", "folder")).Write())
}

func TestFileIsBounded(t *testing.T) {
	f := New("")
	for n := range 3 * maxSeries {
		f.Event(monitor.Event{Kind: monitor.Sample, Name: fmt.Sprint(n), Values: map[string]float64{"x": 1}})
	}
	require.Equal(t, maxSeries+3, strings.Count(string(f.text()), "\n"), "with three lines of types")
}
