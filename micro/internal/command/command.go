//go:build linux

// Package command runs the commands of supervisors: to their end, within a
// time, with a bounded output and no shell.
package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// maxOutput is what is kept of an output, its begin.
const maxOutput = 64 << 10

// endGrace is how long a command that was killed, and whatever holds its
// output, is waited for.
const endGrace = time.Second

// Run runs a command and returns its exit code and output. The error is that
// it could not be run, or was ended because ctx did, or by a signal.
func Run(ctx context.Context, argv, env []string) (exit int, output string, err error) {
	if err := ctx.Err(); err != nil {
		return -1, "", err
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	out := &head{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/", "LANG=C"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = endGrace
	err = cmd.Run()
	text := strings.TrimSpace(out.kept.String())
	if ctx.Err() != nil {
		return -1, text, fmt.Errorf("%s: %w", strings.Join(argv, " "), ctx.Err())
	}
	if e, ok := errors.AsType[*exec.ExitError](err); ok && e.Exited() {
		return e.ExitCode(), text, nil
	}
	if errors.Is(err, exec.ErrWaitDelay) { // it ended, and left somebody with its output
		return 0, text, nil
	}
	if err != nil {
		return -1, text, fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return 0, text, nil
}

// Failed is the error of a command that ended with an exit code.
func Failed(argv []string, exit int, output string) error {
	const most = 500
	if len(output) > most {
		output = "..." + output[len(output)-most:]
	}
	return fmt.Errorf("%s: exit status %d: %s", strings.Join(argv, " "), exit, output)
}

// head keeps the begin of what is written to it. It shows no other method of
// its buffer: what copies to it would take the one that has no bound.
type head struct{ kept bytes.Buffer }

func (h *head) Write(p []byte) (int, error) {
	if room := maxOutput - h.kept.Len(); room > 0 {
		h.kept.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}
