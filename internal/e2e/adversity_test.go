package e2e

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// field is a device with 1.0.0 on it and 1.1.0 in the repository.
type field struct {
	*device
	m      *maker
	v1, v2 string
}

func newField(t *testing.T, dir string) *field {
	t.Helper()
	return newFieldOf(t, dir, "tree")
}

// newFieldOf is newField with a layout.
func newFieldOf(t *testing.T, dir, layout string) *field {
	t.Helper()
	m := newMaker(t)
	d := newDevice(t, m, dir)
	d.layout(layout)
	v1 := copyTree(t, filepath.Join(m.dir, "v1"), "net/http")
	v2 := cloneTree(t, v1, filepath.Join(m.dir, "v2"))
	write(t, v2, "net/http/client.go", "package http // the next one\n", 0o644)
	m.release("1.0.0", v1)
	d.must(0, "update")
	m.release("1.1.0", v2)
	return &field{device: d, m: m, v1: v1, v2: v2}
}

// refused runs update, which has to end with code and kind and to leave 1.0.0
// as it was.
func (f *field) refused(code int, kind string) answer {
	f.t.Helper()
	a := f.must(code, "update")
	require.Equal(f.t, kind, a.Kind, "%s: %s", a.Line, a.Error)
	require.NotEmpty(f.t, a.Error)
	requireSame(f.t, pictureOf(f.t, f.v1), pictureOf(f.t, f.app))
	return a
}

// installs runs update, which has to install tree.
func (f *field) installs(tree string) answer {
	f.t.Helper()
	a := f.must(0, "update")
	f.holds(tree)
	return a
}

// TestSecondUpdater starts another agent while one is in the middle of a
// trial: it says so within its time, and reading goes on.
func TestSecondUpdater(t *testing.T) {
	t.Parallel()
	f := newField(t, t.TempDir())
	gate := filepath.Join(f.dir, "gate")
	f.health("[ -e " + gate + " ]")
	first := f.command(t.Context(), "update")
	stdout, err := first.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, first.Start())
	require.Eventually(t, func() bool { return f.must(0, "status").Status.State == "trial" }, 30*time.Second, 20*time.Millisecond)

	for _, verb := range []string{"update", "check", "resume", "rollback", "verify", "repair"} {
		a := f.must(1, verb)
		require.Equal(t, "locked", a.Kind, "%s: %s", verb, a.Error)
	}
	require.Len(t, f.must(0, "history").History, 1)

	write(t, f.dir, "gate", "", 0o644)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, first.Wait())
	require.Contains(t, line, "1.1.0 (seq 2) is installed over 1.0.0 (seq 1)")
	f.holds(f.v2)
}

func TestForeignFileInTheStateDirectory(t *testing.T) {
	t.Parallel()
	f := newField(t, t.TempDir())
	write(t, f.state, "notes.txt", "mine", 0o600)
	write(t, f.state, "updates/notes.txt", "mine", 0o600)
	write(t, f.state, "trust/notes.txt", "mine", 0o600)
	f.installs(f.v2)
	for _, name := range []string{"notes.txt", "updates/notes.txt", "trust/notes.txt"} {
		data, err := os.ReadFile(filepath.Join(f.state, name))
		require.NoError(t, err, "a file of somebody else was removed")
		require.Equal(t, "mine", string(data))
	}
}

// journals returns the files of the journal, the newest last.
func (f *field) journals() []string {
	f.t.Helper()
	names, err := filepath.Glob(filepath.Join(f.state, "updates", "journal.[ab]"))
	require.NoError(f.t, err)
	require.Len(f.t, names, 2)
	generation := func(name string) (g int) {
		data, err := os.ReadFile(name)
		require.NoError(f.t, err)
		_, err = fmt.Sscanf(string(data), "pawl-journal/0 %d ", &g)
		require.NoError(f.t, err)
		return g
	}
	if generation(names[0]) > generation(names[1]) {
		names[0], names[1] = names[1], names[0]
	}
	return names
}

func TestDamagedJournal(t *testing.T) {
	t.Parallel()
	torn := func(data []byte) []byte { return data[:len(data)/2] }
	zeroed := func(data []byte) []byte { return make([]byte, len(data)) }
	flipped := func(data []byte) []byte { data[len(data)/2] ^= 1; return data }
	foreign := func([]byte) []byte { return []byte("somebody else's\n") }
	for name, damage := range map[string]func([]byte) []byte{"torn": torn, "zeroed": zeroed, "flipped": flipped, "foreign": foreign} {
		for _, both := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s both=%v", name, both), func(t *testing.T) {
				t.Parallel()
				f := newField(t, t.TempDir())
				files := f.journals()
				if !both {
					files = files[1:]
				}
				for _, file := range files {
					data, err := os.ReadFile(file)
					require.NoError(t, err)
					require.NoError(t, os.WriteFile(file, damage(data), 0o600))
				}
				require.NotEmpty(t, f.must(0, "status").Status.Notes, "nothing says that the journal was damaged")
				requireSame(t, pictureOf(t, f.v1), pictureOf(t, f.app))
				f.installs(f.v2)
				require.NotEmpty(t, must(filepath.Glob(filepath.Join(f.state, "updates", "*.damaged"))), "what was damaged is not kept for a person")
			})
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestFutureJournal has a record that a newer agent wrote: nothing is touched.
func TestFutureJournal(t *testing.T) {
	t.Parallel()
	f := newField(t, t.TempDir())
	newest := f.journals()[1]
	kept, err := os.ReadFile(newest)
	require.NoError(t, err)
	head, body := "pawl-journal/7 99 2", "{}"
	sum := sha256.Sum256([]byte(head + body))
	require.NoError(t, os.WriteFile(newest, []byte(head+" "+hex.EncodeToString(sum[:])+"\n"+body), 0o600))
	before := pictureOf(t, filepath.Join(f.state, "updates"))
	for _, verb := range []string{"update", "resume", "rollback", "status"} {
		require.Equal(t, "journal", f.must(1, verb).Kind)
	}
	after := pictureOf(t, filepath.Join(f.state, "updates"))
	delete(before, "lock")
	delete(after, "lock")
	requireSame(t, before, after)
	requireSame(t, pictureOf(t, f.v1), pictureOf(t, f.app))

	require.NoError(t, os.WriteFile(newest, kept, 0o600))
	f.installs(f.v2)
}

