package bar

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pawl-ota/pawl/ota"
	"github.com/stretchr/testify/require"
)

func TestBarOnATerminal(t *testing.T) {
	var out strings.Builder
	now := time.Unix(0, 0)
	b := &Bar{w: &out, width: func() int { return 80 }, now: func() time.Time { return now }}

	b.Show(ota.Progress{Component: "app", Step: "stage", Done: 0, Total: 4_000_000})
	require.Contains(t, out.String(), "app stage [........................................]   0%  0 B of 4.0 MB")

	drawn := out.Len()
	b.Show(ota.Progress{Component: "app", Step: "stage", Done: 1, Total: 4_000_000})
	require.Equal(t, drawn, out.Len(), "drawn again within a tenth of a second")

	now = now.Add(2 * time.Second)
	b.Show(ota.Progress{Component: "app", Step: "stage", Done: 2_000_000, Total: 4_000_000})
	require.Contains(t, out.String(), "###########...........] ", "the bar did not move")
	require.Contains(t, out.String(), " 50%  2.0 MB of 4.0 MB  1.0 MB/s  2.0 s left")
	for _, line := range strings.Split(out.String(), "\r\x1b[K") {
		require.LessOrEqual(t, len(line), 79, "longer than the terminal is wide: %q", line)
	}

	b.Show(ota.Progress{Step: "health", Done: int64(3 * time.Second), Total: int64(10 * time.Second)})
	require.Contains(t, out.String(), "health [############............................]  30%  3.0 s of 10 s")

	b.Clear()
	drawn = out.Len()
	b.Clear()
	require.Equal(t, drawn, out.Len(), "cleared twice")
}

func TestNarrowTerminal(t *testing.T) {
	var out strings.Builder
	b := &Bar{w: &out, width: func() int { return 20 }, now: time.Now}
	b.Show(ota.Progress{Component: "app", Step: "stage", Done: 1, Total: 2})
	require.NotContains(t, out.String(), "[#")
}

func TestNothingElsewhereThanOnATerminal(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/out")
	require.NoError(t, err)
	defer f.Close()
	b := New(f)
	require.Nil(t, b)
	b.Show(ota.Progress{Step: "stage", Done: 1, Total: 2})
	b.Clear()
	info, err := f.Stat()
	require.NoError(t, err)
	require.Zero(t, info.Size())
}

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB",
		1 << 30: "1.1 GB", 5_000_000_000_000_000: "5000.0 TB",
	} {
		require.Equal(t, want, Size(n))
	}
	require.Equal(t, "0.4 s", Seconds(400*time.Millisecond))
	require.Equal(t, "12 s", Seconds(12*time.Second))
	require.Equal(t, "3m20s", Seconds(200*time.Second))
}
