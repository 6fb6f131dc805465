package e2e

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// usage is what a command and what it started took, as the kernel counts it.
type usage struct {
	CPU     time.Duration
	Peak    int64 // resident bytes of the largest process
	Written int64 // bytes of pages that were made dirty: data in whole blocks, folders, inodes
	Data    int64 // bytes that were written to files, and the few to sockets and pipes
}

// usageFile names the environment variable with the file that the usage goes to.
const usageFile = "PAWL_USAGE_FILE"

// A process inherits the peak of the one that started it: so that it is not the
// test's own, a command is started by this small one.
func init() {
	path := os.Getenv(usageFile)
	if path == "" {
		return
	}
	os.Unsetenv(usageFile)
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	if cmd.ProcessState != nil {
		use := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		data, _ := json.Marshal(usage{
			CPU:  cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(),
			Peak: int64(use.Maxrss) << 10, Written: int64(use.Oublock) * 512, Data: dataWritten(),
		})
		err = errors.Join(err, os.WriteFile(path, data, 0o600))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// dataWritten returns what this process and those that it has waited for have
// given to write(2) and its like.
func dataWritten() (n int64) {
	data, err := os.ReadFile("/proc/self/io")
	if err == nil {
		_, err = fmt.Sscanf(string(data), "rchar: %d\nwchar: %d", new(int64), &n)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return n
}

// published is what it took to publish a pair.
type published struct {
	Took  time.Duration
	Usage usage
}

// keep returns the folder with what was published of a pair, which publish makes where it
// is not there: in the folder that PAWL_PUBLISHED names, else for this run.
func (m *published) keep(b *testing.B, p pair, what string, publish func(dir string)) string {
	b.Helper()
	dir := filepath.Join(cmp.Or(os.Getenv("PAWL_PUBLISHED"), built.dir), "published", filepath.Base(filepath.Dir(p.new)), what)
	if data, err := os.ReadFile(dir + ".json"); err == nil {
		require.NoError(b, json.Unmarshal(data, m))
		return dir
	}
	require.NoError(b, os.RemoveAll(dir))
	require.NoError(b, os.MkdirAll(dir, 0o755))
	publish(dir)
	data, err := json.Marshal(m)
	require.NoError(b, err)
	require.NoError(b, os.WriteFile(dir+".json", data, 0o644))
	return dir
}

// freshDir returns a folder for a device that stays until all benchmarks have ended:
// for minutes after many files were removed, ext4 makes new ones slowly, because it passes by the
// inodes that were freed last.
func freshDir(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp(built.dir, "device-")
	require.NoError(b, err)
	return dir
}

// measured runs a command, which has to succeed.
func measured(b *testing.B, r *run, cmd *exec.Cmd) {
	b.Helper()
	self, err := os.Executable()
	require.NoError(b, err)
	path := filepath.Join(b.TempDir(), "usage")
	by := exec.Command(self, cmd.Args...)
	by.Dir, by.Env = cmd.Dir, append(cmd.Environ(), usageFile+"="+path)
	disk := diskWritten(b)
	begin := time.Now()
	out, err := by.CombinedOutput()
	r.took += time.Since(begin)
	require.NoError(b, err, "%v: %s", cmd.Args, out)
	r.disk += diskWritten(b) - disk
	data, err := os.ReadFile(path)
	require.NoError(b, err)
	require.NoError(b, json.Unmarshal(data, &r.usage))
}

// diskWritten is what the disk below the temporary folder counts as written, 0
// where it counts nothing.
func diskWritten(b *testing.B) int64 {
	var st unix.Stat_t
	require.NoError(b, unix.Stat(os.TempDir(), &st))
	data, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev))))
	if err != nil {
		return 0
	}
	sectors, err := strconv.ParseInt(strings.Fields(string(data))[6], 10, 64)
	require.NoError(b, err)
	return sectors * 512
}

// linkRuns is the floor of what is written: every file gets a second name, the
// changed ones are copied, then it is synced and switched.
func linkRuns(b *testing.B, p pair, n int) []run {
	b.ResetTimer()
	runs := make([]run, n)
	for i := range runs {
		dir := freshDir(b)
		out, err := exec.Command("cp", "-a", p.old, dir+"/app").CombinedOutput()
		require.NoError(b, err, "%s", out)
		syscall.Sync()
		measured(b, &runs[i], exec.Command("sh", "-ec", fmt.Sprintf(`cd %q
mkdir next
(cd app; find . -type d) | (cd next; xargs -d '\n' mkdir -p)
cp -al --no-clobber app/. next/
diff -rq --no-dereference app %[2]q | sed -n 's|^Files app/\(.*\) and .* differ$|\1|p' >changed
(cd next; xargs -r -d '\n' rm -f) <changed
(cd %[2]q; xargs -r -d '\n' cp -a --parents -t %[1]q/next) <changed
sync -f .
mv app before
mv next app
sync -f .`, dir, p.new)))
	}
	return runs
}
