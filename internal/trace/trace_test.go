//go:build linux && (amd64 || arm64)

package trace

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/testneeds"
)

// traced is one run of a role.
type traced struct {
	Exit
	calls  []*Call
	output string
}

// lines are the calls with names relative to dir.
func (r traced) lines(dir string) (all []string) {
	for _, c := range r.calls {
		line := c.Name + " " + within(dir, c.Path)
		if c.Path2 != "" {
			line += " " + within(dir, c.Path2)
		}
		all = append(all, line)
	}
	return all
}

func within(dir, path string) string {
	rel, err := filepath.Rel(dir, path)
	if err != nil {
		return path
	}
	return rel
}

// trace runs a role in dir.
func trace(t *testing.T, role, dir string, o Options) traced {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := Available(); err != nil {
		testneeds.Missing(t, "ptrace: "+err.Error())
	}
	var r traced
	var output bytes.Buffer
	cmd := exec.Command("/proc/self/exe", dir)
	cmd.Env = append(os.Environ(), roleName+"="+role)
	cmd.Stdout = &output
	after := o.After
	o.After = func(c *Call) {
		r.calls = append(r.calls, c)
		if after != nil {
			after(c)
		}
	}
	var err error
	r.Exit, err = Run(ctx, cmd, o)
	require.NoError(t, err)
	r.output = output.String()
	return r
}

// realDir returns a folder under the name that the kernel has for it.
func realDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	return dir
}

func TestKnownCalls(t *testing.T) {
	dir := realDir(t)
	r := trace(t, "known", dir, Options{Below: dir})
	require.Equal(t, "done\n", r.output)
	require.Equal(t, 0, r.Status.ExitStatus())
	require.Equal(t, knownCalls, r.lines(dir))
	require.Equal(t, len(knownCalls), r.Calls)
	for i, c := range r.calls {
		require.Equal(t, i+1, c.N)
		require.Zero(t, c.Errno(), c.String())
	}
	inodes(t, dir, r.calls)

	// The program does nothing elsewhere, and devices, pipes and memory do not count.
	dir = realDir(t)
	require.Equal(t, knownCalls, trace(t, "known", dir, Options{}).lines(dir))
}

// inodes looks at what the calls of known say beside the names.
func inodes(t *testing.T, dir string, calls []*Call) {
	t.Helper()
	var a, top unix.Stat_t
	require.NoError(t, unix.Stat(filepath.Join(dir, "a"), &a))
	require.NoError(t, unix.Stat(dir, &top))
	for i, c := range calls {
		switch {
		case i >= 1 && i <= 10 || i == 16 || i == 12 || i == 13:
			require.Equal(t, a.Ino, c.Ino, c.String())
		case i == 14: // an exchange with the link
			require.Equal(t, a.Ino, c.Ino)
			require.NotZero(t, c.Ino2)
			require.NotEqual(t, a.Ino, c.Ino2)
		}
		if c.FD < 0 {
			require.Equal(t, uint64(a.Dev), c.Dev)
			require.NotZero(t, c.Dir, c.String())
		}
	}
	require.Equal(t, top.Ino, calls[1].Dir)
	require.True(t, calls[1].New)
	require.Equal(t, int64(5), calls[2].Size)
	require.Equal(t, int64(5), calls[4].Offset, "that of the descriptor")
	require.Equal(t, uint64(unix.RENAME_EXCHANGE), calls[14].Flags)
	require.Equal(t, "a", calls[11].Target)
	require.True(t, calls[12].New)
}

// TestEveryCallOfACrowd has the program make a known number of calls on four
// threads at once.
func TestEveryCallOfACrowd(t *testing.T) {
	for range 3 {
		dir := realDir(t)
		running := 0
		r := trace(t, "crowd", dir, Options{
			Below:  dir,
			Before: func(*Call) Action { running++; require.Equal(t, 1, running); return Continue },
			After:  func(*Call) { running-- },
		})
		require.Equal(t, 0, r.Status.ExitStatus(), r.output)
		count, threads := map[string]int{}, map[int]bool{}
		for _, c := range r.calls {
			count[c.Name]++
			threads[c.TID] = true
		}
		require.Greater(t, len(threads), 1)
		want := map[string]int{}
		for name, n := range crowdCalls {
			want[name] = n * crowdSize * crowdFiles
		}
		require.Equal(t, want, count)
	}
}

