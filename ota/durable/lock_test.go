package durable

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// holdEnv names the folder that this program, started again by a test, locks
// until its input ends.
const holdEnv = "PAWL_TEST_HOLD"

func TestMain(m *testing.M) {
	if path := os.Getenv(holdEnv); path != "" {
		hold(path)
		return
	}
	os.Exit(m.Run())
}

func hold(path string) {
	d, err := OpenDir(path)
	if err == nil {
		_, err = d.Lock(context.Background(), time.Second)
	}
	fmt.Println(err)
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
}

// holder starts a process that holds the lock of path.
func holder(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"="+path)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "<nil>\n", line)
	return cmd
}

func TestLockOfAnotherProcess(t *testing.T) {
	path := t.TempDir() + "/state"
	other := holder(t, path)
	d := open(t, path)

	start := time.Now()
	_, err := d.Lock(context.Background(), 150*time.Millisecond)
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorContains(t, err, "by process "+strconv.Itoa(other.Process.Pid))
	require.GreaterOrEqual(t, time.Since(start), 150*time.Millisecond)

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = d.Lock(ctx, time.Hour)
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, d.WriteFile("readable", nil))

	got := make(chan error, 1)
	go func() {
		_, err := d.Lock(context.Background(), time.Minute)
		got <- err
	}()
	require.NoError(t, other.Process.Kill())
	require.NoError(t, <-got, "a killed process lets go")
}

func TestLockWithinOneProcess(t *testing.T) {
	path := t.TempDir() + "/state"
	one, two := open(t, path), open(t, path)
	unlock, err := one.Lock(context.Background(), 0)
	require.NoError(t, err)
	_, err = two.Lock(context.Background(), 0)
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, unlock())
	unlock, err = two.Lock(context.Background(), 0)
	require.NoError(t, err)
	require.NoError(t, unlock())
}

func TestLockIsNoLink(t *testing.T) {
	outside, path := t.TempDir()+"/victim", t.TempDir()+"/state"
	d := open(t, path)
	require.NoError(t, os.WriteFile(outside, []byte("untouched"), 0o600))
	require.NoError(t, os.Symlink(outside, path+"/lock"))
	_, err := d.Lock(context.Background(), 0)
	require.Error(t, err)
	require.Equal(t, "untouched", read(t, outside))
}
