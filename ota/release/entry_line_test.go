package release

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func randomEntry(r *rand.Rand) Entry {
	texts := []string{"a", "usr/lib/x.so.1", "späth", "a b", `q"uote`, `back\slash`, "<x>&y", "tab\t", "\u2028", "~", "-"}
	e := Entry{Path: texts[r.IntN(len(texts))], Type: []EntryType{File, Dir, Symlink, Carry, Absent}[r.IntN(5)]}
	number := func(max uint64) uint64 { return []uint64{0, 1, 7, 8, 100, max}[r.IntN(6)] }
	e.Mode, e.UID, e.GID = uint32(number(0o7777)), uint32(number(1<<32-1)), uint32(number(1<<32-1))
	if r.IntN(2) == 0 {
		e.Digest, e.Size = Sum([]byte{byte(r.IntN(256))}), int64(number(1<<63-1))
	}
	if r.IntN(3) == 0 {
		e.Target = texts[r.IntN(len(texts))]
	}
	if r.IntN(8) == 0 {
		e.Xattrs = []Xattr{{Name: "user.x", Value: []byte("v")}}
	}
	return e
}

// What the short cut takes, the long way takes too, and both read the same.
func TestPlainLineIsTheLongWay(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	plain, taken := 0, 0
	for range 20_000 {
		want := randomEntry(r)
		line, err := want.appendLine(nil)
		require.NoError(t, err)
		var fast Entry
		if fast.plainLine(line) {
			plain++
			require.Equal(t, want, fast, "%s", line)
		}
		for range 3 {
			at := r.IntN(len(line))
			switch r.IntN(3) {
			case 0:
				line[at] = `0"{},:1789aAfxslm\ `[r.IntN(18)]
			case 1:
				line = append(line[:at:at], line[at+1:]...)
			default:
				line = append(line[:at:at], append([]byte{`0"1,a`[r.IntN(5)]}, line[at:]...)...)
			}
			if fast.plainLine(line) {
				taken++
				var slow Entry
				_, err := slow.parseLong(line, nil)
				require.NoError(t, err, "%s", line)
				require.Equal(t, slow, fast, "%s", line)
			}
			if len(line) < 5 {
				break
			}
		}
	}
	require.Greater(t, plain, 3000)
	require.Greater(t, taken, 1000)
}

func BenchmarkReadIndex(b *testing.B) {
	ix := &Index{Entries: []Entry{{Path: ".", Type: Dir, Mode: 0o755}}}
	for i := range 7000 {
		ix.Entries = append(ix.Entries, Entry{
			Path: fmt.Sprintf("file-%07d.js", i), Type: File, Mode: 0o644, Blob: Blob{Sum([]byte{byte(i), byte(i >> 8)}), int64(i + 1)},
		})
	}
	var file bytes.Buffer
	require.NoError(b, ix.Encode(&file))
	b.SetBytes(int64(file.Len()))
	for b.Loop() {
		_, err := ReadIndex(bytes.NewReader(file.Bytes()), 0)
		require.NoError(b, err)
	}
}
