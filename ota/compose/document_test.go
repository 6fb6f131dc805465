package compose_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/compose"
)

var update = flag.Bool("update", false, "write the golden file anew")

// TestGolden reads a document as it was written when format 1 was made, and
// writes the app to the same bytes again.
func TestGolden(t *testing.T) {
	data, err := sample().Encode()
	require.NoError(t, err)
	path := filepath.Join("testdata", "format-1", "app.json")
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, data, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(data))
	a, err := compose.Parse(want)
	require.NoError(t, err)
	require.Equal(t, sample(), a)
}
