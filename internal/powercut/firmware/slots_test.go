package firmware

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

var errCut = errors.New("the power went")

// image returns the nth version of a component that is one image.
func image(t testing.TB, n int) (c release.Component, index, content []byte) {
	t.Helper()
	content = bytes.Repeat([]byte{'0' + byte(n)}, 1000+n)
	ix := release.Index{Entries: []release.Entry{
		{Path: ".", Type: release.Dir, Mode: 0o755},
		{Path: "image", Type: release.File, Mode: 0o600, Blob: release.Blob{Digest: release.Sum(content), Size: int64(len(content))}},
	}}
	var buf bytes.Buffer
	require.NoError(t, ix.Encode(&buf))
	index = buf.Bytes()
	c = release.Component{Name: "boot", Kind: micro.Kind, Index: release.Blob{Digest: release.Sum(index), Size: int64(len(index))}}
	return c, index, content
}

// TestSlots holds the backend to the contract of all backends.
func TestSlots(t *testing.T) {
	otatest.TestBackend(t, func(t *testing.T) otatest.Subject {
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, "slots"), 0o755))
		blobs := otatest.NewBlobs()
		for n := range 3 {
			_, index, content := image(t, n)
			blobs.Add(index, content)
		}
		boot := func() ota.Backend {
			seam.Step.Store(nil)
			_, err := Boot(dir)
			require.NoError(t, err)
			return &Slots{Dir: dir}
		}
		crashed := false
		return otatest.Subject{
			Backend:   boot(),
			Component: func(n int) release.Component { c, _, _ := image(t, n); return c },
			Blobs:     blobs,
			Look:      func() string { return runs(t, dir) },
			Reopen:    func() ota.Backend { seam.Step.Store(nil); return &Slots{Dir: dir} },
			Reboot:    boot,
			Crash: func(left int) {
				crashed = false
				hook := func(_, _ string, call func() error) error {
					if left--; left > 0 {
						return call()
					}
					crashed = true
					return errCut
				}
				seam.Step.Store(&hook)
				t.Cleanup(func() { seam.Step.Store(nil) })
			},
			Crashed: func() bool { return crashed },
		}
	})
}

// runs is what the boot brought up.
func runs(t testing.TB, dir string) string {
	t.Helper()
	_, slot, err := booted(dir)
	require.NoError(t, err)
	if slot == "" {
		return ""
	}
	data, err := os.ReadFile(filepath.Join(dir, "slots", slot))
	require.NoError(t, err)
	return fmt.Sprint(len(data), " bytes of ", data[0])
}

// TestOneShot: a slot that is tried comes up once.
func TestOneShot(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "slots"), 0o755))
	require.NoError(t, selection{permanent: "a", try: "b"}.write(dir))
	seen := map[string]bool{}
	for _, want := range []string{"b", "a", "a"} {
		slot, err := Boot(dir)
		require.NoError(t, err)
		require.Equal(t, want, slot)
		id, slot, err := booted(dir)
		require.NoError(t, err)
		require.Equal(t, want, slot)
		require.False(t, seen[id], "each boot has an id of its own")
		seen[id] = true
	}
}

// TestBootSweeps: what a power cut left of the selection or the record goes.
func TestBootSweeps(t *testing.T) {
	dir := t.TempDir()
	slots := filepath.Join(dir, "slots")
	require.NoError(t, os.Mkdir(slots, 0o700))
	left := filepath.Join(slots, ".pawl-tmp-1")
	require.NoError(t, os.WriteFile(left, []byte("a -"), 0o600))
	_, err := Boot(dir)
	require.NoError(t, err)
	require.NoFileExists(t, left)
}
