package ota

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/chunk"
	patches "github.com/pawl-ota/pawl/internal/delta"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// depot is a repository of one release, in which every blob is stored as pieces
// in the first pack, and as a patch to an earlier release in the second, whose
// groups hold some blobs each.
type depot struct {
	files   map[string][]byte
	locator *release.Locator
	part    release.Component
	olds    [][]byte
	news    [][]byte
	mend    func(name string, at int64, p []byte) // changes what comes
	limit   int                                   // most bytes of one read
	reads   int
	breakAt int  // the read with which the connection breaks
	endless bool // what is read never ends
	short   int64
	missing map[string]bool
	asked   []string
	came    map[place]bool // bytes that came
	bytes   int64
	again   int64
}

func text(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "line %d of %d\n", r.Uint32(), seed)
	}
	return b.Bytes()[:n]
}

func edited(data []byte) []byte {
	at := len(data) * 19 / 20
	return slices.Concat(data[:at], []byte("something new\n"), data[at+3:])
}

// newDepot makes a depot of the given sizes of files; of these the last is new,
// the others are edited old ones.
func newDepot(t *testing.T, sizes ...int) *depot {
	d := &depot{files: map[string][]byte{}, missing: map[string]bool{}, came: map[place]bool{}}
	for i, n := range sizes {
		data := text(uint64(i+1), n)
		if i == len(sizes)-1 {
			d.news = append(d.news, data)
			continue
		}
		d.olds, d.news = append(d.olds, data), append(d.news, edited(data))
	}
	d.part = release.Component{Name: "app", Kind: "test", Index: blobOf([]byte("the new index")), Keep: release.Keep{Repair: release.RepairNone}}
	pieces, table := d.pieces(t)
	deltas := d.deltas(t)
	d.locator = &release.Locator{
		Packs: []release.Pack{{Name: pieces, Size: int64(len(d.files[pieces]))}, {Name: deltas.name, Size: int64(len(d.files[deltas.name]))}},
		Table: table, Deltas: []release.Delta{deltas.Delta},
	}
	return d
}

// anew returns the same repository, of which nothing was asked yet.
func (d *depot) anew() *depot {
	l := *d.locator
	return &depot{
		files: d.files, locator: &l, part: d.part, olds: d.olds, news: d.news,
		missing: map[string]bool{}, came: map[place]bool{},
	}
}

func (d *depot) add(data []byte) string {
	name := release.PackName(release.Sum(data))
	d.files[name] = data
	return name
}

func (d *depot) pieces(t *testing.T) (string, release.Blob) {
	enc, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	var pack []byte
	rows := 0
	var whole []release.TableRow
	var cut []release.TableCut
	store := func(data []byte, digest release.Digest) release.TableRow {
		stored, codec := enc.EncodeAll(data, nil), release.Zstd
		if rows++; rows%2 == 0 { // without a sum of its own
			stored, codec = data, release.Raw
		}
		row := release.TableRow{Digest: digest, Offset: int64(len(pack)), Length: int64(len(stored)), Codec: codec, Size: int64(len(data))}
		pack = append(pack, stored...)
		return row
	}
	for _, b := range d.news {
		c := release.TableCut{Digest: release.Sum(b)}
		cutter := chunk.NewCutter(bytes.NewReader(b))
		for piece, err := cutter.Next(); err == nil; piece, err = cutter.Next() {
			c.Pieces = append(c.Pieces, store(piece, release.Sum(piece)))
		}
		if len(c.Pieces) == 1 {
			whole = append(whole, c.Pieces[0])
		} else {
			cut = append(cut, c)
		}
	}
	table, err := release.EncodeTable(whole, cut, 2)
	require.NoError(t, err)
	d.files[release.TableName(release.Sum(table))] = table
	return d.add(pack), blobOf(table)
}

type storedDelta struct {
	release.Delta
	name string
}

// deltas stores groups of two patches each.
func (d *depot) deltas(t *testing.T) storedDelta {
	var dir release.DeltaDirectory
	var groups []byte
	for first := 0; first < len(d.news); first += 2 {
		var group bytes.Buffer
		w := patches.NewWriter(&group)
		var g release.DeltaGroup
		for i := first; i < min(first+2, len(d.news)); i++ {
			from, old := -1, []byte(nil)
			if i < len(d.olds) {
				from, old = i, d.olds[i]
			}
			p, err := patches.Find(t.Context(), bytes.NewReader(old), bytes.NewReader(d.news[i]))
			require.NoError(t, err)
			require.NoError(t, w.Add(p))
			g.Patches = append(g.Patches, release.DeltaPatch{To: i, From: from})
		}
		require.NoError(t, w.Close())
		g.Length = int64(group.Len())
		dir.Groups = append(dir.Groups, g)
		groups = append(groups, group.Bytes()...)
	}
	stored, err := release.EncodeDelta(&dir)
	require.NoError(t, err)
	name := d.add(slices.Concat(stored, groups))
	return storedDelta{release.Delta{
		Component: "app", From: release.Sum([]byte("the old index")), To: d.part.Index.Digest, Pack: 1,
		Length: int64(len(stored)), Directory: release.Sum(stored), Start: int64(len(stored)), Groups: int64(len(groups)),
	}, name}
}

func (d *depot) Latest(context.Context, Device) (*release.Release, error) { return nil, ErrNoRelease }

