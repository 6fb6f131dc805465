package release_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

func encodeIndex(t testing.TB, ix *release.Index) []byte {
	var buf bytes.Buffer
	require.NoError(t, ix.Encode(&buf))
	return buf.Bytes()
}

func TestIndexRoundTrip(t *testing.T) {
	ix := sampleIndex()
	data := encodeIndex(t, ix)
	got, err := release.ReadIndex(iotest.OneByteReader(bytes.NewReader(data)), 0)
	require.NoError(t, err)
	require.Equal(t, ix, got)
	require.Equal(t, []release.Blob{{Digest: release.Sum(nil)}, blob("app")}, got.Blobs())
	require.Equal(t, &got.Entries[4], got.Find("bin/app"))
	require.Equal(t, &got.Entries[0], got.Find("."))
	require.Nil(t, got.Find("bin/none"))
}

func TestIndexLongLine(t *testing.T) {
	ix := &release.Index{Entries: []release.Entry{{Path: ".", Type: release.Dir}}}
	path := strings.Repeat(strings.Repeat("<", 255)+"/", 16)[:4096]
	path = strings.TrimSuffix(path, "/")
	var list []release.Xattr
	for i := range 4 {
		list = append(list, release.Xattr{Name: fmt.Sprintf("user.%d", i), Value: make([]byte, release.MaxXattrValue)})
	}
	for i := range path {
		if path[i] == '/' {
			ix.Entries = append(ix.Entries, release.Entry{Path: path[:i], Type: release.Dir})
		}
	}
	ix.Entries = append(ix.Entries, release.Entry{Path: path, Type: release.Symlink, Target: strings.Repeat("&", release.MaxTarget), Xattrs: list})
	got, err := release.ReadIndex(bytes.NewReader(encodeIndex(t, ix)), 0)
	require.NoError(t, err)
	require.Equal(t, ix, got)
}

func file(path string) release.Entry {
	return release.Entry{Path: path, Type: release.File, Blob: blob("x")}
}

func dir(path string) release.Entry { return release.Entry{Path: path, Type: release.Dir} }

func TestIndexRules(t *testing.T) {
	for name, entries := range map[string][]release.Entry{
		"empty":                    {},
		"root is a file":           {file(".")},
		"root twice":               {dir("."), dir(".")},
		"root later":               {dir("."), file("-"), dir(".")},
		"empty path":               {dir("."), file("")},
		"absolute":                 {dir("."), file("/etc")},
		"parent":                   {dir("."), file("..")},
		"parent inside":            {dir("."), dir("a"), file("a/../b")},
		"dot inside":               {dir("."), dir("a"), file("a/./b")},
		"double slash":             {dir("."), dir("a"), file("a//b")},
		"trailing slash":           {dir("."), dir("a/")},
		"NUL":                      {dir("."), file("a\x00b")},
		"not UTF-8":                {dir("."), file("a\xff")},
		"long name":                {dir("."), file(strings.Repeat("a", 256))},
		"long path":                {dir("."), file(strings.Repeat("a/", 2049) + "a")},
		"duplicate":                {dir("."), file("a"), file("a")},
		"out of order":             {dir("."), file("b"), file("a")},
		"below a file":             {dir("."), file("a"), file("a/b")},
		"below a symlink":          {dir("."), {Path: "a", Type: release.Symlink, Target: "b"}, file("a/b")},
		"below a carried path":     {dir("."), {Path: "a", Type: release.Carry}, file("a/b")},
		"unknown type":             {dir("."), {Path: "a", Type: "p"}},
		"mode":                     {dir("."), {Path: "a", Type: release.Dir, Mode: 0o10000}},
		"file without content":     {dir("."), {Path: "a", Type: release.File}},
		"file with negative size":  {dir("."), {Path: "a", Type: release.File, Blob: release.Blob{Digest: sum("x"), Size: -1}}},
		"file with target":         {dir("."), {Path: "a", Type: release.File, Blob: blob("x"), Target: "b"}},
		"folder with content":      {dir("."), {Path: "a", Type: release.Dir, Blob: blob("x")}},
		"folder with a size":       {dir("."), {Path: "a", Type: release.Dir, Blob: release.Blob{Size: 1}}},
		"symlink without target":   {dir("."), {Path: "a", Type: release.Symlink}},
		"symlink with NUL":         {dir("."), {Path: "a", Type: release.Symlink, Target: "b\x00"}},
		"symlink with long target": {dir("."), {Path: "a", Type: release.Symlink, Target: strings.Repeat("b", 4096)}},
		"carry with mode":          {dir("."), {Path: "a", Type: release.Carry, Mode: 1}},
		"absent with content":      {dir("."), {Path: "a", Type: release.Absent, Blob: blob("x")}},
		"absent with mode":         {dir("."), {Path: "a", Type: release.Absent, Mode: 1}},
		"below an absent path":     {dir("."), {Path: "a", Type: release.Absent}, file("a/b")},
		"far below a file":         {dir("."), file("a"), file("a/b/c/d")},
		"far below, no root":       {file("a"), file("a-"), file("a/b/c/d")},
		"out of order, no root":    {file("b"), file("a")},
		"duplicate, no root":       {file("a"), file("a")},
		"root later, no root":      {file("-"), dir(".")},
		"carry of the root":        {{Path: ".", Type: release.Carry}},
		"xattr without name":       {dir("."), {Path: "a", Type: release.Dir, Xattrs: []release.Xattr{{}}}},
		"xattr twice":              {dir("."), {Path: "a", Type: release.Dir, Xattrs: []release.Xattr{{Name: "u"}, {Name: "u"}}}},
		"xattr too long":           {dir("."), {Path: "a", Type: release.Dir, Xattrs: []release.Xattr{{Name: "u", Value: make([]byte, 64<<10+1)}}}},
		"too many xattrs":          {dir("."), {Path: "a", Type: release.Dir, Xattrs: make([]release.Xattr, 65)}},
	} {
		t.Run(name, func(t *testing.T) {
			ix := &release.Index{Entries: entries}
			require.ErrorIs(t, ix.Validate(), release.ErrInvalid)
			require.ErrorIs(t, ix.Encode(io.Discard), release.ErrInvalid)
		})
	}
}

