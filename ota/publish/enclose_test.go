//go:build linux

package publish

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

// enclosed returns what the timestamp encloses, each compared with the file, by the
// first folders of names.
func (f *fixture) enclosed(t *testing.T) map[string]release.Enclosed {
	data, err := os.ReadFile(filepath.Join(f.dir, timestampName))
	require.NoError(t, err)
	require.LessOrEqual(t, len(data), longest(timestampName)*3/4)
	var stamp struct{ Signed struct{ Enclosed []byte } }
	require.NoError(t, json.Unmarshal(data, &stamp))
	if stamp.Signed.Enclosed == nil {
		return nil
	}
	list, err := release.ParseEnclosed(stamp.Signed.Enclosed)
	require.NoError(t, err)
	all := map[string]release.Enclosed{}
	for _, e := range list {
		file, err := os.ReadFile(filepath.Join(f.dir, e.Name))
		require.NoError(t, err)
		if e.Part() {
			file = file[e.Offset:][:e.Size]
		}
		require.Equal(t, file, e.Data)
		kind := strings.Join(strings.Split(e.Name, "/")[:2], "/")
		if e.Part() {
			kind = filepath.Ext(e.Name)
		}
		all[strings.TrimLeft(strings.TrimPrefix(kind, "metadata/"), "0123456789.")] = e
	}
	require.Len(t, all, len(list))
	return all
}

// TestEncloses: the timestamp of a release encloses its documents and the metadata
// that names them, and of its content what makes it of the release before, if that is
// little.
func TestEncloses(t *testing.T) {
	f := newFixture(t)
	require.Nil(t, f.enclosed(t))
	from := many(200, "a")
	from["etc/conf"] = "none"
	from["etc/noise"] = noise(1, 10_000)
	first, err := f.Release(t.Context(), spec("1", from.write(t)))
	require.NoError(t, err)
	require.Len(t, f.enclosed(t), 4, "the pack is large, and no device runs the one before")

	from["etc/conf"] = "one"
	from["etc/noise"] += "more"
	second, err := f.Release(t.Context(), spec("2", from.write(t)))
	require.NoError(t, err)
	all := f.enclosed(t)
	require.Len(t, all, 5, "%v", all)
	require.Contains(t, all["targets/releases"].Name, fmt.Sprint("/default/", second.Release, ".2.json"))
	part := all["pack"]
	covers := func(pack int, l *listed, offset, length int64) bool {
		return part.Name == l.locator.Packs[pack].Name && offset >= part.Offset && offset+length <= part.Offset+int64(part.Size)
	}
	l := f.newest(t)
	require.Equal(t, first.Seq+1, l.Seq)
	require.NotEmpty(t, l.locator.Patches)
	for _, p := range l.locator.Patches {
		require.True(t, covers(p.Pack, l, p.Offset, p.Length))
	}
	require.NotEmpty(t, l.locator.Deltas)
	for _, d := range l.locator.Deltas {
		require.True(t, covers(d.Pack, l, d.Offset, d.Length) && covers(d.Pack, l, d.Start, d.Groups))
	}

	_, err = f.Refresh(t.Context())
	require.NoError(t, err)
	require.Nil(t, f.enclosed(t), "devices look often, and at a release once")

	for i := range 40 { // whose patches are many
		from[fmt.Sprint("lib/", i)] = strings.Repeat(noise(byte(i), 700), 2)
	}
	old := from.write(t)
	_, err = f.Release(t.Context(), spec("3", old))
	require.NoError(t, err)
	for i := range 40 {
		from[fmt.Sprint("lib/", i)] = noise(byte(i), 700) + noise(byte(i+100), 700)
	}
	_, err = f.Release(t.Context(), spec("4", from.write(t)))
	require.NoError(t, err)
	all = f.enclosed(t)
	require.Len(t, all, 4, "its patches are many: %v", all)

	f = newFixture(t)
	_, err = f.Release(t.Context(), spec("1", tree{"a": "one"}.write(t)))
	require.NoError(t, err)
	_, err = f.Release(t.Context(), spec("2", tree{"a": "one", "b": "two"}.write(t)))
	require.NoError(t, err)
	all = f.enclosed(t)
	require.Len(t, all, 6, "with the table")
	pack := all["pack"]
	require.Zero(t, pack.Offset)
	info, err := os.Stat(filepath.Join(f.dir, pack.Name))
	require.NoError(t, err)
	require.EqualValues(t, info.Size(), pack.Size, "all that is new")
}
