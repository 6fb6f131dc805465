package probe

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pawl-ota/pawl/monitor"
)

// fixedEnv is all that a command gets of an environment, so that it answers the
// same whoever asks.
var fixedEnv = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}

// Exec is a command that has to exit with 0. It runs in a process group of
// its own, which is killed when its time is over.
type Exec struct {
	Args []string // the program and its arguments
	Dir  string
	// Env is added to PATH and LANG, which are all it gets otherwise.
	Env []string
}

// Ask returns the question. What it saw is the last line of the command's
// output.
func (e Exec) Ask() monitor.Ask {
	return func(ctx context.Context) (string, error) {
		out := &tail{max: 512}
		err := e.run(ctx, out)
		return lastLine(out.text()), err
	}
}

// run waits for the end of the command, and then a second for whoever left its
// group and still holds the output.
func (e Exec) run(ctx context.Context, out *tail) error {
	if len(e.Args) == 0 {
		return errors.New("there is no command")
	}
	cmd := exec.CommandContext(ctx, e.Args[0], e.Args[1:]...)
	cmd.Dir, cmd.Env = e.Dir, append(append([]string(nil), fixedEnv...), e.Env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s did not answer in time and was killed", e.Args[0])
	case errors.Is(err, exec.ErrWaitDelay):
		return fmt.Errorf("%s ended and left a process behind that holds its output", e.Args[0])
	}
	return fmt.Errorf("%s: %w", e.Args[0], err)
}

// tail keeps the last max bytes that are written to it.
type tail struct {
	max int

	mu   sync.Mutex
	data []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p[max(0, len(p)-t.max):]...)
	t.data = t.data[max(0, len(t.data)-t.max):]
	return len(p), nil
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.data)
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
}
