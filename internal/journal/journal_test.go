package journal

import (
	"bytes"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

type memory struct {
	files map[string][]byte
	fail  map[string]error
}

func newMemory() *memory {
	return &memory{files: map[string][]byte{}, fail: map[string]error{}}
}

func (m *memory) ReadFile(name string, max int64) ([]byte, error) {
	if err := m.fail[name]; err != nil {
		return nil, err
	}
	data, ok := m.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	if int64(len(data)) > max {
		return nil, syscall.EFBIG
	}
	return data, nil
}

func (m *memory) WriteFile(name string, data []byte) error {
	if err := m.fail[name]; err != nil {
		return err
	}
	m.files[name] = bytes.Clone(data)
	return nil
}

func written(t *testing.T, bodies ...string) *memory {
	m := newMemory()
	j, found, err := Open(m)
	require.NoError(t, err)
	require.Equal(t, Found{}, found)
	for _, b := range bodies {
		require.NoError(t, j.Write([]byte(b)))
	}
	return m
}

func TestNewestWins(t *testing.T) {
	for n := 1; n < 7; n++ {
		var bodies []string
		for i := range n {
			bodies = append(bodies, fmt.Sprint("body ", i))
		}
		_, found, err := Open(written(t, bodies...))
		require.NoError(t, err)
		require.Equal(t, bodies[n-1], string(found.Body))
		require.False(t, found.Fallback)
	}
}

// Every damage to the newest file gives the record before it and says so, and
// the next record goes over the damaged file, never over the good one.
func TestDamage(t *testing.T) {
	good := written(t, "one", "two").files[names[0]]
	damages := map[string][]byte{
		"empty": {}, "zeroed": make([]byte, len(good)), "garbage": []byte("hello\nworld"),
		"long": make([]byte, maxFile+1),
	}
	for i := range good {
		damages[fmt.Sprint("torn at ", i)] = good[:i]
		flipped := bytes.Clone(good)
		flipped[i] ^= 1
		damages[fmt.Sprint("flipped at ", i)] = flipped
	}
	for name, data := range damages {
		t.Run(name, func(t *testing.T) {
			m := written(t, "one", "two")
			m.files[names[0]] = data
			j, found, err := Open(m)
			require.NoError(t, err)
			require.True(t, found.Fallback)
			require.NotEmpty(t, found.Notes)
			require.Equal(t, "one", string(found.Body))
			j.SetAside()
			if len(data) <= maxFile {
				require.Equal(t, data, m.files[names[0]+".damaged"])
			}
			require.NoError(t, j.Write([]byte("three")))
			_, found, err = Open(m)
			require.NoError(t, err)
			require.Equal(t, "three", string(found.Body))
			require.False(t, found.Fallback)
		})
	}
}

// A file that is gone may have held the newest record.
func TestMissing(t *testing.T) {
	for i := range names {
		m := written(t, "one", "two", "three")
		delete(m.files, names[i])
		_, found, err := Open(m)
		require.NoError(t, err)
		require.True(t, found.Fallback)
		require.NotEmpty(t, found.Notes)
		require.Equal(t, []string{"three", "two"}[i], string(found.Body))
	}
	_, found, err := Open(written(t, "one"))
	require.NoError(t, err)
	require.False(t, found.Fallback, "the first record is alone")
}

func TestBothDamaged(t *testing.T) {
	m := written(t, "one", "two")
	m.files[names[0]], m.files[names[1]] = make([]byte, 100), nil
	j, found, err := Open(m)
	require.NoError(t, err)
	require.Nil(t, found.Body)
	require.True(t, found.Fallback)
	require.NoError(t, j.Write([]byte("new")))
}

func TestUnreadableMediumFallsBack(t *testing.T) {
	m := written(t, "one", "two")
	m.fail[names[0]] = syscall.EIO
	_, found, err := Open(m)
	require.NoError(t, err)
	require.True(t, found.Fallback)
	require.Equal(t, "one", string(found.Body))
	m.fail[names[0]] = syscall.EMFILE
	_, _, err = Open(m)
	require.ErrorIs(t, err, syscall.EMFILE)
}

func TestFutureIsRefused(t *testing.T) {
	m := written(t, "one", "two")
	head := magic + "7 2 6"
	m.files[names[0]] = []byte(head + " " + sum(head, []byte("future")) + "\nfuture")
	_, _, err := Open(m)
	require.ErrorIs(t, err, ErrFormat)
}

func TestTooLongWritesNothing(t *testing.T) {
	m := written(t, "one")
	j, _, err := Open(m)
	require.NoError(t, err)
	require.ErrorIs(t, j.Write(make([]byte, MaxBody+1)), ErrTooLong)
	_, found, err := Open(m)
	require.NoError(t, err)
	require.Equal(t, "one", string(found.Body))
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(7, []byte(`{"a":1}`)))
	f.Add([]byte("pawl-journal/1 1 x 0\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		generation, body, err := decode(data, nil)
		if err != nil {
			return
		}
		again, same, err := decode(encode(generation, body), nil)
		if err != nil || again != generation || !bytes.Equal(body, same) {
			t.Fatalf("%q does not come back: %v", data, err)
		}
	})
}
