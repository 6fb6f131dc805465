//go:build linux

package script

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/internal/testneeds"
)

// TestWhatIsLeftBehind has programs that end well and leave processes, which
// they note in the file pids.
func TestWhatIsLeftBehind(t *testing.T) {
	for _, c := range []struct {
		name, text string
		needs      string
		left       int
		with       patience
	}{
		{name: "a child", text: "sleep 100 & echo $! >pids", left: 1},
		{name: "two hundred children", text: "i=0; while [ $i -lt 200 ]; do sleep 100 & echo $! >>pids; i=$((i+1)); done", left: 200},
		{name: "a child without output", text: "sleep 100 >/dev/null 2>&1 & echo $! >pids", left: 1},
		{name: "nohup", text: "nohup sleep 100 >/dev/null 2>&1 & echo $! >pids", left: 1},
		{name: "ignores every signal it can", text: "trap '' TERM HUP INT; sleep 100 & echo $! >pids", left: 1, with: quick},
		{name: "stopped", text: "sleep 100 & echo $! >pids; kill -STOP $!", left: 1},
		{name: "job control", text: "set -m; sleep 100 & echo $! >pids", needs: "bash", left: 1},
		{name: "a name that looks like a state", left: 1,
			text: `sh -c 'printf "a) Z 0 0" >/proc/$$/comm; echo $$ >pids; while :; do :; done' & until [ -s pids ]; do :; done`},
		{name: "without the mark, in the session", text: "env -i sleep 100 & echo $! >pids", left: 1},
		{name: "setsid", text: "setsid sleep 100 & echo $! >pids; until grep -q ^sleep /proc/$!/comm; do :; done", needs: "setsid", left: 1},
		{name: "setsid, and one without the mark in that session", needs: "setsid", left: 2,
			text: "setsid sh -c 'env -i sleep 100 & echo $$ $! >pids; wait' & until [ -s pids ]; do :; done"},
		{name: "a daemon that forked twice", needs: "setsid", left: 1,
			text: "setsid sh -c '(cd /; exec sleep 100 <&- >&- 2>&-) & echo $! >pids' & wait $!"},
	} {
		t.Run(c.name, func(t *testing.T) {
			shell := "/bin/sh"
			if c.needs != "" {
				path := testneeds.Program(t, c.needs)
				if c.needs == "bash" {
					shell = path
				}
			}
			p := program(t, "#!"+shell+"\n"+c.text+"\n")
			ran, err := cmp.Or(c.with, calm).run(t.Context(), p)
			require.NoError(t, err)
			requireGone(t, pids(t, p, c.left)...)
			ran.Took = 0
			assert.Equal(t, seam.Ran{Left: c.left, Output: []byte{}}, seam.Ran{Exit: ran.Exit, Left: ran.Left, Output: append([]byte{}, ran.Output...)})
		})
	}
}

// TestEscapeAtTheLastInstant has the program end while its child is in the
// middle of setsid and execve, again and again: neither sign is there for a
// moment.
func TestEscapeAtTheLastInstant(t *testing.T) {
	testneeds.Program(t, "setsid")
	for i := range 150 {
		word := fmt.Sprintf("100.%09d", os.Getpid()*1000+i)
		p := program(t, fmt.Sprintf("#!/bin/sh\nsetsid setsid setsid sleep %s >/dev/null 2>&1 &\nexit 0\n", word))
		run(t, p)
		require.Empty(t, named(t, word), "in round %d", i)
	}
}

// TestForksOn has a program that ends at once while its children fork and end
// as fast as they can, each in a session of its own.
func TestForksOn(t *testing.T) {
	p := self(t, "forks on")
	for range 5 {
		ran, err := quick.run(t.Context(), p)
		require.NoError(t, err)
		require.Equal(t, 0, ran.Exit)
		require.Empty(t, named(t, p.Mark), "the chain goes on")
	}
}

// TestPipeHeldOpen has somebody who is not of the program hold its output open
// after the end.
func TestPipeHeldOpen(t *testing.T) {
	p := self(t, "drop mark")
	ran := run(t, p)
	assert.Equal(t, "last words\n", string(ran.Output))
	assert.Less(t, ran.Took, p.Limit)
	for _, pid := range pids(t, p, 1) {
		require.True(t, alive(pid), "it has no sign of the program: the test is to have one that is not found")
		process, err := os.FindProcess(pid)
		require.NoError(t, err)
		require.NoError(t, process.Kill())
	}
}

// TestOthersAreLeftAlone has processes around the program that look much like
// its own.
func TestOthersAreLeftAlone(t *testing.T) {
	p := program(t, "#!/bin/sh\nsleep 100 & exit 0\n")
	for _, env := range []string{p.Mark + "x", "X" + p.Mark, "PAWL_RUN=", "X=" + p.Mark, p.Mark[:len(p.Mark)-1]} {
		cmd := exec.Command("sleep", "100")
		cmd.Env = []string{"A=B", env}
		require.NoError(t, cmd.Start())
		defer func() {
			assert.True(t, alive(cmd.Process.Pid), "it was ended, with %s", env)
			assert.NoError(t, cmd.Process.Kill())
			_ = cmd.Wait()
		}()
	}
	assert.Equal(t, 1, run(t, p).Left)
	require.NoError(t, quick.end(context.Background(), p.Mark))
}

