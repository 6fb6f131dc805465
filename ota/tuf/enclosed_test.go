package tuf_test

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/fetch"
	"github.com/pawl-ota/pawl/ota/release"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// enclosing is a repository with two releases, of which the timestamp encloses the
// second, and a server of it that remembers what it was asked for.
type enclosing struct {
	*maker
	files []release.Enclosed
	pack  string
	mu    sync.Mutex
	asked []string
	o     tuf.Options // of a device that knows the first release
}

func newEnclosing(t *testing.T) *enclosing {
	m := newMaker(t)
	m.add(newRelease(1))
	m.publish()
	e := &enclosing{maker: m}
	good := http.FileServer(http.Dir(m.dir))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		e.asked = append(e.asked, strings.TrimPrefix(r.URL.Path, "/"))
		e.mu.Unlock()
		good.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	e.o = m.options(s.URL)
	e.o.Client = slowClient(t, fetch.Options{})
	found(t, e.o)
	old := e.all()
	m.add(newRelease(2))
	m.publish()
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(e.all()))) { // the pack comes last
		if old[name] || name == "metadata/timestamp.json" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(m.dir, name))
		require.NoError(t, err)
		f := release.Enclosed{Name: name, Data: data}
		if f.Part() {
			e.pack, f.Offset, f.Data = name, 2, data[2:10]
		}
		e.files = append(e.files, f)
	}
	require.Len(t, e.files, 5, "snapshot, targets, release, locator, a part of the pack")
	return e
}

func (e *enclosing) all() map[string]bool {
	names := map[string]bool{}
	require.NoError(e.t, filepath.WalkDir(e.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var name string
			name, err = filepath.Rel(e.dir, path)
			names[name] = true
		}
		return err
	}))
	return names
}

// encloses signs the timestamp anew.
func (e *enclosing) encloses(files ...release.Enclosed) {
	e.enclosed, e.asked = files, nil
	e.refresh()
}

func (e *enclosing) open(s *tuf.Source, offset, length int64) string {
	r, err := s.Open(e.t.Context(), e.pack, offset, length)
	require.NoError(e.t, err)
	data, err := io.ReadAll(r)
	require.NoError(e.t, err)
	require.NoError(e.t, r.Close())
	return string(data)
}

// TestEnclosed: what a timestamp encloses is not asked for, each piece once.
func TestEnclosed(t *testing.T) {
	e := newEnclosing(t)
	e.encloses(e.files...)
	s := source(t, e.o)
	seq, err := lookup(t, s)
	require.NoError(t, err)
	require.EqualValues(t, 2, seq)
	asked := e.asked
	const stored = "stored blobs of 1.2"
	e.asked = nil
	require.Equal(t, stored[3:], e.open(s, 3, -1))
	require.Equal(t, stored[8:11], e.open(s, 8, 3))
	newest := e.pack
	e.pack = release.PackName(release.Sum([]byte("stored blobs of 1.1")))
	require.Equal(t, "blobs", e.open(s, 7, 5)[:5])
	require.Equal(t, "re", e.open(s, 3, 2))
	e.pack = newest
	require.Len(t, e.asked, 4)
	e.asked = asked
	require.Equal(t, stored[3:6], e.open(s, 3, 3))
	require.Equal(t, stored[8:10], e.open(s, 8, 2))
	require.ElementsMatch(t, []string{"metadata/2.root.json", "metadata/timestamp.json"}, e.asked)
	for i, c := range []struct{ offset, length int64 }{{3, 3}, {8, 2}, {0, 3}, {9, 2}, {9, -1}, {11, 1}} {
		end := c.offset + c.length
		if c.length < 0 {
			end = int64(len(stored))
		}
		require.Equal(t, stored[c.offset:end], e.open(s, c.offset, c.length))
		require.Len(t, e.asked, 3+i, "%+v", c)
	}

	e.asked, e.o.Dir = nil, filepath.Join(t.TempDir(), "new") // a new device needs no more
	seq, _ = found(t, e.o)
	require.EqualValues(t, 2, seq)
	require.Len(t, e.asked, 2)

	e.asked = nil
	e.encloses() // one that looks again finds what it has
	seq, _ = found(t, e.o)
	require.EqualValues(t, 2, seq)
	require.NotContains(t, strings.Join(e.asked, " "), "release")
}

// TestEnclosedWrongly: where anything but the repository's own bytes is enclosed, the
// release is found all the same, as that file is fetched.
func TestEnclosedWrongly(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"other bytes": func(d []byte) []byte { d[len(d)/2] ^= 1; return d },
		"short":       func(d []byte) []byte { return d[:len(d)-1] },
		"long":        func(d []byte) []byte { return append(d, 'x') },
		"nothing":     func([]byte) []byte { return nil },
	} {
		for i := range 4 {
			t.Run(name, func(t *testing.T) {
				e := newEnclosing(t)
				e.files[i].Data = spoil(append([]byte(nil), e.files[i].Data...))
				e.encloses(e.files...)
				seq, _ := found(t, e.o)
				require.EqualValues(t, 2, seq)
				require.Contains(t, e.asked, e.files[i].Name)
			})
		}
	}
	t.Run("the release before", func(t *testing.T) {
		e := newEnclosing(t)
		old, err := os.ReadFile(filepath.Join(e.dir, "metadata/3.snapshot.json"))
		require.NoError(t, err)
		e.encloses(release.Enclosed{Name: "metadata/4.snapshot.json", Data: old})
		seq, _ := found(t, e.o)
		require.EqualValues(t, 2, seq)
	})
}

// TestEnclosedByNobody: what comes with a timestamp that nobody signed is not used,
// nor is anything of a medium.
func TestEnclosedByNobody(t *testing.T) {
	e := newEnclosing(t)
	e.keys["timestamp"] = e.keys["snapshot"]
	e.encloses(e.files...)
	s := source(t, e.o)
	_, err := lookup(t, s)
	require.ErrorIs(t, err, tuf.ErrUntrusted)
	e.asked = nil
	e.open(s, 3, 3)
	require.Len(t, e.asked, 1)

	e = newEnclosing(t)
	e.files[4].Data = []byte("wrong and long enough")
	e.encloses(e.files...)
	e.o.URL = e.dir
	s = source(t, e.o)
	_, err = lookup(t, s)
	require.NoError(t, err)
	require.Equal(t, "red", e.open(s, 3, 3))
}
