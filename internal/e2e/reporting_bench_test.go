package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/monitor/outbox"
	"github.com/pawl-ota/pawl/ota"
)

// most is how much longer than without reporting an update may take.
const most = 1.05

// lane is a device that reports in one way, and how long its updates took.
type lane struct {
	*device
	*told
	name       string
	kept, back []time.Duration
}

// BenchmarkReporting has devices that fail to report in every way, and two that
// report nothing, go from release to release in turn, to one that is kept and to
// one that is taken back, each after a trial of a second. A round is one iteration,
// and begins with another device each time. It fails when the median time of a way,
// against that of those that report nothing, is over the limit.
func BenchmarkReporting(b *testing.B) {
	m, disks := newMaker(b), newFailing(b)
	tree := copyTree(b, filepath.Join(m.dir, "tree"), "net", "crypto")
	lanes := []*lane{{name: "nobody is told", told: nobody()}, {name: "nobody is told again", told: nobody()}}
	all := append([]way{{name: "all is well"}}, ways(disks)...)
	all = slices.DeleteFunc(all, func(w way) bool { return w.code != 0 && w.code != 500 }) // one answer is as short as another
	for _, w := range all {
		lanes = append(lanes, &lane{name: w.name, told: w.begin(b, outbox.Options{})})
	}
	next := releasesOf(m, tree)
	next("well")
	for _, l := range lanes {
		defer l.end()
		l.device = newDevice(b, m, b.TempDir())
		l.trial = ota.Trial{Soak: time.Second, Interval: 100 * time.Millisecond, Deadline: 1100 * time.Millisecond}
		require.Equal(b, ota.Committed, l.updateTold(m, nil).result.State)
	}
	rounds := 0
	for ; b.Loop(); rounds++ {
		next("well")
		for i := range lanes {
			l := lanes[(i+rounds)%len(lanes)]
			o := l.updateTold(m, l.Reporter)
			require.Equal(b, ota.Committed, o.result.State, "%s: %s", l.name, o.err)
			l.kept = append(l.kept, o.took)
		}
		next("sick")
		for i := range lanes {
			l := lanes[(i+rounds)%len(lanes)]
			o := l.updateTold(m, l.Reporter)
			require.Equal(b, ota.Reverted, o.result.State, "%s: %s", l.name, o.err)
			l.back = append(l.back, o.took)
		}
	}
	slowest := [2]float64{}
	for _, l := range lanes {
		kept, back := ratio(l.kept, lanes[0].kept, lanes[1].kept), ratio(l.back, lanes[0].back, lanes[1].back)
		b.Logf("%-34s kept %4.0f ms, %.3f ×   taken back %4.0f ms, %.3f ×", l.name, ms(median(l.kept)), kept, ms(median(l.back)), back)
		slowest = [2]float64{max(slowest[0], kept), max(slowest[1], back)}
	}
	b.ReportMetric(slowest[0], "×-kept")
	b.ReportMetric(slowest[1], "×-taken-back")
	require.LessOrEqual(b, max(slowest[0], slowest[1]), most)
}

// releasesOf returns what publishes the next release of a tree, well or sick.
func releasesOf(m *maker, tree string) func(health string) {
	all, n := files(m.t, tree), 0
	return func(health string) {
		n++
		for _, name := range all[:min(20, len(all))] {
			appendTo(m.t, filepath.Join(tree, name), strings.Repeat("// one line more\n", 10))
		}
		write(m.t, tree, "health", health, 0o644)
		m.release(fmt.Sprintf("1.%d.0", n), tree)
	}
}

// ratio is the median of what was measured against that of all the floors.
func ratio(times []time.Duration, floors ...[]time.Duration) float64 {
	return float64(median(times)) / float64(median(slices.Concat(floors...)))
}