func TestOtherHardware(t *testing.T) {
	t.Parallel()
	f := newField(t, t.TempDir())
	f.m.release("1.2.0", f.v2, "hardware: [rev-c]")
	f.refused(1, "hardware")
	f.m.release("1.3.0", f.v2, "hardware: [rev-b, rev-c]")
	f.installs(f.v2)
}

// TestFileOfTheApp has the app write into a folder that the release owns as a
// whole: the update stops before anything changes, and lists the file.
func TestFileOfTheApp(t *testing.T) {
	t.Parallel()
	f := newField(t, t.TempDir())
	write(t, f.app, "net/http/cache.db", "precious", 0o600)
	a := f.must(1, "update")
	require.Equal(t, "unmanaged", a.Kind)
	require.Contains(t, a.Error, "net/http/cache.db")
	data, err := os.ReadFile(filepath.Join(f.app, "net/http/cache.db"))
	require.NoError(t, err)
	require.Equal(t, "precious", string(data))

	f.m.release("1.2.0", f.v2, "  carry: [net/http/cache.db]")
	f.must(0, "update")
	data, err = os.ReadFile(filepath.Join(f.app, "net/http/cache.db"))
	require.NoError(t, err)
	require.Equal(t, "precious", string(data), "the app's file was not carried over")
	require.NoError(t, os.Remove(filepath.Join(f.app, "net/http/cache.db")))
	f.holds(f.v2)
}

// TestHangingHealth has a check that never answers: it counts as sick, the
// release is taken back, and no process is left.
func TestHangingHealth(t *testing.T) {
	t.Parallel()
	f := newField(t, t.TempDir())
	pid := filepath.Join(f.dir, "pid")
	f.set("trial", "timeout", "1s")
	f.set("trial", "deadline", "2s")
	f.health("echo $$ > " + pid + "; sleep 1000 & wait")
	a := f.refused(10, "unhealthy")
	require.Contains(t, a.Error, "answer")
	text, err := os.ReadFile(pid)
	require.NoError(t, err)
	require.NoDirExists(t, "/proc/"+strings.TrimSpace(string(text)))

	f.set("trial", "timeout", "20s")
	f.health("true")
	f.m.release("1.2.0", f.v2)
	f.installs(f.v2)
}

// TestLongTrialWithoutAnEnd stops the agent in the middle of a soak: the trial
// stays open, and the next agent finishes it.
func TestStoppedInTheSoak(t *testing.T) {
	t.Parallel()
	f := newField(t, t.TempDir())
	f.set("trial", "soak", "1m")
	f.set("trial", "deadline", "2m")
	first := f.command(t.Context(), "update")
	require.NoError(t, first.Start())
	require.Eventually(t, func() bool { return f.must(0, "status").Status.State == "trial" }, 30*time.Second, 20*time.Millisecond)
	require.NoError(t, first.Process.Signal(os.Interrupt))
	begin := time.Now()
	require.Error(t, first.Wait())
	require.Equal(t, 1, first.ProcessState.ExitCode())
	require.Less(t, time.Since(begin), 40*time.Second)
	require.Equal(t, "trial", string(f.must(0, "status").Status.State))

	f.set("trial", "soak", "50ms")
	f.installs(f.v2)
}

// TestSelfHostedAgent updates a folder that the agent itself is said to run
// from: exit code 13, and the next agent finishes.
func TestSelfHostedAgent(t *testing.T) {
	t.Parallel()
	f := newField(t, t.TempDir())
	f.config["components"].(map[string]any)["app"].(map[string]any)["restart"] = true
	f.save()
	a := f.must(13, "update")
	require.Equal(t, "restart", a.Kind)
	require.Equal(t, "trial", string(f.must(0, "status").Status.State))
	f.installs(f.v2)
}

// TestStuckAndOut loses the old tree in the middle of the trial, so that the
// way back cannot be gone. When it is there again the agent gets out by itself.
func TestStuckAndOut(t *testing.T) {
	t.Parallel()
	f := newField(t, t.TempDir())
	spool, away := filepath.Join(f.dir, ".pawl.app"), filepath.Join(f.dir, "away")
	f.set("trial", "deadline", "300ms")
	f.health("mv " + spool + " " + away + "; exit 1")
	a := f.must(12, "update")
	require.Equal(t, "stuck", a.Kind)
	require.Equal(t, "stuck", string(f.must(0, "status").Status.State))
	f.health("true")
	f.must(12, "resume")

	require.NoError(t, os.RemoveAll(spool))
	require.NoError(t, os.Rename(away, spool))
	f.must(0, "resume")
	f.holds(f.v1)
	f.m.release("1.2.0", f.v2)
	f.installs(f.v2)
}

// TestUnknownKey is the agent's side of a wrong configuration.
func TestUnknownKey(t *testing.T) {
	t.Parallel()
	f := newField(t, t.TempDir())
	data, err := json.Marshal(map[string]any{"state": f.state, "stat": 1})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(f.configFile(), data, 0o600))
	a := f.must(2, "update")
	require.Equal(t, "usage", a.Kind)
	require.Contains(t, a.Error, `"stat"`)
	f.save()
	f.installs(f.v2)
}