func TestErrno(t *testing.T) {
	for _, c := range []struct {
		name  string
		errno syscall.Errno
		says  string
		left  bool
	}{
		{"openat", unix.EMFILE, "too many open files", false},
		{"openat", unix.EROFS, "read-only file system", false},
		{"write", unix.ENOSPC, "no space left on device", true},
	} {
		dir := realDir(t)
		r := trace(t, "write", dir, Options{Below: dir, Before: func(call *Call) Action {
			if call.Name == c.name {
				return Fail(c.errno)
			}
			return Continue
		}})
		require.Contains(t, r.output, c.says)
		require.Equal(t, 3, r.Status.ExitStatus())
		require.Equal(t, c.errno, r.calls[len(r.calls)-1].Errno())
		data, err := os.ReadFile(filepath.Join(dir, "f"))
		require.Equal(t, c.left, err == nil)
		require.Empty(t, data, "the call did not happen")
	}
}

// TestKill kills before and after each of the known calls, and compares what is
// there with what a whole run went through.
func TestKill(t *testing.T) {
	whole := realDir(t)
	pictures := []string{picture(t, whole)}
	trace(t, "known", whole, Options{Below: whole, After: func(*Call) { pictures = append(pictures, picture(t, whole)) }})
	require.Len(t, pictures, len(knownCalls)+1)
	for n := range len(knownCalls) {
		for after, action := range []Action{KillBefore, KillAfter} {
			dir := realDir(t)
			r := trace(t, "known", dir, Options{Below: dir, Before: func(c *Call) Action {
				if c.N == n+1 {
					return action
				}
				return Continue
			}})
			require.True(t, r.Killed)
			require.Equal(t, syscall.SIGKILL, r.Status.Signal())
			require.Len(t, r.calls, n+after)
			require.Equal(t, pictures[n+after], picture(t, dir), "%s, %d", knownCalls[n], after)
		}
	}
}

// picture describes what is in dir.
func picture(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		target, _ := os.Readlink(path)
		blocks := st.Mode&unix.S_IFMT == unix.S_IFREG && st.Blocks*512 >= 4096
		all.WriteString(strings.Join([]string{
			within(dir, path), strconv.FormatUint(uint64(st.Mode), 8), target, strconv.FormatInt(st.Size, 10),
			strconv.FormatUint(uint64(st.Nlink), 10), strconv.FormatBool(blocks), strconv.FormatBool(st.Mtim.Sec == 0), contentOf(path, d),
		}, " ") + "\n")
		return nil
	})
	require.NoError(t, err)
	return all.String()
}

func contentOf(path string, d os.DirEntry) string {
	if !d.Type().IsRegular() {
		return ""
	}
	data, _ := os.ReadFile(path)
	return strconv.Quote(string(data))
}

// TestKillTakesTheWholeTree leaves none of the processes that the program
// started, though each has its own session.
func TestKillTakesTheWholeTree(t *testing.T) {
	dir := realDir(t)
	r := trace(t, "lasting", dir, Options{Below: dir, Before: func(c *Call) Action {
		if strings.HasPrefix(c.Name, "mkdir") {
			return KillBefore
		}
		return Continue
	}})
	require.True(t, r.Killed)
	for i := range 3 {
		pid, err := os.ReadFile(filepath.Join(dir, strconv.Itoa(i)))
		require.NoError(t, err)
		requireGone(t, string(pid))
	}
	require.NoDirExists(t, filepath.Join(dir, "end"))
}

// TestTheEndOfTheTracer leaves nobody either.
func TestTheEndOfTheTracer(t *testing.T) {
	dir := realDir(t)
	_ = trace(t, "write", t.TempDir(), Options{}) // skips where it must
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", dir)
	cmd.Env = append(os.Environ(), roleName+"=dying")
	require.NoError(t, cmd.Run())
	pid, err := os.ReadFile(filepath.Join(dir, "2"))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return isGone(string(pid)) }, 10*time.Second, time.Millisecond)
}

