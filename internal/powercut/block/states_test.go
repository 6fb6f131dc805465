package block

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// logOf makes a log on a disk of two pages: a number is a write of that byte to
// the sector of that number, 0 a flush.
func logOf(marks []Mark, requests ...byte) *Log {
	l := &Log{Base: NewImage(2 * pageSize), Marks: marks}
	for _, n := range requests {
		if n == 0 {
			l.Entries = append(l.Entries, Entry{Op: Flush})
			continue
		}
		data := bytes.Repeat([]byte{n}, sectorSize)
		l.Entries = append(l.Entries, Entry{Op: Write, Offset: int64(n) * sectorSize, Length: sectorSize, Data: data})
	}
	return l
}

// holds returns which of the sectors of a state were written.
func holds(l *Log, s State) string {
	var b []byte
	m := NewBuilder(l).Build(s)
	for n := range int64(9) {
		got := make([]byte, sectorSize)
		if m.Read(got, n*sectorSize); got[0] != 0 {
			b = append(b, '0'+got[0])
		}
	}
	return string(b)
}

func TestSubsets(t *testing.T) {
	l := logOf(nil, 1, 2, 0, 3, 4, 5, 0, 6)
	states, found := States(l, Choice{Sector: sectorSize, All: 8})
	var got []string
	for _, s := range states {
		got = append(got, holds(l, s))
	}
	assert.ElementsMatch(t, []string{
		"", "1", "2", "12", // nothing is flushed
		"123", "124", "125", "1234", "1235", "1245", "12345", "123456",
	}, got)
	assert.Equal(t, len(got), found)
}

// TestManyWrites: above the limit are all prefixes, each write left out or
// alone, and some by chance.
func TestManyWrites(t *testing.T) {
	l := logOf(nil, 1, 2, 3, 4, 5, 6, 7, 8)
	got := map[string]bool{}
	states, _ := States(l, Choice{Seed: 1, Sector: sectorSize, All: 4})
	for _, s := range states {
		got[holds(l, s)] = true
	}
	for _, want := range []string{"", "12", "12345678", "1345678", "5", "1234567"} {
		assert.True(t, got[want], "%q is missing", want)
	}
	assert.Len(t, got, len(states), "each content once")
	assert.Greater(t, len(states), 23)
	assert.LessOrEqual(t, len(states), 9+16+16)
}

// TestMarks: what a call promised holds in every state that a cut after its
// return can leave, and need not hold in one that only a cut before it leaves.
func TestMarks(t *testing.T) {
	marks := []Mark{{0, "first"}, {3, "second"}, {5, "third"}}
	l := logOf(marks, 1, 2, 0, 3, 4, 0, 5)
	states, _ := States(l, Choice{Sector: sectorSize, All: 8})
	got := map[string]int{}
	for _, s := range states {
		got[holds(l, s)] = s.Marks
	}
	assert.Equal(t, map[string]int{
		"": 1, "1": 1, "2": 1,
		// The second call returned after the flush; the third when 4 was written and not flushed.
		"12": 3, "123": 3, "124": 3, "1234": 3, "12345": 3,
	}, got)
}

// TestMarkOnFlush: what returned before the flush was asked for is promised
// without it.
func TestMarkOnFlush(t *testing.T) {
	for at, want := range map[int]int{1: 1, 2: 0} {
		l := logOf([]Mark{{at, "call"}}, 1, 0, 2, 0)
		states, _ := States(l, Choice{Sector: sectorSize, All: 8})
		require.Empty(t, holds(l, states[0]))
		assert.Equal(t, want, states[0].Marks, "a mark at %d, on a disk with nothing", at)
	}
}

func TestTornWrites(t *testing.T) {
	l := &Log{Base: NewImage(pageSize)}
	l.Entries = append(l.Entries, Entry{Op: Write, Length: pageSize, Data: bytes.Repeat([]byte{7}, pageSize)})
	for sector, want := range map[int]int{512: 2 + 7, 2048: 2 + 1, 4096: 2} {
		states, _ := States(l, Choice{Sector: sector, All: 8})
		require.Len(t, states, want, "sectors of %d bytes", sector)
		for _, s := range states {
			got := make([]byte, pageSize)
			NewBuilder(l).Build(s).Read(got, 0)
			if s.Torn > 0 {
				assert.Equal(t, int(s.Torn), bytes.Count(got, []byte{7}))
				assert.Zero(t, s.Torn%int64(sector))
			}
		}
	}
}

