package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// BenchmarkOneFile deploys one file and one script alone, over loopback,
// through the engine and the in-place layout, again and again. It fails when
// the median is 100 ms or more, or when 30 KB or more are sent.
func BenchmarkOneFile(b *testing.B) {
	const releases = 12
	m := newMaker(b)
	dir := b.TempDir()
	root := filepath.Join(dir, "root")
	require.NoError(b, os.MkdirAll(root, 0o755))
	signed, err := os.ReadFile(filepath.Join(m.repo, "metadata", "1.root.json"))
	require.NoError(b, err)
	source, err := tuf.New(tuf.Options{URL: m.url, Root: signed, Dir: filepath.Join(dir, "trust")})
	require.NoError(b, err)
	files, err := micro.New(micro.Options{Name: "app", Root: root, Layout: micro.InPlace})
	require.NoError(b, err)
	u, err := ota.Open(b.Context(), ota.Options{
		Dir: filepath.Join(dir, "state"), Source: source, Backends: map[string]ota.Backend{"app": files},
		Device: ota.Device{ID: "d1", Product: "camera", Variant: "arm", Hardware: "rev-b"},
	})
	require.NoError(b, err)
	defer func() { require.NoError(b, u.Close()) }()

	for b.Loop() {
		var took []time.Duration
		var sent, syncs []int64
		for i := range releases {
			m.oneFile(b, fmt.Sprintf("1.%d.0", i), i)
			calls := map[string]int64{}
			count := func(op, _ string, call func() error) error { calls[op]++; return call() }
			seam.Step.Store(&count)
			m.sent.Store(0)
			begin := time.Now()
			r, err := u.Update(b.Context())
			took, sent = append(took, time.Since(begin)), append(sent, m.sent.Load())
			seam.Step.Store(nil)
			require.NoError(b, err)
			require.Equal(b, ota.Committed, r.State)
			syncs = append(syncs, calls["fsync"]+calls["fsyncdir"]+calls["syncfs"])
			if i == releases-1 {
				b.Logf("%v", calls)
			}
		}
		slices.Sort(took)
		slices.Sort(sent)
		ms := float64(took[releases/2].Microseconds()) / 1000
		b.ReportMetric(ms, "ms-update")
		b.ReportMetric(float64(took[0].Microseconds())/1000, "ms-best")
		b.ReportMetric(float64(sent[releases/2]), "sent-B")
		b.ReportMetric(float64(syncs[releases-1]), "syncs")
		require.Less(b, ms, 100.0)
		require.Less(b, sent[releases-1], int64(30<<10))
	}
}

// oneFile publishes a release of one file with one script.
func (m *maker) oneFile(t testing.TB, version string, n int) {
	tree := filepath.Join(m.dir, "one")
	write(t, tree, "etc/camera.conf", strings.Repeat(fmt.Sprintln("value =", n), 20), 0o644)
	write(t, m.dir, "hook", "#!/bin/sh\nexit 0\n", 0o755)
	m.release(version, tree, "scripts:", "- {name: hook, at: after-activate, run: "+filepath.Join(m.dir, "hook")+"}")
}
