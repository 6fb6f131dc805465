package durable

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/testneeds"
)

func TestInsecureMode(t *testing.T) {
	for _, c := range []struct {
		perm os.FileMode
		ok   bool
	}{{0o700, true}, {0o750, true}, {0o755, true}, {0o770, false}, {0o702, false}, {0o777, false}, {os.ModeSticky | 0o777, false}} {
		path := t.TempDir() + "/state"
		require.NoError(t, os.Mkdir(path, 0o700))
		require.NoError(t, os.Chmod(path, c.perm))
		d, err := OpenDir(path)
		if !c.ok {
			require.ErrorIs(t, err, ErrInsecure, "%v", c.perm)
			require.ErrorContains(t, err, "chmod go-w")
			continue
		}
		require.NoError(t, err, "%v", c.perm)
		require.NoError(t, d.Close())
	}
}

func TestInsecureAbove(t *testing.T) {
	above := t.TempDir() + "/open"
	require.NoError(t, os.MkdirAll(above+"/between/state", 0o700))
	require.NoError(t, os.Chmod(above, 0o777))
	_, err := OpenDir(above + "/between/state")
	require.ErrorIs(t, err, ErrInsecure)
	require.ErrorContains(t, err, above)

	link := t.TempDir() + "/link"
	require.NoError(t, os.Symlink(above+"/between/state", link))
	_, err = OpenDir(link)
	require.ErrorIs(t, err, ErrInsecure, "behind a link")

	safe := t.TempDir() + "/state"
	require.NoError(t, os.Symlink(filepath.Dir(safe), above+"/link"))
	_, err = OpenDir(above + "/link/state")
	require.ErrorIs(t, err, ErrInsecure, "anybody could set the link elsewhere")

	require.NoError(t, os.Chmod(above, os.ModeSticky|0o777))
	d, err := OpenDir(above + "/between/state")
	require.NoError(t, err)
	require.NoError(t, d.Close())
}

func TestInsecureOwner(t *testing.T) {
	testneeds.Root(t)
	above := t.TempDir() + "/home"
	path := above + "/state"
	require.NoError(t, os.MkdirAll(path, 0o700))
	require.NoError(t, os.Chown(path, 12345, 12345))
	_, err := OpenDir(path)
	require.ErrorIs(t, err, ErrInsecure)
	require.ErrorContains(t, err, "user 12345")

	require.NoError(t, os.Chown(path, 0, 0))
	require.NoError(t, os.Chown(above, 12345, 12345))
	_, err = OpenDir(path)
	require.ErrorIs(t, err, ErrInsecure, "its owner can put another folder in its place")
}

func TestOpenDirCannot(t *testing.T) {
	file := t.TempDir() + "/file"
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := OpenDir(file)
	require.Error(t, err)
	_, err = OpenDir(file + "/below")
	require.Error(t, err)
}
