package tuf_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/publish"
	"github.com/pawl-ota/pawl/ota/release"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// TestPublishedRepository goes from a real tree through the publisher to the
// content of one file, over HTTP and from a folder.
func TestPublishedRepository(t *testing.T) {
	dir, tree := filepath.Join(t.TempDir(), "repo"), t.TempDir()
	keys, err := publish.KeyDir{Path: filepath.Join(t.TempDir(), "keys")}.Make(2, false)
	require.NoError(t, err)
	now := today
	repo, err := publish.Open(publish.Options{Dir: dir, Keys: keys, Now: func() time.Time { return now }})
	require.NoError(t, err)
	require.NoError(t, repo.Create(t.Context(), "kiosk", 2))
	pinned, err := os.ReadFile(filepath.Join(dir, "metadata", "1.root.json"))
	require.NoError(t, err)
	for seq, content := range []string{"one", "two"} {
		require.NoError(t, os.WriteFile(filepath.Join(tree, "app"), []byte(strings.Repeat(content, 500)), 0o755))
		_, err = repo.Release(t.Context(), publish.Spec{
			Variant: "arm", Version: content, Seq: uint64(seq + 1), Hardware: []string{"rev-b"},
			Components: []publish.Component{{Name: "app", Kind: "files", From: tree}},
		})
		require.NoError(t, err)
	}
	m := &maker{t: t, pinned: pinned}
	for name, url := range media(t, dir) {
		t.Run(name, func(t *testing.T) {
			o := m.options(url)
			s := source(t, o)
			r, err := s.Latest(t.Context(), device)
			require.NoError(t, err)
			require.Equal(t, "two", r.Version)
			l, err := s.Locator(t.Context(), r)
			require.NoError(t, err)
			stored, err := read(s, t, release.TableName(l.Table.Digest), 0, -1)
			require.NoError(t, err)
			require.Equal(t, l.Table.Digest, release.Sum(stored))
			table, err := release.ParseTable(stored, l)
			require.NoError(t, err)
			place, ok := table.Find(r.Components[0].Index)
			require.True(t, ok)
			_, err = read(s, t, place.Pack, place.Offset, place.Length)
			require.NoError(t, err)

			o.Now = func() time.Time { return today.Add(100 * day) }
			_, err = latest(t, o)
			require.ErrorIs(t, err, tuf.ErrClockUntrusted, "nobody refreshed for 100 days")

			content := map[string][]byte{"metadata/1.root.json": pinned}
			otatest.TestSource(t, otatest.SourceHarness{
				New: func(t *testing.T) ota.Source { return source(t, m.options(url)) }, Device: device, Newest: r, Content: content,
			})
		})
	}
	now = today.Add(100 * day)
	_, err = repo.Refresh(t.Context())
	require.NoError(t, err)
	o := m.options(dir)
	o.Now = func() time.Time { return now }
	_, err = latest(t, o)
	require.NoError(t, err)
}

func read(s *tuf.Source, t *testing.T, name string, offset, length int64) ([]byte, error) {
	r, err := s.Open(t.Context(), name, offset, length)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var b bytes.Buffer
	_, err = io.Copy(&b, r)
	return b.Bytes(), err
}