// TestSample: with a limit, all prefixes are there, and the seed decides about
// the others.
func TestSample(t *testing.T) {
	l := logOf(nil, 1, 2, 3, 4, 5, 6, 0, 7)
	all, found := States(l, Choice{Seed: 1, Sector: sectorSize, All: 8})
	require.Len(t, all, 65)
	few, of := States(l, Choice{Seed: 1, Sector: sectorSize, All: 8, Most: 20})
	require.Equal(t, found, of)
	require.Len(t, few, 20)
	again, _ := States(l, Choice{Seed: 1, Sector: sectorSize, All: 8, Most: 20})
	assert.Equal(t, few, again)
	other, _ := States(l, Choice{Seed: 2, Sector: sectorSize, All: 8, Most: 20})
	assert.NotEqual(t, few, other)
	prefixes := 0
	for _, s := range few {
		if s.Prefix {
			prefixes++
		}
	}
	assert.Equal(t, 8, prefixes)
}

// TestPrefixLater: a content that was found as a part is a prefix when it is one
// at a later moment.
func TestPrefixLater(t *testing.T) {
	l := logOf(nil, 1, 2, 0)
	l.Entries = append(l.Entries, Entry{Op: Discard, Offset: sectorSize, Length: sectorSize})
	states, _ := States(l, Choice{Sector: sectorSize, All: 8})
	prefix := map[string]bool{}
	for _, s := range states {
		prefix[holds(l, s)] = s.Prefix
	}
	assert.Equal(t, map[string]bool{"": true, "1": true, "2": true, "12": true}, prefix)
}

// TestContents: States takes two states for one exactly when their bytes are
// equal, on logs in which requests lie over each other.
func TestContents(t *testing.T) {
	for seed := range uint64(30) {
		l := randomLog(rand.New(rand.NewPCG(seed, 1)))
		states, _ := States(l, Choice{Seed: seed, Sector: sectorSize, All: 5})
		taken := contents(l, states)
		require.Len(t, taken, len(states), "seed %d: two states of the same bytes", seed)
		for _, ep := range l.epochs() {
			for k := range len(ep.writes) + 1 {
				s := State{Floor: ep.floor, Writes: ep.writes[:k]}
				require.Contains(t, taken, bytesOf(NewBuilder(l), s), "seed %d: %s is missing", seed, s)
			}
		}
	}
}

func contents(l *Log, states []State) map[string]bool {
	b, all := NewBuilder(l), map[string]bool{}
	for _, s := range states {
		all[bytesOf(b, s)] = true
	}
	return all
}

func bytesOf(b *Builder, s State) string {
	data := make([]byte, b.log.Base.Size())
	b.Build(s).Read(data, 0)
	return string(data)
}

func randomLog(r *rand.Rand) *Log {
	l := &Log{Base: NewImage(2 * pageSize)}
	l.Base.Write(bytes.Repeat([]byte{1}, 3000), 1000)
	for range 20 {
		n := int64(1+r.IntN(3)) * sectorSize
		off := r.Int64N(12) * sectorSize
		switch r.IntN(6) {
		case 0:
			l.Entries = append(l.Entries, Entry{Op: Flush})
		case 1:
			l.Entries = append(l.Entries, Entry{Op: Discard, Offset: off, Length: n})
		default:
			data := bytes.Repeat([]byte{byte(r.IntN(3))}, int(n))
			l.Entries = append(l.Entries, Entry{Op: Write, Offset: off, Length: n, Data: data})
		}
	}
	return l
}

func TestImage(t *testing.T) {
	m := NewImage(3*pageSize - 1)
	require.EqualValues(t, 3*pageSize, m.Size())
	m.Write([]byte("over the edge"), pageSize-4)
	c := m.Clone()
	c.Zero(pageSize-4, 4)
	c.Write([]byte("end"), m.Size()-2) // the last byte is dropped
	got := make([]byte, 13)
	m.Read(got, pageSize-4)
	assert.Equal(t, "over the edge", string(got), "a clone changes for itself")
	c.Read(got, pageSize-4)
	assert.Equal(t, "\x00\x00\x00\x00 the edge", string(got))
	assert.Nil(t, c.pages[0], "a page of zeros is none")
	c.Read(got[:4], m.Size()-3)
	assert.Equal(t, "\x00en\x00", string(got[:4]))
}
