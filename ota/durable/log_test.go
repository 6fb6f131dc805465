package durable

import (
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is appended can be read at once, goes on behind what is whole, and has
// its own name throughout.
func TestAppend(t *testing.T) {
	d := open(t, t.TempDir()+"/state")
	l, err := d.Append("spool/a", 0)
	require.NoError(t, err)
	_, err = io.WriteString(l, "one two")
	require.NoError(t, err)
	got, err := d.ReadFile("spool/a", 100)
	require.NoError(t, err)
	require.Equal(t, "one two", string(got))
	require.NoError(t, l.Persist())
	require.NoError(t, l.Close())

	l, err = d.Append("spool/a", 4)
	require.NoError(t, err)
	_, err = io.WriteString(l, "three")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	r, err := d.Open("spool/a")
	require.NoError(t, err)
	part := make([]byte, 5)
	_, err = r.(io.ReaderAt).ReadAt(part, 4)
	require.NoError(t, err)
	require.Equal(t, "three", string(part))
	require.NoError(t, r.Close())

	info, err := os.Stat(d.root.Name() + "/spool/a")
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	require.Equal(t, []string{"a"}, list(t, d, "spool"))
	require.NoError(t, d.Clear("spool"))
	require.Empty(t, list(t, d, "spool"))
	require.NoError(t, d.Clear("spool"))
	require.NoError(t, d.Clear("missing"))
}

func TestAppendFollowsNothing(t *testing.T) {
	outside := t.TempDir() + "/outside"
	require.NoError(t, os.WriteFile(outside, []byte("mine"), 0o600))
	d := open(t, t.TempDir()+"/state")
	require.NoError(t, os.Symlink(outside, d.root.Name()+"/link"))
	_, err := d.Append("link", 0)
	require.ErrorIs(t, err, ErrName)
	for _, name := range []string{"", ".", "..", "a/b/c", "../x", ".hidden"} {
		_, err := d.Append(name, 0)
		require.ErrorIs(t, err, ErrName, "%q", name)
		require.ErrorIs(t, d.Clear(name), ErrName, "%q", name)
	}
	got, err := os.ReadFile(outside)
	require.NoError(t, err)
	require.Equal(t, "mine", string(got))
}
