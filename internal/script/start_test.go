//go:build linux

package script

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/testneeds"
)

// TestNothingRunsUnverified has readers that do not end as they should, behind
// bytes that would run.
func TestNothingRunsUnverified(t *testing.T) {
	const text = "#!/bin/sh\n: >ran\n"
	for name, c := range map[string]struct {
		text string
		err  error
		size int64
	}{
		"another digest":    {text, errEnd, int64(len(text))},
		"cut short":         {text, io.ErrUnexpectedEOF, int64(len(text)) + 10},
		"less than it says": {text, nil, int64(len(text)) + 1},
		"more than it says": {text + "#", nil, int64(len(text))},
		"and then an error": {text + "#", errEnd, int64(len(text))},
		"empty":             {"", nil, int64(len(text))},
	} {
		t.Run(name, func(t *testing.T) {
			p := program(t, "")
			p.Open, p.Size = source([]byte(c.text), c.err), c.size
			ran, err := Run(context.Background(), p)
			require.ErrorContains(t, err, "cannot read program hello")
			if c.err != nil && c.size <= int64(len(text)) && c.text == text {
				require.ErrorIs(t, err, c.err)
			}
			assert.Equal(t, -1, ran.Exit)
			assert.NoFileExists(t, filepath.Join(p.Dir, "ran"))
		})
	}
	p := program(t, text)
	p.Open = func() (io.ReadCloser, error) { return nil, os.ErrNotExist }
	_, err := Run(context.Background(), p)
	require.ErrorIs(t, err, os.ErrNotExist)
	p = program(t, text)
	run(t, p)
	assert.FileExists(t, filepath.Join(p.Dir, "ran"), "the same bytes from a good reader")
}

// TestProgramCannotBeChanged tries as the owner, through a descriptor that is
// open for writing and through a new one.
func TestProgramCannotBeChanged(t *testing.T) {
	f, err := load(program(t, "#!/bin/sh\n"))
	require.NoError(t, err)
	defer f.Close()
	info, err := f.Stat()
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o500), info.Mode())
	_, err = f.WriteAt([]byte("x"), 0)
	assert.ErrorIs(t, err, unix.EPERM)
	assert.ErrorIs(t, f.Truncate(0), unix.EPERM)
	assert.ErrorIs(t, f.Truncate(100), unix.EPERM)
	_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, 0)
	assert.ErrorIs(t, err, unix.EPERM)
	if again, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), os.O_RDWR, 0); err == nil {
		_, err = again.Write([]byte("x"))
		assert.ErrorIs(t, err, unix.EPERM)
		again.Close()
	}
}

func TestExecutables(t *testing.T) {
	path := testneeds.Program(t, "true")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	p := program(t, "")
	p.Open, p.Size = source(data, nil), int64(len(data))
	p.Name = strings.Repeat("long", 100)
	assert.Equal(t, 0, run(t, p).Exit)
}

// TestWhyItDoesNotStart has one line for a person for each thing that can be
// wrong with a program.
func TestWhyItDoesNotStart(t *testing.T) {
	path, err := os.Executable()
	require.NoError(t, err)
	elf, err := os.ReadFile(path)
	require.NoError(t, err)
	foreign := bytes.Clone(elf)
	binary.NativeEndian.PutUint16(foreign[18:], 2) // SPARC
	other, want := bytes.Clone(elf), "arm64"
	if binary.NativeEndian.PutUint16(other[18:], 183); runtime.GOARCH == "arm64" {
		binary.NativeEndian.PutUint16(other[18:], 62)
		want = "amd64"
	}
	plain := filepath.Join(t.TempDir(), "plain")
	require.NoError(t, os.WriteFile(plain, []byte("x"), 0o644))
	for name, c := range map[string]struct {
		text []byte
		want string
		is   error
	}{
		"no interpreter":      {[]byte("#!/no/such/shell -e\n"), `its interpreter "/no/such/shell" is not on this device`, unix.ENOENT},
		"not executable":      {[]byte("#!" + plain + "\n"), `its interpreter "` + plain + `" is not executable`, unix.EACCES},
		"a folder":            {[]byte("#!/tmp\n"), `its interpreter "/tmp" is not executable`, unix.EACCES},
		"carriage return":     {[]byte("#!/bin/sh\r\necho\r\n"), "carriage return", unix.ENOENT},
		"empty line":          {[]byte("#! \necho\n"), "names no interpreter", nil},
		"byte order mark":     {[]byte("\xef\xbb\xbf#!/bin/sh\n"), "byte order mark", unix.ENOEXEC},
		"no line":             {[]byte("echo hello\n"), "neither an executable nor a text that begins with #!", unix.ENOEXEC},
		"one byte":            {[]byte("#"), "neither an executable", unix.ENOEXEC},
		"a cut executable":    {elf[:40], "cut short", nil},
		"a rare architecture": {foreign, "ELF machine 2, ", unix.ENOEXEC},
		"an architecture":     {other, "executable for " + want + ", ", unix.ENOEXEC},
	} {
		t.Run(name, func(t *testing.T) {
			p := program(t, "")
			p.Open, p.Size = source(c.text, nil), int64(len(c.text))
			_, err := Run(context.Background(), p)
			require.ErrorContains(t, err, "cannot start hello: ")
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			t.Log(err)
		})
	}
	p := program(t, "#!/bin/sh\n")
	p.Dir = filepath.Join(p.Dir, "gone")
	_, err = Run(context.Background(), p)
	require.ErrorContains(t, err, "no folder "+p.Dir+" to start it in")
}

