package powercut

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/powercut/check"
)

// TestDamage breaks a device in every way that a checker has to see.
func TestDamage(t *testing.T) {
	s := New(t, "")
	good := filepath.Join(t.TempDir(), "device")
	s.Copy(t, good, check.V2)
	_, err := check.Device(good, check.V2)
	require.NoError(t, err)
	require.NoError(t, check.Tidy(good))
	_, err = check.Device(good, check.V1, check.None)
	require.ErrorIs(t, err, check.ErrViolation, "another version than is wanted")

	write := func(name, text string) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644) }
	}
	remove := func(name string) func(string) error {
		return func(dir string) error { return os.RemoveAll(filepath.Join(dir, name)) }
	}
	chmod := func(name string) func(string) error {
		return func(dir string) error { return os.Chmod(filepath.Join(dir, name), 0o701) }
	}
	link := func(name string) func(string) error {
		return func(dir string) error {
			path := filepath.Join(dir, name)
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.Symlink("elsewhere", path)
		}
	}
	damages := map[string]func(string) error{
		"content": write("app/etc/app.conf", "x"), "missing": remove("app/lib/empty"), "extra": write("app/lib/more", ""),
		"mode": chmod("app/lib/b.so"), "mode of folder": chmod("app/lib"), "mode of root": chmod("app"), "link": link("app/bin/sh"),
		"file for link": link("app/bin/tool"), "no tree": remove("app"), "sys content": write("sys/etc/hosts", ""),
		"sys old entry": write("sys/etc/issue", "x"), "sys missing": remove("sys/etc/modern"), "sys gone": remove("sys"),
		"app's own": write("app/data/own", ""), "app's own gone": remove("app/data"), "more of the app": write("app/data/x", ""),
		"device's own": remove("sys/local/own"), "slot": write("slots/b", "x"), "slot gone": remove("slots"),
		"no boot": remove("boot_id"), "script before": write("effects/before", "1\n"), "script after": remove("effects/after"),
		"script torn": write("effects/after", ""), "temporary": write("state/updates/.pawl-tmp-1", ""),
	}
	if s.Xattrs {
		damages["attribute"] = func(dir string) error {
			path := filepath.Join(dir, "sys/etc/hosts")
			if err := os.Remove(path); err != nil {
				return err
			}
			e := check.InPlace(check.V2)["etc/hosts"]
			return os.WriteFile(path, e.Content, e.Mode.Perm())
		}
	}
	for name, damage := range damages {
		dir := filepath.Join(t.TempDir(), "device")
		s.Copy(t, dir, check.V2)
		require.NoError(t, damage(dir), name)
		found, err := check.Device(dir)
		require.ErrorIs(t, err, check.ErrViolation, "%s: %s", name, found)
	}
	for _, name := range []string{".pawl.app/tx/a", ".pawl.sys/trash/b", "slots/.pawl-tmp-1"} {
		path := filepath.Join(good, name)
		require.NoError(t, os.MkdirAll(path, 0o755))
		require.ErrorIs(t, check.Tidy(good), check.ErrViolation, name)
		require.NoError(t, os.Remove(path))
	}
}
