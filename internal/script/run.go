//go:build linux

package script

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/seam"
)

// patience is how long processes that are to end get.
type patience struct {
	grace time.Duration // from SIGTERM to SIGKILL
	kill  time.Duration // from SIGKILL to the error that they do not end
}

// usual is what a device gets; tests take less.
func usual() patience { return patience{grace: Grace, kill: 10 * time.Second} }

// Run runs a program to its end, as [seam.Host] says. After a time-out or the
// end of ctx all of its processes are told to stop and have 5 seconds for it,
// also those that the program's first process did not wait for; after the end
// of the first process by itself the others are killed at once. Ran.Left counts
// the processes that had to be killed besides the first. The end of ctx is an
// error only before the start.
func Run(ctx context.Context, p seam.Program) (seam.Ran, error) {
	return usual().run(ctx, p)
}

// End ends the processes of a Run with the mark whose caller is dead, as
// [seam.Host] says: they are told to stop, and killed after 5 seconds. Many are
// gone before, by SIGPIPE: nobody reads their output since their caller died.
func End(ctx context.Context, mark string) error { return usual().end(ctx, mark) }

func (t patience) end(ctx context.Context, mark string) error {
	s, err := newSweep(mark)
	if err != nil {
		return err
	}
	if err := s.terminate(ctx, t.grace); err != nil {
		return err
	}
	_, err = s.kill(ctx, t.kill)
	return err
}

func (t patience) run(ctx context.Context, p seam.Program) (seam.Ran, error) {
	none := seam.Ran{Exit: -1}
	if err := check(p); err != nil {
		return none, err
	}
	s, err := newSweep(p.Mark)
	if err != nil {
		return none, err
	}
	file, err := load(p)
	if err != nil {
		return none, err
	}
	defer file.Close()
	out, err := newOutput(p.MaxOutput)
	if err != nil {
		return none, err
	}
	ran, err := t.supervise(ctx, s, p, file, out)
	out.close()
	ran.Output, ran.Cut = out.bytes(), out.cut
	return ran, err
}

// check refuses what would run without a limit, or could not be found again.
func check(p seam.Program) error {
	switch {
	case p.Limit <= 0:
		return fmt.Errorf("cannot start %s: it has no time limit", p.Name)
	case !slices.Contains(p.Env, p.Mark):
		return fmt.Errorf("cannot start %s: its mark is not in its environment", p.Name)
	}
	return nil
}

// supervise starts the program, waits for its end, and ends the rest of it.
func (t patience) supervise(ctx context.Context, s *sweep, p seam.Program, file *os.File, out *output) (seam.Ran, error) {
	ran := seam.Ran{Exit: -1}
	if err := ctx.Err(); err != nil {
		return ran, fmt.Errorf("cannot start %s: %w", p.Name, err)
	}
	began := time.Now()
	pid, err := start(p, file, out.w)
	if err != nil {
		return ran, err
	}
	s.own(watch(pid))
	limit := time.NewTimer(p.Limit)
	defer limit.Stop()
	sweeping := context.WithoutCancel(ctx)
	select {
	case <-s.leader.ended:
	case <-limit.C:
		ran.TimedOut = true
		_ = s.terminate(sweeping, t.grace) // kill meets what it met
	case <-ctx.Done():
		_ = s.terminate(sweeping, t.grace)
	}
	left, killErr := s.kill(sweeping, t.kill)
	ran.Left, ran.Took = left, time.Since(began)
	if !s.leader.hasEnded() {
		go s.leader.reap() // whenever that may be
		return ran, fmt.Errorf("%s: %w", p.Name, killErr)
	}
	status, reapErr := s.leader.reap()
	switch {
	case reapErr != nil:
		return ran, fmt.Errorf("cannot tell how %s ended, something else waited for it: %w", p.Name, reapErr)
	case killErr != nil:
		err = fmt.Errorf("%s: %w", p.Name, killErr)
	}
	ran.Exit, ran.Signal = status.ExitStatus(), signalName(status)
	return ran, err
}

// signalName returns the name of the signal that ended a process, like SIGKILL;
// empty when it was none.
func signalName(status unix.WaitStatus) string {
	if !status.Signaled() {
		return ""
	}
	if name := unix.SignalName(status.Signal()); name != "" {
		return name
	}
	return "signal " + strconv.Itoa(int(status.Signal()))
}
