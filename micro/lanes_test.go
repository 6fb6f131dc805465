//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// crowd is a shop that brings blobs at once, two at a time, and has each of two
// wait for the other.
type crowd struct {
	*shop
	fail release.Digest
}

var _ ota.Concurrent = (*crowd)(nil)

// EachAtOnce implements ota.Concurrent.
func (c *crowd) EachAtOnce(_ context.Context, blobs []release.Blob, put func(release.Blob, io.Reader) error) error {
	var failed []error
	for len(blobs) > 0 {
		pair := blobs[:min(2, len(blobs))]
		blobs = blobs[len(pair):]
		var begun, ended sync.WaitGroup
		begun.Add(len(pair))
		errs := make([]error, len(pair))
		for n, b := range pair {
			ended.Go(func() {
				r := &verifying{data: c.blobs[b.Digest], bad: b.Digest == c.fail}
				errs[n] = put(b, &meeting{r: r, begun: &begun})
			})
		}
		ended.Wait()
		failed = append(failed, errs...)
	}
	return errors.Join(failed...)
}

// meeting is a reader that waits until all have begun to read.
type meeting struct {
	r     io.Reader
	begun *sync.WaitGroup
	once  sync.Once
}

func (m *meeting) Read(p []byte) (int, error) {
	m.once.Do(func() {
		m.begun.Done()
		m.begun.Wait()
	})
	return m.r.Read(p)
}

func nameOfMany(i int) string {
	if i%2 == 1 {
		return fmt.Sprintf("d%02d/in/f%d", i%(listLeast+34), i)
	}
	return fmt.Sprintf("d%02d/f%d", i%(listLeast+34), i)
}

// manyFiles are enough for lanes, in two levels of folders that are; every tenth one
// is other in another version.
func manyFiles(version int) map[string]string {
	all := map[string]string{}
	for i := range 2*laneLeast + 100 {
		text := fmt.Sprint(i)
		if i%10 == 0 {
			text = fmt.Sprintf("%d in version %d %s", i, version, strings.Repeat("x", i))
		}
		all[nameOfMany(i)] = text
	}
	return all
}

// TestBroughtAtOnce has content come two blobs at a time, and a large tree be
// shared in lanes.
func TestBroughtAtOnce(t *testing.T) {
	s1, s2 := newShop(t, files(t, t.TempDir(), manyFiles(1))), newShop(t, files(t, t.TempDir(), manyFiles(2)))
	d := newDevice(t)
	for n, s := range []*shop{s1, s2} {
		tx := ota.TxID(fmt.Sprint("t", n))
		broken := s.ix.Find("d10/f10").Digest
		_, err := d.f.Stage(t.Context(), tx, s.c, &crowd{s, broken})
		require.Error(t, err)
		_, err = d.f.Stage(t.Context(), tx, s.c, &crowd{shop: s})
		require.NoError(t, err)
		require.NoError(t, d.f.Activate(t.Context(), tx, s.c))
		require.NoError(t, d.f.Commit(t.Context(), tx, s.c))
		found, err := d.f.Verify(t.Context(), s.c, s)
		require.NoError(t, err)
		require.Empty(t, found)
	}
}

// TestInOrder: what an entry lies in is in a list before its own, and files are in the
// last.
func TestInOrder(t *testing.T) {
	tree := manyFiles(1)
	tree["d01/in/deep/er/f"] = "f"
	tree["top"] = "t"
	ix := newShop(t, files(t, t.TempDir(), tree)).ix
	made := map[string]bool{".": true}
	lists := (&builder{next: ix}).inOrder()
	require.Len(t, lists, 5, "four levels, and files")
	for n, list := range lists {
		for _, i := range list {
			e := &ix.Entries[i]
			require.True(t, made[path.Dir(e.Path)], e.Path)
			require.Equal(t, n == len(lists)-1, e.Type == release.File)
		}
		for _, i := range list {
			made[ix.Entries[i].Path] = true
		}
	}
	require.Len(t, made, len(ix.Entries))
}

// TestLanesFail has the work of one lane fail: the others end, and the error is
// its own.
func TestLanesFail(t *testing.T) {
	bad := errors.New("bad")
	err := inLanes(t.Context(), 3, 9, func(ctx context.Context, lane, from, to int) error {
		require.Equal(t, 3, to-from)
		if lane == 1 {
			return bad
		}
		<-ctx.Done()
		return ctx.Err()
	})
	require.ErrorIs(t, err, bad)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, inLanes(ctx, 2, 2, func(ctx context.Context, _, _, _ int) error { return ctx.Err() }), context.Canceled)
}

// TestSharedInLanes has a large tree be changed on the device in one file.
func TestSharedInLanes(t *testing.T) {
	s1, s2 := newShop(t, files(t, t.TempDir(), manyFiles(1))), newShop(t, files(t, t.TempDir(), manyFiles(2)))
	d := newDevice(t)
	d.install("t1", s1)
	p, q := nameOfMany(1733), nameOfMany(2003)
	write(t, filepath.Join(d.root, p), "evil")
	require.NoError(t, d.stage("t2", s2))
	write(t, filepath.Join(d.root, q), "evil")
	require.ErrorIs(t, d.f.Activate(t.Context(), "t2", s2.c), ErrChanged)
	d.revert("t2", s2)
	d.activate("t3", s2)
	require.Equal(t, "1733", d.read(p))
	require.Equal(t, "2003", d.read(q))
}
