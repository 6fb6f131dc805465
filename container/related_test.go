package container

import (
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRelatedImages spoils a layer that images of this release and of the one before
// have in common: the engine takes it in anew only when none of them is left, and
// the way back has its images from the local copy.
func TestRelatedImages(t *testing.T) {
	for _, snapshots := range []bool{false, true} {
		r, old, next, ctx := newRig(t, snapshots), newApp(t, 0), newApp(t, 1), t.Context()
		r.install("one", old)
		r.install("two", next)
		base := "sha256:" + next.app.Images[0].Layers[0].Digest.String()
		r.layers[base] = []byte("other")
		found, err := r.b.Verify(ctx, next.c, next.blobs)
		require.NoError(t, err)
		require.Contains(t, fmt.Sprint(found), "image base: layer 1 of 1 is another one")
		require.Contains(t, fmt.Sprint(found), "image front: layer 1 of 2 is another one")
		left, err := r.b.Repair(ctx, next.c, next.blobs)
		require.NoError(t, err)
		require.Empty(t, left)
		r.boot()
		r.expect(next)
		r.install("three", old)
		require.NoError(t, r.b.Prune(ctx, "shop", nil, nil))
		r.expect(old)
	}
}

// TestSpoiledFiles changes what containers run where the engine has another copy of
// it than the layers that it gives out.
func TestSpoiledFiles(t *testing.T) {
	r, a, ctx := newRig(t, true), newApp(t, 0), t.Context()
	r.install("one", a)
	for _, spoiled := range [][]byte{[]byte(layerWith("something else")), nil} {
		r.unpacked["sha256:"+a.app.Images[1].Layers[1].Digest.String()] = spoiled
		found, err := r.b.Verify(ctx, a.c, a.blobs)
		require.NoError(t, err)
		require.Contains(t, fmt.Sprint(found), "image front: its file /files/layer 0 is another one")
		left, err := r.b.Repair(ctx, a.c, a.blobs)
		require.NoError(t, err)
		require.Empty(t, left)
		r.expect(a)
	}
}

// TestReadsToTheEnd has Verify read what an engine gives out to its very end: one
// with the containerd store never lets go of an image whose reader went before.
func TestReadsToTheEnd(t *testing.T) {
	for _, snapshots := range []bool{false, true} {
		r, a := newRig(t, snapshots), newApp(t, 0)
		r.install("one", a)
		found, err := r.b.Verify(t.Context(), a.c, a.blobs)
		require.NoError(t, err)
		require.Empty(t, found)
		require.Zero(t, r.cutOff)
	}
}

// saved is an archive that the fake gives out.
type saved struct {
	io.Reader
	f     *fake
	ended bool
}

func (s *saved) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.ended = s.ended || err == io.EOF
	return n, err
}

func (s *saved) Close() error {
	if s.f.mu.Lock(); !s.ended {
		s.f.cutOff++
	}
	s.f.mu.Unlock()
	return nil
}
