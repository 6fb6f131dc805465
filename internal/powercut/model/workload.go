//go:build linux && (amd64 || arm64)

package model

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// Workload is something whose every crash is to be looked at.
type Workload struct {
	Name  string
	asked string // the name that a process finds it by, if that is another one
	// Prepare makes the disk that it starts with, as the folder disk. Where its
	// inodes are copies that the program knows by what they were, it writes the file
	// inodesName beside it.
	Prepare func(ctx context.Context, disk string) error
	// Processes are what runs on it, one after the other.
	Processes []Process
	// Next are processes of which one comes after the first one, where that is
	// killed anywhere: see KilledAfter.
	Next []Process
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
	// Name is empty for one that is known by its number.
	Name string
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
	p := w.process(process)
	if p == nil {
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
	return p.Run(context.Background(), disk, fact)
}

// id is what a process that is recorded is told to be.
func (p *Process) id(n int) string { return cmp.Or(p.Name, strconv.Itoa(n)) }

// process returns the one with the id, or nil.
func (w *Workload) process(id string) *Process {
	for _, list := range [][]Process{w.Processes, w.Next} {
		for n := range list {
			if list[n].id(n) == id {
				return &list[n]
			}
		}
	}
	return nil
}

// KilledAfter is the workload whose first process is killed after so many calls
// that changed the disk, and one of the next goes on, without a boot in between:
// what the first one did not sync is open as long as the other one does not.
func (w Workload) KilledAfter(calls int) Workload {
	k := w.killed(func(h *History) bool { return len(h.ops) >= calls }, calls%len(w.Next))
	k.asked = w.Name
	k.Name = fmt.Sprintf("%s, killed after %d calls", w.Name, calls)
	return k
}

// killed has the first process killed at a moment.
func (w Workload) killed(at func(*History) bool, next int) Workload {
	first := w.Processes[0]
	first.Kill = at
	w.Processes = []Process{first, w.Next[next]}
	return w
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
		cmd, err := self(ctx, append(env, envWorkload+"="+cmp.Or(w.asked, w.Name), envBase+"="+base, envInodes+"="+inodes, envProcess+"="+p.id(n))...)
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
	cmd, err := self(ctx, envWorkload+"="+cmp.Or(w.asked, w.Name), envBase+"="+base, envProcess+"="+recovery, envInodes+"="+inodes)
	if err == nil {
		err = r.run(ctx, cmd, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("recovery of %s: %w", w.Name, err)
	}
	return r.h, nil
}