func (d *depot) Locator(context.Context, *release.Release) (*release.Locator, error) {
	return nil, ErrNoRelease
}

func (d *depot) Open(_ context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	d.asked = append(d.asked, fmt.Sprintf("%s %d+%d", name[len(name)-6:], offset, length))
	data, ok := d.files[name]
	if !ok || d.missing[name] {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	part := bytes.Clone(data[offset : offset+length])
	if d.mend != nil {
		d.mend(name, offset, part)
	}
	r := io.Reader(bytes.NewReader(part))
	if d.endless {
		r = io.MultiReader(r, endless{})
	}
	if d.short > 0 {
		r = io.LimitReader(r, length-d.short)
	}
	return io.NopCloser(&depotReader{d, r, name, offset}), nil
}

// place is one byte of the repository.
type place struct {
	file string
	at   int64
}

type depotReader struct {
	d    *depot
	r    io.Reader
	name string
	at   int64
}

func (r *depotReader) Read(p []byte) (int, error) {
	if r.d.reads++; r.d.reads == r.d.breakAt {
		return 0, fmt.Errorf("the line broke: %w", io.ErrUnexpectedEOF)
	}
	if r.d.limit > 0 {
		p = p[:min(len(p), r.d.limit)]
	}
	n, err := r.r.Read(p)
	for i := range int64(n) {
		key := place{r.name, r.at + i}
		if r.d.came[key] {
			r.d.again++
		}
		r.d.came[key] = true
	}
	r.at, r.d.bytes = r.at+int64(n), r.d.bytes+int64(n)
	return n, err
}

// installed is a backend that has some blobs.
type installed struct {
	Backend
	d    *depot
	has  map[release.Digest][]byte
	cuts int // how often it was asked what resembles
}

func (i *installed) Blobs(_ context.Context, c release.Component, _ Content) ([]release.Blob, error) {
	list := i.d.olds
	if c.Index == i.d.part.Index {
		list = i.d.news
	}
	var blobs []release.Blob
	for _, data := range list {
		blobs = append(blobs, blobOf(data))
	}
	return blobs, nil
}

func (i *installed) Seed(_ context.Context, _ string, b release.Blob) (io.ReadCloser, bool, error) {
	data, ok := i.has[b.Digest]
	return seed{bytes.NewReader(data)}, ok, nil
}

type seed struct{ *bytes.Reader }

func (seed) Close() error { return nil }

func (i *installed) Similar(_ context.Context, _ release.Component, b release.Blob, _ Content) (like []release.Blob, err error) {
	i.cuts++
	for n, data := range i.d.news {
		if release.Sum(data) == b.Digest && n < len(i.d.olds) {
			like = append(like, blobOf(i.d.olds[n]))
		}
	}
	return like, nil
}

// site is a device that has the old files of a depot.
type site struct {
	*depot
	u       *Updater
	backend *installed
	content *content
	mu      sync.Mutex
	got     map[release.Digest][]byte
	inOrder bool // no two blobs at once
}

func newSite(t *testing.T, d *depot) *site {
	dir, err := durable.OpenDir(t.TempDir() + "/state")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, dir.Close()) })
	s := &site{depot: d, backend: &installed{d: d, has: map[release.Digest][]byte{}}, got: map[release.Digest][]byte{}}
	for _, old := range d.olds {
		s.backend.has[release.Sum(old)] = bytes.Clone(old)
	}
	old := d.part
	old.Index = blobOf([]byte("the old index"))
	r := &release.Release{
		Format: release.Format, ID: release.ID{Product: "p", Variant: "v", Seq: 1}, Version: "1",
		Issued: time.Unix(1, 0).UTC(), Components: []release.Component{old},
	}
	doc, err := r.Encode()
	require.NoError(t, err)
	s.u = &Updater{dir: dir, opts: Options{Backends: map[string]Backend{"app": s.backend}}}
	digest, err := s.u.store().put(doc)
	require.NoError(t, err)
	s.u.rec = &record{Running: &running{Parts: []part{{Name: "app", Digest: old.Digest(), Release: digest}}}}
	s.restart()
	return s
}

// restart has a new process begin.
func (s *site) restart() {
	s.content = newContent(s.u)
	s.content.source, s.content.locator, s.content.spool = s.depot, s.locator, newSpool(s.u.dir)
	s.content.stages(s.part, s.backend)
}

// fetch asks for what was not handed over yet.
func (s *site) fetch(t *testing.T) error {
	var missing []release.Blob
	for _, b := range s.news {
		if s.got[release.Sum(b)] == nil {
			missing = append(missing, blobOf(b))
		}
	}
	each := s.content.EachAtOnce
	if s.inOrder {
		each = s.content.Each
	}
	return each(t.Context(), missing, func(b release.Blob, r io.Reader) error {
		data, err := io.ReadAll(r)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err == nil {
			require.NotContains(t, s.got, b.Digest, "it was handed over twice")
			s.got[b.Digest] = data
		}
		return err
	})
}

// whole checks that all blobs came as they should be.
func (s *site) whole(t *testing.T) {
	t.Helper()
	for _, b := range s.news {
		require.True(t, bytes.Equal(b, s.got[release.Sum(b)]), "%d bytes", len(b))
	}
}

func (s *site) askedFor(what string) (n int) {
	for _, a := range s.asked {
		if len(a) > len(what) && a[:len(what)] == what {
			n++
		}
	}
	return n
}
