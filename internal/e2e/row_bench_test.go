package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkRow has updates of real trees follow each other on one device, there and
// back, and says of each what it took of the processor and how much it read: of
// what did not change only the first may read all.
func BenchmarkRow(b *testing.B) {
	for _, path := range pairsOf(b) {
		b.Run(filepath.Base(filepath.Dir(path)), func(b *testing.B) {
			trees := []string{resolve(b, filepath.Join(filepath.Dir(path), "old")), resolve(b, path)}
			for b.Loop() {
				m := newMaker(b)
				d := newDevice(b, m, b.TempDir())
				d.set("trial", "soak", "0s")
				for n := range 6 {
					m.release(fmt.Sprintf("1.%d.0", n), trees[n%2])
					cpu, read := d.updateCounted(b)
					b.ReportMetric(cpu, fmt.Sprint("s-cpu-", n))
					b.ReportMetric(float64(read)/(1<<20), fmt.Sprint("MiB-read-", n))
				}
				d.holds(trees[1])
				b.ReportMetric(0, "ns/op")
			}
		})
	}
}

// updateCounted runs an update by a shell, to which the kernel adds what its
// children read.
func (d *device) updateCounted(b *testing.B) (cpu float64, read int) {
	b.Helper()
	update := d.command(b.Context(), "update")
	cmd := exec.CommandContext(b.Context(), "sh", append([]string{"-ec", `"$@" >/dev/null; cat /proc/$$/io`, "sh"}, update.Args...)...)
	cmd.Dir, cmd.Env = update.Dir, update.Env
	out, err := cmd.Output()
	require.NoError(b, err, "%s", out)
	read, err = strconv.Atoi(strings.Fields(string(out))[1])
	require.NoError(b, err, "%s", out)
	return (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), read
}
