//go:build linux && (amd64 || arm64)

package model

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Workload is something whose every crash is to be looked at.
type Workload struct {
	Name string
	// Prepare makes the disk that it starts with, as the folder disk. Where its
	// inodes are copies that the program knows by what they were, it writes the file
	// inodesName beside it.
	Prepare func(ctx context.Context, disk string) error
	// Processes are what runs on it, one after the other.
	Processes []Process
	// Check starts the program on a disk after a crash, as a device starts
	// after the power came back, and says what is wrong. Facts were acknowledged
	// before the crash, in this order. sample is higher by one for each state.
	Check func(ctx context.Context, disk string, facts []string, sample int) error
	// Recover, if it is there, is the part of Check that changes the disk: it
	// is recorded for crashes in the recovery.
	Recover func(ctx context.Context, disk string) error
}

// Process is one process of a workload.
type Process struct {
	// Run works on the disk. What it tells fact has to hold from then on.
	Run func(ctx context.Context, disk string, fact func(string) error) error
	// Kill, if it is there, says before each call whether it is killed now.
	Kill func(*History) bool
}

// The environment of a process that is recorded.
const (
	envWorkload = "PAWL_MODEL_WORKLOAD"
	envProcess  = "PAWL_MODEL_PROCESS"
	envBase     = "PAWL_MODEL_BASE"
	envInodes   = "PAWL_MODEL_INODES"
	recovery    = "recovery" // in place of the number of a process
)

// Child runs the part of a workload that the environment asks for: a test binary
// that records starts itself again, and its TestMain calls this first. ran is
// false in a process that was not started for that.
func Child(all []Workload) (ran bool, err error) {
	name := os.Getenv(envWorkload)
	if name == "" {
		return false, nil
	}
	n := slices.IndexFunc(all, func(w Workload) bool { return w.Name == name })
	if n < 0 {
		return true, fmt.Errorf("no workload has the name %q", name)
	}
	return true, child(&all[n], os.Getenv(envBase), os.Getenv(envProcess))
}

func child(w *Workload, base, process string) error {
	x, err := readKnown(os.Getenv(envInodes))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	defer x.install()()
	disk := filepath.Join(base, diskName)
	if process == recovery {
		return w.Recover(context.Background(), disk)
	}
	var n int
	if _, err := fmt.Sscan(process, &n); err != nil || n >= len(w.Processes) {
		return fmt.Errorf("no process is %q", process)
	}
	facts, err := os.OpenFile(filepath.Join(base, factsName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer facts.Close()
	fact := func(text string) error {
		_, err := fmt.Fprintln(facts, text)
		return err
	}
	watchSites(fact)
	return w.Processes[n].Run(context.Background(), disk, fact)
}

// Record runs the workload in the folder base, which must be empty, and returns
// what it did. The environment env is added to that of its processes.
func (w *Workload) Record(ctx context.Context, base string, env ...string) (*History, error) {
	if err := w.Prepare(ctx, filepath.Join(base, diskName)); err != nil {
		return nil, fmt.Errorf("cannot prepare %s: %w", w.Name, err)
	}
	inodes := filepath.Join(base, inodesName)
	x, err := readKnown(inodes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	r, err := newRecorder(base, x.show)
	if err != nil {
		return nil, err
	}
	for n, p := range w.Processes {
		cmd, err := self(ctx, append(env, envWorkload+"="+w.Name, envBase+"="+base, envInodes+"="+inodes, fmt.Sprintf("%s=%d", envProcess, n))...)
		if err != nil {
			return nil, err
		}
		if err := r.run(ctx, cmd, p.Kill); err != nil {
			return nil, fmt.Errorf("%s, process %d: %w", w.Name, n, err)
		}
	}
	return r.h, nil
}

// recordRecovery lays a state out in the folder base, and records how the
// program recovers from it.
func (w *Workload) recordRecovery(ctx context.Context, base string, disk []Entry) (*History, error) {
	x := &known{}
	if err := newLayout(filepath.Join(base, diskName), x).lay(disk); err != nil {
		return nil, err
	}
	inodes := filepath.Join(base, inodesName)
	if err := x.write(inodes); err != nil {
		return nil, err
	}
	r, err := newRecorder(base, x.show)
	if err != nil {
		return nil, err
	}
	cmd, err := self(ctx, envWorkload+"="+w.Name, envBase+"="+base, envProcess+"="+recovery, envInodes+"="+inodes)
	if err == nil {
		err = r.run(ctx, cmd, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("recovery of %s: %w", w.Name, err)
	}
	return r.h, nil
}