// TestWholeTree tells an index of a whole tree from one of single entries.
func TestWholeTree(t *testing.T) {
	require.NoError(t, sampleIndex().Whole())
	for name, entries := range map[string][]release.Entry{
		"no root":        {file("a")},
		"missing parent": {dir("."), file("a/b")},
		"absent":         {dir("."), {Path: "a", Type: release.Absent}},
		"all of it":      samplePartial().Entries,
	} {
		t.Run(name, func(t *testing.T) {
			ix := &release.Index{Entries: entries}
			require.NoError(t, ix.Validate())
			require.ErrorIs(t, ix.Whole(), release.ErrInvalid)
			again, err := release.ReadIndex(bytes.NewReader(encodeIndex(t, ix)), 0)
			require.NoError(t, err)
			require.Equal(t, ix, again)
			for i := range ix.Entries {
				require.Same(t, &ix.Entries[i], ix.Find(ix.Entries[i].Path))
			}
			require.Nil(t, ix.Find("nowhere"))
		})
	}
	require.ErrorIs(t, (&release.Index{}).Whole(), release.ErrInvalid)
}

func TestOneIndexFile(t *testing.T) {
	good := string(encodeIndex(t, sampleIndex()))
	first, rest, _ := strings.Cut(good, "\n")
	for name, bad := range map[string]string{
		"nothing":             "",
		"header only":         first + "\n",
		"no newline":          strings.TrimSuffix(good, "\n"),
		"something after":     good + "\n",
		"an entry more":       good + `{"p":"z","t":"d"}` + "\n",
		"fewer entries":       strings.Replace(first, "7", "6", 1) + "\n" + rest,
		"more entries":        strings.Replace(first, "7", "8", 1) + "\n" + rest,
		"too many entries":    strings.Replace(first, "7", "1000001", 1) + "\n" + rest,
		"no entries":          strings.Replace(first, "7", "0", 1) + "\n",
		"unknown header key":  strings.Replace(first, "7", `7,"x":1`, 1) + "\n" + rest,
		"unknown key":         first + "\n" + strings.Replace(rest, `"t":"d"`, `"t":"d","y":1`, 1),
		"key twice":           first + "\n" + strings.Replace(rest, `"t":"d"`, `"t":"f","t":"d"`, 1),
		"key in other case":   first + "\n" + strings.Replace(rest, `"t":"d"`, `"T":"d"`, 1),
		"mode not octal":      first + "\n" + strings.Replace(rest, `"m":"755"`, `"m":"799"`, 1),
		"mode with zero":      first + "\n" + strings.Replace(rest, `"m":"755"`, `"m":"0755"`, 1),
		"mode that is empty":  first + "\n" + strings.Replace(rest, `"m":"755"`, `"m":"0"`, 1),
		"mode as number":      first + "\n" + strings.Replace(rest, `"m":"755"`, `"m":755`, 1),
		"line ends of others": strings.ReplaceAll(good, "\n", "\r\n"),
		"very long line":      first + "\n" + strings.Repeat(" ", 3<<20) + rest,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := release.ReadIndex(strings.NewReader(bad), 0)
			require.ErrorIs(t, err, release.ErrInvalid)
		})
	}
	_, err := release.ReadIndex(strings.NewReader(good), 6)
	require.ErrorIs(t, err, release.ErrInvalid, "the caller's limit")
	_, err = release.ReadIndex(strings.NewReader(`{"format":"pawl-index/2","entries":"x"}`+"\n"), 0)
	require.ErrorIs(t, err, release.ErrFormat)
}