// TestForeignLoader has an executable that was linked for another C library.
func TestForeignLoader(t *testing.T) {
	data, err := os.ReadFile(testneeds.Program(t, "true"))
	require.NoError(t, err)
	loader := loaderOf(bytes.NewReader(data), data[:4096], binary.NativeEndian)
	if loader == "" {
		testneeds.Missing(t, "an executable with a loader")
	}
	absent := "/no" + strings.Repeat("-", len(loader)-3)
	data = bytes.Replace(data, []byte(loader), []byte(absent), 1)
	p := program(t, "")
	p.Open, p.Size = source(data, nil), int64(len(data))
	_, err = Run(context.Background(), p)
	require.ErrorContains(t, err, `its loader "`+absent+`" is not on this device`)
	t.Log(err)
}

// TestDescriptors opens what the program must not get in every way in which a
// process can have it.
func TestDescriptors(t *testing.T) {
	var inherited [2]int
	require.NoError(t, unix.Pipe2(inherited[:], 0))
	for _, fd := range inherited {
		defer unix.Close(fd)
	}
	high, err := unix.FcntlInt(uintptr(inherited[0]), unix.F_DUPFD, 700)
	require.NoError(t, err)
	defer unix.Close(high)
	f, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer f.Close()

	lines := strings.Split(strings.TrimSpace(string(run(t, self(t, "descriptors")).Output)), "\n")
	require.Len(t, lines, 4, "%v", lines)
	assert.Equal(t, "0 /dev/null", lines[0])
	assert.Equal(t, "1 pipe", lines[1])
	assert.Equal(t, "2 pipe", lines[2])
	assert.Equal(t, "3 /memfd:hello (deleted)", lines[3])

	flags, err := unix.FcntlInt(uintptr(high), unix.F_GETFD, 0)
	require.NoError(t, err)
	assert.Zero(t, flags&unix.FD_CLOEXEC, "in this process nothing has changed")
}

// TestDescriptorsOfOldKernels marks them one by one, in a table of a thread.
func TestDescriptorsOfOldKernels(t *testing.T) {
	fd, err := unix.Dup(0)
	require.NoError(t, err)
	defer unix.Close(fd)
	var first, own int
	onNewThread(func() {
		require.NoError(t, unix.Unshare(unix.CLONE_FILES))
		closeOnExec()
		own, _ = unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		first, _ = unix.FcntlInt(1, unix.F_GETFD, 0)
	})
	assert.Equal(t, unix.FD_CLOEXEC, own)
	assert.Zero(t, first)
	all, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	require.NoError(t, err)
	assert.Zero(t, all)
}

func TestLimits(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	var core unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_CORE, &core))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: core.Max, Max: core.Max}))
	defer unix.Setrlimit(unix.RLIMIT_CORE, &core)
	p := program(t, "#!/bin/sh\numask; sleep 0.1; ulimit -c; ulimit -n; : >made\n")
	ran := run(t, p)
	assert.Equal(t, "0022\n0\n1024\n", string(ran.Output))
	info, err := os.Stat(filepath.Join(p.Dir, "made"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o644), info.Mode())
	assert.Equal(t, 0o077, unix.Umask(0o077), "in this process nothing has changed")
}

// TestOwnSession sees that no terminal and no group of the caller reaches it.
func TestOwnSession(t *testing.T) {
	p := program(t, "#!/bin/sh\nread -r pid name state parent group session terminal rest </proc/$$/stat\necho $((pid-group)) $((pid-session)) $terminal\n")
	assert.Equal(t, "0 0 0\n", string(run(t, p).Output))
}

// TestMainThreadIsNotUsed has a process with little else to run on: a main
// thread that got a descriptor table of its own would keep it.
func TestMainThreadIsNotUsed(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{roleName + "=main thread"}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "true\n", string(out), "the test did not meet the main thread")
}

// TestContainer runs programs where this process is the first of a pid
// namespace, which takes in no orphan, with and without a /proc of its own and
// with the kernel's word on programs in memory.
func TestContainer(t *testing.T) {
	testneeds.Root(t)
	cmd := exec.Command("/proc/self/exe", "-test.v")
	cmd.Env = []string{roleName + "=container", "PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil && errors.Is(err, unix.EPERM) {
		testneeds.Missing(t, "pid namespaces")
	}
	require.NoError(t, err, "%s", out)
	t.Logf("%s", out)
}
