package tuf_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/tuf"
)

var errPower = errors.New("the power is cut")

// cutAt cuts the power at step n of those below dir: it and all later ones do not
// happen. It returns how many there were.
func cutAt(t *testing.T, dir string, n int, f func()) (steps int) {
	hook := func(_, path string, call func() error) error {
		if !strings.HasPrefix(path, dir) {
			return call()
		}
		if steps++; steps > n {
			return errPower
		}
		return call()
	}
	seam.Step.Store(&hook)
	defer seam.Step.Store(nil)
	f()
	return steps
}

// TestPowerCuts cuts the power at every step of the store in a lookup that brings
// new versions of every role, in one whose repository is damaged, and in the healing
// of damaged files. Whatever is left, nothing older than before is taken, and the
// repository is.
func TestPowerCuts(t *testing.T) {
	r := otatest.NewTUFRepo(t, today)
	r.Delegate("targets", "team", false, "releases/kiosk/arm/*", "locators/kiosk/arm/*")
	r.AddRelease("team", 1, nil)
	r.Publish()
	past := r.Copy()
	r.AddRelease("team", 2, nil)
	r.Publish()
	seen := optionsFor(t, r, r.Dir)
	_, err := latest(t, seen)
	require.NoError(t, err)
	r.Rotate(func() { r.ReplaceKeys("targets") })
	r.AddRelease("team", 3, nil)
	r.Publish()
	damaged := r.Copy()
	require.NoError(t, os.Remove(filepath.Join(damaged.Dir, damaged.RoleFile("targets", damaged.Roles["targets"].Version()))))

	total := 0
	for name, c := range map[string]struct {
		url  string
		harm string // file of the store
	}{
		"refresh": {r.Dir, ""}, "refused": {damaged.Dir, ""}, "healing trust": {r.Dir, "trust"}, "healing marks": {r.Dir, "marks"},
	} {
		t.Run(name, func(t *testing.T) {
			for n := 0; ; n++ {
				o := optionsFor(t, r, c.url)
				require.NoError(t, os.CopyFS(o.Dir, os.DirFS(seen.Dir)))
				require.NoError(t, os.Chmod(o.Dir, 0o700))
				if c.harm != "" {
					require.NoError(t, os.WriteFile(filepath.Join(o.Dir, c.harm), []byte("torn"), 0o600))
				}
				steps := cutAt(t, o.Dir, n, func() { _, _ = latest(t, o) })
				back := o
				back.URL = past.Dir
				_, err := latest(t, back)
				require.ErrorIs(t, err, tuf.ErrRollback, "cut at step %d", n)
				o.URL = r.Dir
				seq, err := latest(t, o)
				require.NoError(t, err, "cut at step %d", n)
				require.EqualValues(t, 3, seq)
				_, err = latest(t, back)
				require.ErrorIs(t, err, tuf.ErrRollback, "cut at step %d", n)
				if total++; steps <= n {
					require.GreaterOrEqual(t, n, 6, "the lookup took no steps")
					return
				}
			}
		})
	}
	t.Logf("%d power cuts", total)
}