func TestIndexReadErrorIsPassedOn(t *testing.T) {
	broken := errors.New("broken")
	good := encodeIndex(t, sampleIndex())
	for n := range len(good) + 1 {
		_, err := release.ReadIndex(io.MultiReader(bytes.NewReader(good[:n]), iotest.ErrReader(broken)), 0)
		require.ErrorIs(t, err, broken)
	}
}

// bigIndex has n files with paths of 60 bytes in folders of 100.
func bigIndex(n int) *release.Index {
	ix := &release.Index{Entries: []release.Entry{{Path: ".", Type: release.Dir, Mode: 0o755}}}
	for i := range n {
		if i%100 == 0 {
			ix.Entries = append(ix.Entries, release.Entry{Path: fmt.Sprintf("usr-share-application-%08d", i/100), Type: release.Dir, Mode: 0o755})
		}
		ix.Entries = append(ix.Entries, release.Entry{
			Path: fmt.Sprintf("usr-share-application-%08d/component-file-%014d", i/100, i),
			Type: release.File, Mode: 0o644, Blob: blob(fmt.Sprint(i)),
		})
	}
	return ix
}

// TestEntryMemory holds the promise of 256 bytes for an entry, also while the
// index is being read.
func TestEntryMemory(t *testing.T) {
	const n = 100_000
	ix := bigIndex(n)
	require.Len(t, ix.Entries[2].Path, 60)
	data := encodeIndex(t, ix)
	count := len(ix.Entries)
	ix = nil
	before := heap()
	r := &peak{r: bytes.NewReader(data)}
	got, err := release.ReadIndex(r, 0)
	require.NoError(t, err)
	after := heap()
	perEntry := float64(after-before) / float64(count)
	most := float64(r.most-before) / float64(count)
	t.Logf("%d entries: %.0f bytes each, %.0f at most while reading, %.0f in the file", count, perEntry, most, float64(len(data))/float64(count))
	require.LessOrEqual(t, perEntry, 256.0)
	require.LessOrEqual(t, most, 256.0)
	runtime.KeepAlive(got)
	runtime.KeepAlive(data)
}

// peak measures the heap while it is read from.
type peak struct {
	r    io.Reader
	n    int
	most uint64
}

func (p *peak) Read(b []byte) (int, error) {
	if p.n++; p.n%8 == 0 {
		p.most = max(p.most, heap())
	}
	return p.r.Read(b)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestHeaderCostsNothing: a short file cannot make the reader hold much by
// promising many entries.
func TestHeaderCostsNothing(t *testing.T) {
	head := `{"format":"pawl-index/1","entries":1000000}` + "\n" + `{"p":".","t":"d"}` + "\n"
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := release.ReadIndex(strings.NewReader(head), 0)
	runtime.ReadMemStats(&after)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}

func BenchmarkReadIndex(b *testing.B) {
	data := encodeIndex(b, bigIndex(10_000))
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := release.ReadIndex(bytes.NewReader(data), 0); err != nil {
			b.Fatal(err)
		}
	}
}
