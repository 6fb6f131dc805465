//go:build linux && (amd64 || arm64)

package outbox

import (
	"bytes"
	"context"
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

	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/internal/trace"
)

const killedRole = "PAWL_OUTBOX_KILLED"

// killed is one process of keeping, which says its facts.
func killed(role, disk string) int {
	n, err := strconv.Atoi(role)
	if err == nil {
		err = keeping().Processes[n].Run(context.Background(), disk, func(fact string) error {
			_, err := fmt.Println(fact)
			return err
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// TestKilledAtEachCall kills the process before and after each system call that
// changes something, or has the call fail: a result that Flush had waited for
// arrives, in order, and no id is ever of two events. In CI at one call in four,
// with PAWL_CRASH=long at every one.
func TestKilledAtEachCall(t *testing.T) {
	if err := trace.Available(); errors.Is(err, trace.ErrUnavailable) {
		testneeds.Missing(t, "to trace processes: "+err.Error())
	}
	step := 4
	switch {
	case os.Getenv("PAWL_CRASH") == "long":
		step = 1
	case testing.Short() || os.Geteuid() != 0:
		step = 12
	}
	c := &killer{t: t, dir: scratch(t)}
	before := c.fresh()
	for _, role := range []int{0, 1, 3} {
		whole := c.run(before, role, nil)
		require.False(t, whole.Killed)
		points := whole.Calls
		for n := 1; n <= points; n += step {
			for _, action := range []trace.Action{trace.KillBefore, trace.KillAfter, trace.Fail(syscall.EIO), trace.Fail(syscall.ENOSPC)} {
				c.run(before, role, func(call *trace.Call) trace.Action {
					if call.N == n {
						return action
					}
					return trace.Continue
				})
			}
		}
		t.Logf("process %d: %d calls", role, points)
		c.run(before, role, nil)
		before = c.keep(role)
	}
	t.Logf("kill: %d kills and %d errors, %d violations", c.kills, c.errors, c.bad)
}

// killer runs processes on copies of a disk.
type killer struct {
	t     *testing.T
	dir   string
	facts []string // of the processes that came before
	said  []string // of the last one

	kills, errors, bad int
}

func scratch(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "pawl-outbox-")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// fresh is a disk with nothing on it.
func (c *killer) fresh() string {
	disk := filepath.Join(c.dir, "fresh")
	require.NoError(c.t, os.Mkdir(disk, 0o700))
	return disk
}

// run takes a process through a copy of the disk before it, and looks at what
// became of it.
func (c *killer) run(before string, role int, fault func(*trace.Call) trace.Action) trace.Exit {
	t, disk := c.t, filepath.Join(c.dir, "disk")
	require.NoError(t, os.RemoveAll(disk))
	require.NoError(t, os.CopyFS(disk, os.DirFS(before)))
	tighten(t, disk)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, said bytes.Buffer
	cmd := exec.Command("/proc/self/exe", disk)
	cmd.Env = append(os.Environ(), killedRole+"="+strconv.Itoa(role))
	cmd.Stdout, cmd.Stderr = &out, &said
	var at *trace.Call
	exit, err := trace.Run(ctx, cmd, trace.Options{Below: disk, Before: func(call *trace.Call) trace.Action {
		if fault == nil {
			return trace.Continue
		}
		a := fault(call)
		if a != trace.Continue {
			at = call
		}
		return a
	}})
	require.NoError(t, err)
	if c.said = strings.Split(strings.TrimSpace(out.String()), "\n"); out.Len() == 0 {
		c.said = nil
	}
	switch {
	case fault == nil: // the copy stays as it is for whoever comes next
		require.Zero(t, exit.Status.ExitStatus(), said.String())
		return exit
	case exit.Killed:
		c.kills++
	case at != nil:
		c.errors++
	}
	if err := afterCut(ctx, disk, append(c.facts[:len(c.facts):len(c.facts)], c.said...), 0); err != nil {
		c.bad++
		t.Errorf("process %d, %v: %v: %v", role, at, exit.Status, err)
	}
	return exit
}

// tighten gives folders the modes that a copy has not.
func tighten(t *testing.T, disk string) {
	require.NoError(t, filepath.WalkDir(disk, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o700)
		}
		return err
	}))
}

// keep has the disk of the last run be that before the next process.
func (c *killer) keep(role int) string {
	to := filepath.Join(c.dir, fmt.Sprint("after", role))
	require.NoError(c.t, os.Rename(filepath.Join(c.dir, "disk"), to))
	c.facts = append(c.facts, c.said...)
	return to
}
