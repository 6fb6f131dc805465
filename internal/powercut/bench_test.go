package powercut

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/powercut/check"
	"github.com/pawl-ota/pawl/internal/powercut/firmware"
)

// memory is a folder in memory, where there is one.
func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "pawl-*")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// BenchmarkWorkload says what a campaign pays for a device, an update, a start,
// and a look.
func BenchmarkWorkload(b *testing.B) {
	mem := memory(b)
	s := New(b, mem)
	n := 0
	device := func(b *testing.B, v check.Version) string {
		n++
		dir := filepath.Join(mem, fmt.Sprint("d", n))
		s.Copy(b, dir, v)
		return dir
	}
	b.Run("copy", func(b *testing.B) {
		for b.Loop() {
			device(b, check.V1)
		}
	})
	b.Run("update", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			dir := device(b, check.V1)
			b.StartTimer()
			require.NoError(b, Update(b.Context(), InProcess, dir))
		}
	})
	dir := device(b, check.V2)
	b.Run("resume", func(b *testing.B) {
		for b.Loop() {
			require.Zero(b, InProcess(b.Context(), dir, firmware.VerbResume).Code)
		}
	})
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			_, err := check.Device(dir, check.V2)
			require.NoError(b, err)
		}
	})
	b.Run("settle", func(b *testing.B) {
		for b.Loop() {
			_, err := Settle(b.Context(), InProcess, dir, check.V2)
			require.NoError(b, err)
		}
	})
}