// TestTheEndOfTheContext ends it at a moment when processes are being born.
func TestTheEndOfTheContext(t *testing.T) {
	_ = trace(t, "write", t.TempDir(), Options{}) // skips where it must
	for range 10 {
		dir := realDir(t)
		ctx, cancel := context.WithCancel(t.Context())
		cmd := exec.Command("/proc/self/exe", dir)
		cmd.Env = append(os.Environ(), roleName+"=lasting")
		_, err := Run(ctx, cmd, Options{After: func(c *Call) {
			if strings.HasPrefix(c.Name, "mkdir") {
				cancel()
			}
		}})
		require.ErrorIs(t, err, context.Canceled)
		pid, err := os.ReadFile(filepath.Join(dir, "2"))
		require.NoError(t, err)
		requireGone(t, string(pid))
	}
}

// requireGone checks that a process has ended.
func requireGone(t *testing.T, pid string) {
	t.Helper()
	require.True(t, isGone(pid), "process %s runs", pid)
}

// isGone reports whether a process has ended. Its entry may stay until process 1
// takes notice.
func isGone(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err != nil || strings.Contains(string(stat), ") Z ") || strings.Contains(string(stat), ") X ")
}

func TestChildren(t *testing.T) {
	dir := realDir(t)
	r := trace(t, "children", dir, Options{Below: dir})
	require.Equal(t, 0, r.Status.ExitStatus(), r.output)
	require.ElementsMatch(t, []string{"openat one", "write one", "openat two", "write two", "openat three", "mkdir four"},
		strings.Split(strings.ReplaceAll(strings.Join(r.lines(dir), ","), "mkdirat", "mkdir"), ","))
	pids := map[int]bool{}
	for _, c := range r.calls {
		pids[c.PID] = true
	}
	require.Len(t, pids, 2)
}

// TestData builds the files again out of what the calls say.
func TestData(t *testing.T) {
	dir := realDir(t)
	files, names := map[uint64][]byte{}, map[string]uint64{}
	r := trace(t, "content", dir, Options{Below: dir, Data: true, After: func(c *Call) {
		if c.Errno() != 0 {
			return
		}
		names[c.Path] = c.Ino
		if strings.HasSuffix(c.Name, "truncate") {
			files[c.Ino] = files[c.Ino][:c.Size]
			return
		}
		require.True(t, c.Name == "openat" || c.Size == int64(len(c.Data)), c.String())
		if grow := c.Offset + c.Size - int64(len(files[c.Ino])); grow > 0 {
			files[c.Ino] = append(files[c.Ino], make([]byte, grow)...)
		}
		copy(files[c.Ino][c.Offset:], c.Data)
	}})
	require.Equal(t, 0, r.Status.ExitStatus(), r.output)
	require.Len(t, names, 5)
	for path, ino := range names {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, files[ino]), "%s: %d and %d bytes", path, len(data), len(files[ino]))
	}
}

// TestNotOnTheMainThread has few threads to choose from. On the main one the
// tracer would take in the children of threads that ended.
func TestNotOnTheMainThread(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for range 30 {
		trace(t, "write", t.TempDir(), Options{Before: func(*Call) Action {
			require.NotEqual(t, unix.Getpid(), unix.Gettid())
			return KillBefore
		}})
	}
}

// TestOtherChildren has a process of somebody else, started on a thread that is
// at hand, end during a run: that somebody learns how it ended.
func TestOtherChildren(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for range 20 {
		other := exec.CommandContext(t.Context(), "/proc/self/exe", realDir(t))
		other.Env = append(os.Environ(), roleName+"=waiting")
		stdin, err := other.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, other.Start())
		dir := realDir(t)
		trace(t, "write", dir, Options{Below: dir, Before: func(*Call) Action {
			_ = stdin.Close()
			require.Eventually(t, func() bool { return isGone(strconv.Itoa(other.Process.Pid)) }, 10*time.Second, time.Millisecond)
			return Continue
		}})
		require.NoError(t, other.Wait())
	}
}

// TestProgramsThatCannotStart end in an error and leave nobody behind.
func TestProgramsThatCannotStart(t *testing.T) {
	_, err := Run(t.Context(), exec.Command(filepath.Join(t.TempDir(), "none")), Options{})
	require.ErrorIs(t, err, os.ErrNotExist)
}
