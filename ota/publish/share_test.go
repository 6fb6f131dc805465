package publish

import (
	"archive/tar"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/ota/release"
)

// copySource copies the first n files of the Go toolchain's own source.
func copySource(t testing.TB, n int) (dir string, files []string) {
	out, err := exec.Command(testneeds.Program(t, "go"), "env", "GOROOT").Output()
	require.NoError(t, err)
	from := filepath.Join(strings.TrimSpace(string(out)), "src")
	if _, err := os.Stat(from); err != nil {
		testneeds.Missing(t, "the source of the Go toolchain")
	}
	dir = t.TempDir()
	require.NoError(t, filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(dir, rel), 0o755)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files = append(files, rel)
		if len(files) == n {
			return cmpSkip(os.WriteFile(filepath.Join(dir, rel), data, 0o644))
		}
		return os.WriteFile(filepath.Join(dir, rel), data, 0o644)
	}))
	return dir, files
}

func cmpSkip(err error) error {
	if err != nil {
		return err
	}
	return fs.SkipAll
}

// packed returns how long a tar of dir is after zstd, as one would fetch it
// whole.
func packed(t testing.TB, dir string) int64 {
	n := int64(0)
	enc, err := zstd.NewWriter(writerFunc(func(b []byte) (int, error) { n += int64(len(b)); return len(b), nil }),
		zstd.WithEncoderConcurrency(1))
	require.NoError(t, err)
	w := tar.NewWriter(enc)
	require.NoError(t, w.AddFS(os.DirFS(dir)))
	require.NoError(t, w.Close())
	require.NoError(t, enc.Close())
	return n
}

// TestOnePercent states what a device fetches that holds the release before,
// when 1 % of the files change: less than 3 % of what a tar of all would take.
func TestOnePercent(t *testing.T) {
	count := 6000
	if testing.Short() {
		count = 1500
	}
	dir, files := copySource(t, count)
	f := newFixture(t)
	first, err := f.Release(t.Context(), spec("1", dir))
	require.NoError(t, err)
	for i := 0; i < len(files); i += 100 {
		out, err := os.OpenFile(filepath.Join(dir, files[i]), os.O_APPEND|os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = io.WriteString(out, "\n// changed\n")
		require.NoError(t, err)
		require.NoError(t, out.Close())
	}
	second, err := f.Release(t.Context(), spec("2", dir))
	require.NoError(t, err)
	require.Equal(t, len(files)/100, second.NewBlobs)

	whole := packed(t, dir)
	state, err := f.disk.load(nil, start)
	require.NoError(t, err)
	all, err := f.disk.listed(state)
	require.NoError(t, err)
	l := all[1]
	patch, ok := l.locator.Patch(l.release.Components[0].Index.Digest, func(d release.Digest) bool {
		return d == all[0].release.Components[0].Index.Digest
	})
	require.True(t, ok)
	size := func(name string) int64 {
		info, err := os.Stat(f.disk.path(name))
		require.NoError(t, err)
		return info.Size()
	}
	parts := map[string]int64{
		"metadata": size(timestampName) + size(roleName(Snapshot, 3)) + size(roleName(Targets, 3)),
		"release":  size(l.file(l.digest)),
		"table":    l.locator.Table.Size,
		"patch":    patch.Length,
	}
	locator := l.target
	locator.Kind = kindLocator
	_, d, err := parseTarget(locator.name(), targetsOf(state).Signed.Targets[locator.name()])
	require.NoError(t, err)
	parts["locator"] = size(locator.file(d))
	old := map[release.Digest]bool{}
	require.NoError(t, f.disk.readPack(all[0].locator.Packs[0], func(d release.Digest, _ spot) { old[d] = true }))
	require.NoError(t, f.disk.readPack(l.locator.Packs[1], func(d release.Digest, s spot) {
		if d != l.release.Components[0].Index.Digest {
			parts["files"] += s.length
		} else {
			t.Logf("the index whole: %d of %d bytes", s.length, s.size)
		}
	}))
	total := int64(0)
	for name, n := range parts {
		total += n
		t.Logf("%-8s %8d bytes %6.3f %%", name, n, 100*float64(n)/float64(whole))
	}
	t.Logf("%-8s %8d bytes %6.3f %% of a tar with zstd of %d bytes; the first release stored %d", "in all", total,
		100*float64(total)/float64(whole), whole, first.Stored)
	require.Less(t, float64(total), 0.03*float64(whole))
}
