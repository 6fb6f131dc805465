package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/ota"
)

// health returns a check of the services of every component, where there is
// a supervisor to ask, of every app, and of all probes; nil where there is nothing
// to ask.
func (a *agent) health() ota.Check {
	probes := healthOf(a.config.Health)
	if a.config.Supervisor == nil && len(a.apps()) == 0 {
		return probes
	}
	return func(ctx context.Context) error {
		for _, name := range slices.Sorted(maps.Keys(a.backends)) {
			if err := a.checkPart(ctx, name); err != nil {
				return err
			}
		}
		if probes == nil {
			return nil
		}
		return probes(ctx)
	}
}

// checkPart asks how one component is.
func (a *agent) checkPart(ctx context.Context, name string) error {
	switch b := a.backends[name].(type) {
	case app:
		if err := b.Healthy(ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	case *micro.Files:
		if a.config.Supervisor != nil {
			return b.CheckServices(ctx)
		}
	}
	return nil
}

// healthOf returns a check that runs each probe in turn, or nil when there are
// none.
func healthOf(probes []probe) ota.Check {
	if len(probes) == 0 {
		return nil
	}
	return func(ctx context.Context) error {
		for _, p := range probes {
			if err := runProbe(ctx, p.Exec); err != nil {
				return err
			}
		}
		return nil
	}
}

// probeEnv is all that a probe gets of an environment, so that it behaves the
// same whoever started the agent.
var probeEnv = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "PAWL_PHASE=health"}

// runProbe runs one program in a process group of its own. When ctx ends the
// whole group is killed; whatever left the group and still holds the output
// open is waited for a second longer.
func runProbe(ctx context.Context, argv []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	out := &tail{max: 512}
	cmd.Env, cmd.Stdout, cmd.Stderr = probeEnv, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s did not answer in time and was killed%s", argv[0], out.quoted())
	case errors.Is(err, exec.ErrWaitDelay):
		return fmt.Errorf("%s ended and left a process behind that holds its output%s", argv[0], out.quoted())
	}
	return fmt.Errorf("%s: %w%s", argv[0], err, out.quoted())
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

// quoted returns the last line that is not empty, for an error message.
func (t *tail) quoted() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(bytes.ToValidUTF8(t.data, []byte("?")))), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	if last == "" {
		return ""
	}
	return fmt.Sprintf(": %q", last)
}
