package e2e

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// picture is what a folder holds: a line for each path that says all of it.
type picture map[string]string

// pictureOf looks at a folder with nothing of pawl.
func pictureOf(t testing.TB, dir string) picture {
	t.Helper()
	p := picture{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		p[rel], err = describe(path)
		return err
	})
	require.NoError(t, err)
	return p
}

func describe(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	st := info.Sys().(*syscall.Stat_t)
	text := fmt.Sprintf("%06o %d:%d", st.Mode, st.Uid, st.Gid)
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		return text + " -> " + target, err
	case info.Mode().IsRegular():
		sum, err := hash(path)
		if err != nil {
			return "", err
		}
		text += " " + sum
	}
	attrs, err := xattrs(path)
	return text + attrs, err
}

func hash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

func xattrs(path string) (string, error) {
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	text := ""
	for _, name := range slices.Sorted(strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00")) {
		if name == "" || strings.HasPrefix(name, "security.selinux") {
			continue
		}
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", err
		}
		text += fmt.Sprintf(" %s=%q", name, value[:n])
	}
	return text, nil
}

// requireSame compares two folders and names the first paths that differ.
func requireSame(t testing.TB, want, got picture) {
	t.Helper()
	var diff []string
	for _, path := range slices.Sorted(maps.Keys(want)) {
		if got[path] != want[path] {
			diff = append(diff, fmt.Sprintf("%s: is %q, should be %q", path, got[path], want[path]))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[path]; !ok {
			diff = append(diff, path+": should not be there")
		}
	}
	if len(diff) > 0 {
		t.Fatalf("%d paths differ, such as\n%s", len(diff), strings.Join(diff[:min(5, len(diff))], "\n"))
	}
}

// goroot is the folder of the toolchain that runs the tests: thousands of real
// files that are on every machine.
func goroot(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}

// copyTree copies folders below the toolchain's src to dir, with modes that
// are the same on every machine.
func copyTree(t testing.TB, dir string, folders ...string) string {
	t.Helper()
	src := filepath.Join(goroot(t), "src")
	for _, folder := range folders {
		err := filepath.WalkDir(filepath.Join(src, folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(src, path)
			if err != nil {
				return err
			}
			to := filepath.Join(dir, rel)
			if d.IsDir() {
				return os.MkdirAll(to, 0o755)
			}
			if !d.Type().IsRegular() {
				return nil
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(to, data, 0o644)
		})
		require.NoError(t, err)
	}
	return dir
}

// cloneTree copies a folder with everything that pictureOf sees.
func cloneTree(t testing.TB, from, to string) string {
	t.Helper()
	out, err := exec.Command(testneeds.Program(t, "cp"), "-a", from, to).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return to
}

// files lists the regular files below dir, sorted, relative to it.
func files(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(dir, path)
			all = append(all, rel)
		}
		return err
	})
	require.NoError(t, err)
	return all
}

// write makes one file with the folders above it.
func write(t testing.TB, dir, name, content string, perm fs.FileMode) {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), perm))
	require.NoError(t, os.Chmod(path, perm))
}
