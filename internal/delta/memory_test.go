package delta

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// pattern is a long blob that is not there: a block again and again, with a
// byte in each that says which it is.
type pattern struct {
	block []byte
	size  int64
	add   byte
}

func (p *pattern) Size() int64 { return p.size }

func (p *pattern) ReadAt(b []byte, at int64) (int, error) {
	b = b[:max(0, min(int64(len(b)), p.size-at))]
	n := int64(len(p.block))
	for done := 0; done < len(b); {
		i := (at + int64(done)) % n
		k := copy(b[done:], p.block[i:])
		if i <= n/2 && n/2 < i+int64(k) {
			b[done+int(n/2-i)] += byte((at+int64(done))/n) + p.add
		}
		done += k
	}
	if len(b) == 0 {
		return 0, io.EOF
	}
	return len(b), nil
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestMemory reads a patch of a long blob: what is held does not grow with its
// length.
func TestMemory(t *testing.T) {
	size := int64(1 << 30)
	if testing.Short() {
		size = 64 << 20
	}
	block := make([]byte, 1<<20)
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range block {
		block[i] = byte(rnd.IntN(200))
	}
	old, new := &pattern{block, size, 0}, &pattern{block, size, 1}
	p := &Patch{old: old, new: new}
	for at := int64(0); at < size; at += 2 << 20 { // more inserts than the window holds
		p.ops = append(p.ops, op{from: at, copy: 2<<20 - 200<<10, insert: 200 << 10})
	}
	var group bytes.Buffer
	w := NewWriter(&group)
	require.NoError(t, w.Add(p))
	require.NoError(t, w.Close())
	w = nil

	before := heap()
	r, err := NewReader(bytes.NewReader(group.Bytes()))
	require.NoError(t, err)
	b, err := r.Next(old, size, size)
	require.NoError(t, err)
	most, buf, want := int64(0), make([]byte, 256<<10), make([]byte, 256<<10)
	for at := int64(0); at < size; at += int64(len(buf)) {
		_, err := io.ReadFull(b, buf)
		require.NoError(t, err)
		_, err = new.ReadAt(want, at)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, buf), "at %d", at)
		if at%(64<<20) == 0 {
			most = max(most, heap())
		}
	}
	most = max(most, heap())
	n, err := b.Read(buf)
	require.Zero(t, n)
	require.Equal(t, io.EOF, err)
	held := most - before - int64(2*len(buf))
	t.Logf("%d MiB of %d stored bytes, %.1f MiB held at most", size>>20, group.Len(), float64(held)/(1<<20))
	require.Less(t, held, int64(12<<20))
	runtime.KeepAlive(r)
}

// TestWindows compares blobs that are longer than what is looked at together.
func TestWindows(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2, 2))
	old := make([]byte, 300_000)
	for i := range old {
		old[i] = byte(rnd.Uint32())
	}
	new := append(bytes.Clone(old[:100_000]), old[101_000:]...)
	new = append(new, []byte("and more")...)
	w := windows{new: 50_000, old: 80_000, segment: 20_000}
	p, err := find(context.Background(), bytes.NewReader(old), bytes.NewReader(new), w)
	require.NoError(t, err)
	require.Equal(t, []op{{0, 100_000, 0}, {101_000, 199_000, 8}}, p.ops)
	require.Equal(t, 2, p.compared, "of six: the one in which something moves, and the one with the end")
	n, err := p.Size()
	require.NoError(t, err)
	require.Less(t, n, int64(100))
	var group bytes.Buffer
	gw := NewWriter(&group)
	require.NoError(t, gw.Add(p))
	require.NoError(t, gw.Close())
	r, err := NewReader(&group)
	require.NoError(t, err)
	b, err := r.Next(bytes.NewReader(old), int64(len(old)), int64(len(new)))
	require.NoError(t, err)
	got, err := io.ReadAll(b)
	require.NoError(t, err)
	require.True(t, bytes.Equal(new, got))
}

// TestCores finds the same, whatever number of cores there is.
func TestCores(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	old, new := make([]byte, 50_000), make([]byte, 50_000)
	for i := range old {
		old[i] = byte(rnd.IntN(4))
		new[i] = old[i] ^ byte(rnd.IntN(30)/29)
	}
	var want [][]op
	for _, n := range []int{1, 2, 7} {
		before := runtime.GOMAXPROCS(n)
		got := compare(context.Background(), old, new, 0, 4_000)
		runtime.GOMAXPROCS(before)
		if want == nil {
			want = got
		}
		require.Equal(t, want, got)
	}
}

// TestHostile writes groups that no Writer writes.
func TestHostile(t *testing.T) {
	for name, x := range map[string]struct {
		old   int64
		want  string
		write func(*encoder, *model)
	}{
		"a match before the first byte": {0, "a match begins before", func(e *encoder, m *model) {
			e.tree(m.items.kind[0][0][:], itemMatch, 2)
			e.number(&m.items.length[0], 8)
			e.number(&m.items.distance[3], 4)
		}},
		"a length without bounds": {0, "an item's length", func(e *encoder, m *model) {
			e.tree(m.items.kind[0][0][:], itemRaw, 2)
			e.number(&m.items.rawRuns, 1<<40)
		}},
		"an item behind the end": {0, "goes on behind", func(e *encoder, m *model) {
			e.tree(m.items.kind[0][0][:], itemRaw, 2)
			e.number(&m.items.rawRuns, 0)
			for range rawRun {
				e.direct(0, 8)
			}
		}},
		"a copy before the first byte": {10, "outside of the old", func(e *encoder, m *model) {
			e.signed(&m.seek, -1)
		}},
		"a copy behind the last byte": {10, "beyond the end", func(e *encoder, m *model) {
			e.signed(&m.seek, 5)
			e.token(m, 6, end, 0)
		}},
		"a copy longer than the blob": {100, "beyond the end", func(e *encoder, m *model) {
			e.signed(&m.seek, 0)
			e.token(m, 11, end, 0)
		}},
		"steps that do nothing": {10, "an insert's length", func(e *encoder, m *model) {
			for range 2 {
				e.signed(&m.seek, 0)
				e.token(m, 0, end, 0)
				e.number(&m.insert, 0)
			}
		}},
		"an insert longer than the blob": {10, "an insert's length", func(e *encoder, m *model) {
			e.signed(&m.seek, 0)
			e.token(m, 4, end, 0)
			e.number(&m.insert, 7)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var group bytes.Buffer
			e, m := newEncoder(&group, mixedGroup), newModel(false)
			head(e, m, x.old, 10)
			x.write(e, m)
			require.NoError(t, e.close())
			group.Write(make([]byte, 1000)) // what is wrong is not that the group is short
			r, err := NewReader(&group)
			require.NoError(t, err)
			old := x.old
			b, err := r.Next(bytes.NewReader(make([]byte, old)), old, 10)
			require.NoError(t, err)
			got, err := io.ReadAll(b)
			require.ErrorIs(t, err, ErrDamaged)
			require.ErrorContains(t, err, x.want)
			require.LessOrEqual(t, len(got), 10)
		})
	}
}

func head(e *encoder, m *model, old, new int64) {
	e.bit(&m.more, 1)
	e.number(&m.oldSize, old)
	e.signed(&m.growth, new-old)
	e.bit(&m.plain, 0)
}
