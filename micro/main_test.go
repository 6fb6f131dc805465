//go:build linux

package micro

import (
	"flag"
	"os"
	"path"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/powercut/site"
)

// TestMain has the tests work in memory, where there is room and the file system
// can do what they ask of one: what they find out does not depend on the disk,
// and tens of thousands of syncs do. The long run and what measures are on the
// disk.
func TestMain(m *testing.M) {
	flag.Parse()
	site.LeaveOut()
	const prefix = "/dev/shm/pawl-micro-" // a child works in its parent's
	if long() || flag.Lookup("test.bench").Value.String() != "" || strings.HasPrefix(os.TempDir(), prefix) {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp(path.Split(prefix))
	if err != nil {
		os.Exit(m.Run())
	}
	if goodMemory(dir) {
		_ = os.Setenv("TMPDIR", dir)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// goodMemory reports whether there are 2 GiB, programs can be started there, and
// files can have attributes and be immutable. Other users have to be let through.
func goodMemory(dir string) bool {
	var fs unix.Statfs_t
	var sx unix.Statx_t
	if unix.Statfs(dir, &fs) != nil || unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_BTIME, &sx) != nil {
		return false
	}
	return uint32(fs.Type) == unix.TMPFS_MAGIC && int64(fs.Bavail)*int64(fs.Bsize) > 2<<30 && int64(fs.Flags)&unix.ST_NOEXEC == 0 &&
		sx.Attributes_mask&unix.STATX_ATTR_IMMUTABLE != 0 && sx.Mask&unix.STATX_BTIME != 0 &&
		unix.Setxattr(dir, "user.pawl", []byte("x"), 0) == nil && os.Chmod(dir, 0o755) == nil
}
