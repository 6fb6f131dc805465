package durable

import (
	"testing"
	"context"

	"github.com/stretchr/testify/require"
)

func TestSmoke(t *testing.T) {
	d, err := OpenDir(t.TempDir() + "/state")
	require.NoError(t, err)
	u, err := d.Lock(context.Background(), 0)
	require.NoError(t, err)
	require.NoError(t, d.WriteFile("journal", []byte("x")))
	require.NoError(t, d.WriteFile("blobs/a", []byte("y")))
	b, err := d.ReadFile("blobs/a", 10)
	require.NoError(t, err)
	require.Equal(t, "y", string(b))
	require.NoError(t, d.Sync())
	l, err := d.List("")
	require.NoError(t, err)
	require.Equal(t, []string{"blobs", "journal", "lock"}, l)
	require.NoError(t, u())
}
