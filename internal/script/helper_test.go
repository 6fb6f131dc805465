//go:build linux

package script

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/seam"
)

// roleName in the environment makes the test binary another program.
const roleName = "SCRIPT_TEST_ROLE"

func TestMain(m *testing.M) {
	role, ok := roles[os.Getenv(roleName)]
	if !ok {
		os.Exit(m.Run())
	}
	os.Exit(role())
}

// calm is the patience of tests: whoever listens has the time to, on a busy
// machine too.
var calm = patience{grace: 20 * time.Second, kill: time.Minute}

// quick is the patience with whoever does not listen.
var quick = patience{grace: 300 * time.Millisecond, kill: time.Minute}

// source opens text, and ends in err when that is not nil.
func source(text []byte, err error) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		var r io.Reader = bytes.NewReader(text)
		if err != nil {
			r = io.MultiReader(r, failing{err})
		}
		return io.NopCloser(r), nil
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// program makes a program of text, with a mark of its own, in a folder of its
// own, which is DIR in its environment too.
func program(t testing.TB, text string) seam.Program {
	t.Helper()
	dir := t.TempDir()
	mark := "PAWL_RUN=" + rand.Text()
	return seam.Program{
		Name: "hello", Open: source([]byte(text), nil), Size: int64(len(text)),
		Env:   []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", mark, "DIR=" + dir},
		Dir:   dir,
		Limit: 20 * time.Second, Mark: mark, MaxOutput: 4 << 10,
	}
}

// self makes the test binary the program, in a role.
func self(t testing.TB, role string) seam.Program {
	t.Helper()
	path, err := os.Executable()
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	p := program(t, "")
	p.Size = info.Size()
	p.Open = func() (io.ReadCloser, error) { return os.Open(path) }
	p.Env = append(p.Env, roleName+"="+role)
	return p
}

func run(t testing.TB, p seam.Program) seam.Ran {
	t.Helper()
	ran, err := calm.run(context.Background(), p)
	require.NoError(t, err)
	return ran
}

// pids returns the processes that the program noted in the file pids, and
// wants as many as that.
func pids(t testing.TB, p seam.Program, many int) []int {
	t.Helper()
	var all []int
	data, err := os.ReadFile(filepath.Join(p.Dir, "pids"))
	require.NoError(t, err)
	for _, f := range strings.Fields(string(data)) {
		pid, err := strconv.Atoi(f)
		require.NoError(t, err)
		all = append(all, pid)
	}
	require.Len(t, all, many)
	return all
}

// requireGone wants that none of the processes is left. It does not use what it
// is to judge.
func requireGone(t testing.TB, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		require.False(t, alive(pid), "process %d is left: %s", pid, commandOf(pid))
	}
}

func alive(pid int) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return rest[0] != 'Z' && rest[0] != 'X'
}

func commandOf(pid int) string {
	data, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return strings.ReplaceAll(string(data), "\x00", " ")
}

// named returns the processes that have word in their command line.
func named(t testing.TB, word string) []int {
	t.Helper()
	names, err := os.ReadDir("/proc")
	require.NoError(t, err)
	var all []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name.Name()); err == nil && strings.Contains(commandOf(pid), word) && alive(pid) {
			all = append(all, pid)
		}
	}
	return all
}

// eventually looks until ok, for a minute.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 6000 {
		if ok() {
			return
		}
		_ = pause(context.Background(), 10*time.Millisecond)
	}
	require.Fail(t, "it did not happen", what)
}

// errEnd is what a verifying reader says instead of io.EOF.
var errEnd = errors.New("the digest is another")
