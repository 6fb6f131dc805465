package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkLargePatch has a large file change by a few KB in three places, one
// of which moves all that follows, and fails when the agent's resident memory is
// ever above 32 MiB, or when more than a few KB are fetched. The file has 32 MiB,
// and 1 GiB with PAWL_CRASH=long: the publisher needs most of the time.
func BenchmarkLargePatch(b *testing.B) {
	const limit = 32 << 20
	size := 32 << 20
	if os.Getenv("PAWL_CRASH") == "long" {
		size = 1 << 30
	}
	for b.Loop() {
		m := newMaker(b)
		d := newDevice(b, m, b.TempDir())
		d.set("trial", "soak", "1s")
		d.set("trial", "interval", "100ms")
		v1, v2 := filepath.Join(m.dir, "v1"), filepath.Join(m.dir, "v2")
		noiseFile(b, v1, "image", size)
		m.release("1.0.0", v1)
		d.must(0, "update")
		editLarge(b, filepath.Join(v1, "image"), v2, "image", int64(size))
		var by run // for as long as it takes
		measured(b, &by, m.publish(b, "1.1.0", v2))

		plan := d.must(0, "check", "-plan").Need
		require.Equal(b, 1, plan.Parts[0].Patched.Blobs, "%+v", plan)
		m.sent.Store(0)
		begin := time.Now()
		peak := d.peak(b, "update")
		took := time.Since(begin)
		d.holds(v2)
		b.ReportMetric(float64(peak)/(1<<20), "MiB-peak")
		b.ReportMetric(float64(m.sent.Load()), "fetched-B")
		b.ReportMetric(took.Seconds(), "s-update")
		b.ReportMetric(by.took.Seconds(), "s-publish")
		b.ReportMetric(float64(by.Peak)/(1<<20), "MiB-publisher")
		require.LessOrEqual(b, peak, int64(limit))
		require.LessOrEqual(b, m.sent.Load(), int64(40_000))
	}
}

// publish returns the command that publishes a tree.
func (m *maker) publish(b *testing.B, version, tree string) *exec.Cmd {
	b.Helper()
	spec := filepath.Join(m.dir, version+".yaml")
	text := fmt.Sprintf("product: camera\nversion: %s\nvariant: arm\ncomponents:\n  - {name: app, kind: files, from: %q}\n", version, tree)
	require.NoError(b, os.WriteFile(spec, []byte(text), 0o644))
	return exec.CommandContext(b.Context(), program(b, "publisher"), "release", "-repo", m.repo, "-keys", m.keys, spec)
}

// editLarge copies a file, with 4 KB written over, 3 KB inserted and 2 KB left
// out.
func editLarge(b *testing.B, from, dir, name string, size int64) {
	b.Helper()
	require.NoError(b, os.MkdirAll(dir, 0o755))
	in, err := os.Open(from)
	require.NoError(b, err)
	defer in.Close()
	out, err := os.Create(filepath.Join(dir, name))
	require.NoError(b, err)
	fresh := noise(8000)
	for _, part := range []struct {
		to   int64 // copied up to there
		then string
		skip int64
	}{{size / 3, fresh[:4000], 4000}, {size / 2, fresh[4000:7000], 0}, {size * 3 / 4, "", 2000}, {size, "", 0}} {
		at, err := in.Seek(0, io.SeekCurrent)
		require.NoError(b, err)
		_, err = io.CopyN(out, in, part.to-at)
		require.NoError(b, err)
		_, err = out.WriteString(part.then)
		require.NoError(b, err)
		_, err = in.Seek(part.skip, io.SeekCurrent)
		require.NoError(b, err)
	}
	require.NoError(b, out.Close())
}

// noiseFile writes a file that does not compress.
func noiseFile(b *testing.B, dir, name string, size int) {
	b.Helper()
	require.NoError(b, os.MkdirAll(dir, 0o755))
	f, err := os.Create(filepath.Join(dir, name))
	require.NoError(b, err)
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{3}), int64(size))
	require.NoError(b, err)
	require.NoError(b, f.Close())
}