// TestSessionOfAnother has the mark in one member of a session that the program
// did not make: that one is ended, the rest is not.
func TestSessionOfAnother(t *testing.T) {
	p := program(t, "")
	cmd := exec.Command("/bin/sh", "-c", p.Mark+" sleep 100 & echo $!; exec sleep 100")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var marked int
	_, err = fmt.Fscan(out, &marked)
	require.NoError(t, err)
	eventually(t, "it begins", func() bool { return commandOf(marked) == "sleep 100 " && commandOf(cmd.Process.Pid) == "sleep 100 " })
	require.NoError(t, quick.end(context.Background(), p.Mark))
	requireGone(t, marked)
	assert.True(t, alive(cmd.Process.Pid), "the session is another's")
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
}

// TestCallerIsKilled kills a process in the middle of a Run with kill -9, and
// has another end what is left.
func TestCallerIsKilled(t *testing.T) {
	testneeds.Program(t, "setsid")
	p := program(t, `#!/bin/sh
/bin/sh -c 'trap ": >tidy; exit" TERM; : >listens; while :; do :; done' &
one=$!
until [ -e listens ]; do sleep 0.01; done
trap '' TERM
sleep 100 &
two=$!
setsid sleep 100 &
echo $$ $one $two $! >tmp
mv tmp pids
wait
`)
	text, err := p.Open()
	require.NoError(t, err)
	path := filepath.Join(p.Dir, "program")
	out, err := os.Create(path)
	require.NoError(t, err)
	_, err = bufio.NewReader(text).WriteTo(out)
	require.NoError(t, err)
	require.NoError(t, out.Close())

	agent := exec.Command("/proc/self/exe")
	agent.Env = []string{roleName + "=agent", "PROGRAM=" + path, "MARK=" + p.Mark, "DIR=" + p.Dir}
	agent.Stderr = os.Stderr
	require.NoError(t, agent.Start())
	eventually(t, "the program begins", func() bool { _, err := os.Stat(filepath.Join(p.Dir, "pids")); return err == nil })
	require.NoError(t, agent.Process.Kill())
	_ = agent.Wait()

	left := pids(t, p, 4)
	for _, pid := range left {
		require.True(t, alive(pid), "a killed caller cannot have ended it")
	}
	require.NoError(t, patience{grace: 2 * time.Second, kill: time.Minute}.end(context.Background(), p.Mark))
	requireGone(t, left...)
	assert.FileExists(t, filepath.Join(p.Dir, "tidy"), "who listens has time")
	began := time.Now()
	require.NoError(t, End(context.Background(), p.Mark), "again, when nobody is left")
	assert.Less(t, time.Since(began), Grace)
}

func TestEndStopsWithItsContext(t *testing.T) {
	p := program(t, "")
	cmd := exec.Command("/bin/sh", "-c", "trap '' TERM; echo; while :; do read a </dev/null; sleep 0.05; done")
	cmd.Env = p.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // as programs are; the tests' own may be of an outer pid namespace
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, End(ctx, p.Mark), context.DeadlineExceeded)
	require.True(t, alive(cmd.Process.Pid))
	go cmd.Wait()
	require.NoError(t, quick.end(context.Background(), p.Mark))
	eventually(t, "it ends", func() bool { return !alive(cmd.Process.Pid) })
}

// TestDoesNotEnd gives no time to see that the killed process is gone: that is
// an error, and the process is taken in later.
func TestDoesNotEnd(t *testing.T) {
	p := program(t, "#!/bin/sh\ntrap '' TERM\necho $$ >tmp\nmv tmp pids\nwhile :; do :; done\n")
	p.Limit = time.Second
	ran, err := patience{}.run(context.Background(), p)
	require.ErrorContains(t, err, "cannot end all processes")
	pid := pids(t, p, 1)[0]
	require.ErrorContains(t, err, strconv.Itoa(pid))
	assert.True(t, ran.TimedOut)
	eventually(t, "it is taken in", func() bool { return unix.Kill(pid, 0) != nil })
}

// TestSomethingElseWaits has a caller that cannot learn how its children end.
func TestSomethingElseWaits(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{roleName + "=no children"}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err)
	require.Equal(t, "cannot tell how hello ended, something else waited for it: no child processes -1 1 false\n", string(out))
}

func TestMarksThatCouldMeanAnybody(t *testing.T) {
	for _, mark := range []string{"", "=", "PAWL_RUN", "PAWL_RUN=", "=x", "A=b\x00"} {
		assert.Error(t, End(context.Background(), mark), "%q", mark)
		p := program(t, "#!/bin/sh\n: >ran\n")
		p.Mark = mark
		p.Env = append(p.Env, mark)
		_, err := Run(context.Background(), p)
		assert.Error(t, err, "%q", mark)
		assert.NoFileExists(t, filepath.Join(p.Dir, "ran"))
	}
	p := program(t, "#!/bin/sh\n: >ran\n")
	p.Env = p.Env[:1]
	_, err := Run(context.Background(), p)
	assert.ErrorContains(t, err, "its mark is not in its environment")
	p = program(t, "#!/bin/sh\n: >ran\n")
	p.Limit = 0
	_, err = Run(context.Background(), p)
	assert.ErrorContains(t, err, "no time limit")
}
