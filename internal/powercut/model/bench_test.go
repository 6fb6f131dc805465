//go:build linux && (amd64 || arm64)

package model

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/powercut"
	"github.com/pawl-ota/pawl/internal/powercut/check"
)

func BenchmarkLay(b *testing.B) {
	dir := b.TempDir()
	scene := powercut.New(b, dir)
	for _, v := range []check.Version{check.V1, check.V2} {
		require.NoError(b, scene.CopyTo(filepath.Join(dir, v.String()), v))
		all, err := Scan(filepath.Join(dir, v.String()), nil)
		require.NoError(b, err)
		for _, keep := range []bool{false, true} {
			b.Run(fmt.Sprint(v, keep), func(b *testing.B) {
				l := newLayout("/dev/shm/pawl-lay", &known{})
				size := 0
				for _, e := range all {
					size += len(e.Data)
				}
				began := cpu()
				for b.Loop() {
					require.NoError(b, l.lay(all))
					if !keep {
						require.NoError(b, removeAll(l.root))
					}
				}
				b.ReportMetric(float64(cpu()-began)/float64(b.N), "cpu-ns/op")
				b.ReportMetric(float64(len(all)), "entries")
				b.ReportMetric(float64(size), "bytes")
				require.NoError(b, removeAll(l.root))
			})
		}
	}
}

// cpu returns how long this process, and those that it waited for, have worked,
// in nanoseconds.
func cpu() (sum int64) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			panic(err)
		}
		sum += u.Utime.Nano() + u.Stime.Nano()
	}
	return sum
}
