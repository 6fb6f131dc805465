//go:build linux

package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkRun runs the same short text as a program and, as the floor, as a
// plain command; x is the first in the second, over-ms what it takes more.
func BenchmarkRun(b *testing.B) {
	const text = "#!/bin/sh\nexit 0\n"
	path := filepath.Join(b.TempDir(), "plain")
	require.NoError(b, os.WriteFile(path, []byte(text), 0o755))
	p := program(b, text)
	var ours, plain time.Duration
	for b.Loop() {
		began := time.Now()
		run(b, p)
		ours += time.Since(began)
		began = time.Now()
		cmd := exec.Command(path)
		cmd.Env, cmd.Dir = p.Env, p.Dir
		_, err := cmd.CombinedOutput()
		plain += time.Since(began)
		require.NoError(b, err)
	}
	b.ReportMetric(float64(ours)/float64(plain), "x")
	b.ReportMetric((ours-plain).Seconds()*1e3/float64(b.N), "over-ms")
}

// BenchmarkFind is one look at all processes of the machine.
func BenchmarkFind(b *testing.B) {
	s, err := newSweep(program(b, "").Mark)
	require.NoError(b, err)
	for b.Loop() {
		_, _, err := s.find()
		require.NoError(b, err)
	}
}
