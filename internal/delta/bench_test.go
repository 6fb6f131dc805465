package delta_test

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/delta"
	"github.com/pawl-ota/pawl/internal/testneeds"
)

// BenchmarkPair makes and applies one group for all files that differ between
// the folders old and new in the one that PAWL_PAIR names. A file is compared
// with that of the same path, else with one whose path differs in digits only.
func BenchmarkPair(b *testing.B) {
	dir := os.Getenv("PAWL_PAIR")
	if dir == "" {
		testneeds.Missing(b, "a folder with old and new in PAWL_PAIR")
	}
	list := readPairs(b, filepath.Join(dir, "old"), filepath.Join(dir, "new"))
	for b.Loop() {
		var group bytes.Buffer
		var took [3]time.Duration
		w, size := delta.NewWriter(&group), 0
		for _, x := range list {
			begin := time.Now()
			p, err := delta.Find(context.Background(), bytes.NewReader(x.old), bytes.NewReader(x.new))
			took[0] += time.Since(begin)
			require.NoError(b, err)
			begin = time.Now()
			require.NoError(b, w.Add(p))
			took[1] += time.Since(begin)
			size += len(x.new)
		}
		require.NoError(b, w.Close())
		r, err := delta.NewReader(&group)
		require.NoError(b, err)
		for _, x := range list {
			begin := time.Now()
			blob, err := r.Next(bytes.NewReader(x.old), int64(len(x.old)), int64(len(x.new)))
			require.NoError(b, err)
			got := make([]byte, len(x.new))
			_, err = io.ReadFull(blob, got)
			took[2] += time.Since(begin)
			require.NoError(b, err)
			require.True(b, bytes.Equal(x.new, got))
		}
		b.ReportMetric(float64(len(list)), "files")
		b.ReportMetric(float64(size), "bytes")
		b.ReportMetric(float64(w.Len()), "stored-bytes")
		b.ReportMetric(took[0].Seconds(), "find-s")
		b.ReportMetric(took[1].Seconds(), "write-s")
		b.ReportMetric(took[2].Seconds(), "read-s")
	}
}

func readPairs(b *testing.B, old, new string) (list []pair) {
	digits := regexp.MustCompile("[0-9]+")
	olds := map[string]string{}
	keys := func(name string) [3]string {
		dir, base := filepath.Split(name)
		dir = digits.ReplaceAllString(dir, "#")
		return [3]string{name, dir + base, dir + digits.ReplaceAllString(base, "#")}
	}
	walk(b, old, func(name string) {
		for _, k := range keys(name) {
			olds[k] = name
		}
	})
	walk(b, new, func(name string) {
		var x pair
		for _, k := range keys(name) {
			from, ok := olds[k]
			if !ok {
				continue
			}
			var err error
			x.old, err = os.ReadFile(filepath.Join(old, from))
			require.NoError(b, err)
			break
		}
		var err error
		x.new, err = os.ReadFile(filepath.Join(new, name))
		require.NoError(b, err)
		if !bytes.Equal(x.old, x.new) {
			list = append(list, x)
		}
	})
	return list
}

// walk calls f for each file below dir.
func walk(b *testing.B, dir string, f func(name string)) {
	require.NoError(b, fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			f(name)
		}
		return err
	}))
}
