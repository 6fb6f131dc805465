package delta_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/delta"
)

func TestRoundTrip(t *testing.T) {
	var group bytes.Buffer
	w := delta.NewWriter(&group)
	olds := []string{"hello world", "", "same"}
	news := []string{"hello there", "new", "same"}
	for i := range olds {
		p, err := delta.Find(context.Background(), bytes.NewReader([]byte(olds[i])), bytes.NewReader([]byte(news[i])))
		require.NoError(t, err)
		require.NoError(t, w.Add(p))
	}
	require.NoError(t, w.Close())
	r, err := delta.NewReader(&group)
	require.NoError(t, err)
	for i := range olds {
		got, err := r.Next(bytes.NewReader([]byte(olds[i])), int64(len(olds[i])), int64(len(news[i])))
		require.NoError(t, err)
		data, err := io.ReadAll(got)
		require.NoError(t, err)
		require.Equal(t, news[i], string(data))
	}
	_, err = r.Next(nil, 0, 0)
	require.Equal(t, io.EOF, err)
}
