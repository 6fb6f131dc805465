package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestQuickstart runs the program as the README says, and holds it to what it
// says, and to leaving nothing behind. To its time CI holds it.
func TestQuickstart(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "quickstart")
	out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	temp := filepath.Join(dir, "tmp")
	require.NoError(t, os.Mkdir(temp, 0o755))
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	out, err = cmd.CombinedOutput()
	t.Logf("%s", out)
	require.NoError(t, err)
	text := string(out)
	for _, want := range []string{
		"committed 1.0.0 (seq 1) over nothing",
		"committed 1.1.0 (seq 2) over 1.0.0 (seq 1)",
		"tried and took back 1.2.0 (seq 3) over 1.1.0 (seq 2)",
		"no microphone found",
		"holds that release back",
		"killed when half of 1.3.0 was fetched",
		"killed when 1.3.0 was on trial",
		"committed 1.3.0 (seq 4) over 1.1.0 (seq 2)",
	} {
		_, after, ok := strings.Cut(text, want)
		require.True(t, ok, "%q is missing, or comes too early", want)
		text = after
	}
	require.Contains(t, text, "each byte as released in 1.3.0")
	require.NotContains(t, string(out), "\x1b", "a progress bar where there is no terminal")
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left, "something is left behind")
}
