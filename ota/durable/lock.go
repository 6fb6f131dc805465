package durable

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrLocked is returned by [Dir.Lock] when another process holds the folder
// and did not let go in time.
var ErrLocked = errors.New("the folder is locked")

// lockName is the file that is locked. It is never removed: two processes
// would hold locks on two files of that name.
const lockName = "lock"

// lockPoll is the longest time between two tries.
const lockPoll = 100 * time.Millisecond

// Lock takes the folder for this Dir, waiting at most wait or until ctx ends.
// The system lets go of it when the process ends, however it does. Having it,
// Lock removes what a power cut left half written and sees to the reserve for
// a full disk. unlock may be called once.
func (d *Dir) Lock(ctx context.Context, wait time.Duration) (unlock func() error, err error) {
	f, err := d.root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the state folder: %w", err)
	}
	if err := waitLock(ctx, f, wait); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	writePID(f)
	if err := d.sweep(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	d.replenish()
	return f.Close, nil
}

func waitLock(ctx context.Context, f *os.File, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for {
		err := flock(f)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("cannot lock %s: %w", f.Name(), err)
		}
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("cannot lock %s: %w by process %s", f.Name(), ErrLocked, readPID(f))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot lock %s: %w by process %s: %w", f.Name(), ErrLocked, readPID(f), context.Cause(ctx))
		case <-time.After(min(left, lockPoll)):
		}
	}
}

// writePID is for people who look who holds the lock; nothing depends on it.
func writePID(f *os.File) {
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
}

func readPID(f *os.File) string {
	data, _ := io.ReadAll(io.NewSectionReader(f, 0, 32))
	if n, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil {
		return strconv.Itoa(n)
	}
	return "unknown"
}

// sweep removes the files that never got their name, at the top and in the
// folders below it.
func (d *Dir) sweep() error {
	folders, err := sweepIn(d.root, ".")
	if err != nil {
		return err
	}
	for _, name := range folders {
		if _, err := sweepIn(d.root, name); err != nil {
			return err
		}
	}
	return nil
}

// sweepIn returns the folders that it saw. Garbage needs no fsync: what comes
// back after a power cut is swept the next time.
func sweepIn(root *os.Root, folder string) (folders []string, err error) {
	f, err := root.Open(folder)
	if err != nil {
		return nil, fmt.Errorf("cannot sweep the state folder: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, fmt.Errorf("cannot sweep the state folder: %w", err)
	}
	for _, e := range entries {
		switch {
		case e.IsDir():
			folders = append(folders, e.Name())
		case strings.HasPrefix(e.Name(), tempPrefix):
			if err := root.Remove(folder + "/" + e.Name()); err != nil {
				return nil, fmt.Errorf("cannot sweep the state folder: %w", err)
			}
		}
	}
	return folders, nil
}
