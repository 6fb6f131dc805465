package ota

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/script"
	"github.com/pawl-ota/pawl/internal/seam"
)

// machine is the real host.
type machine struct{}

func (machine) Boot() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("cannot tell which boot this is: %w", err)
	}
	return string(bytes.TrimSpace(id)), nil
}

// program is new each time a program starts. Pid and start time would not do:
// both stay when execve puts a new program into the same process.
var program = rand.Text()

func (machine) Process() (string, error) { return program, nil }

func (machine) Now() time.Time { return time.Now() }

func (machine) Uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

func (machine) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Space asks the file system of path, or of the nearest folder above it that
// exists.
func (machine) Space(path string) (int64, int64, string, error) {
	for {
		var f unix.Statfs_t
		var st unix.Stat_t
		err := unix.Statfs(path, &f)
		if err == nil {
			err = unix.Stat(path, &st)
		}
		if errors.Is(err, fs.ErrNotExist) && filepath.Dir(path) != path {
			path = filepath.Dir(path)
			continue
		}
		if err != nil {
			return 0, 0, "", fmt.Errorf("cannot ask for the free space at %s: %w", path, err)
		}
		inodes := int64(f.Ffree)
		if f.Files == 0 { // btrfs makes inodes as it needs them
			inodes = 1 << 40
		}
		return int64(f.Bavail) * int64(f.Bsize), inodes, strconv.FormatUint(uint64(st.Dev), 16), nil
	}
}

func (machine) Run(ctx context.Context, p seam.Program) (seam.Ran, error) {
	return script.Run(ctx, p)
}

func (machine) End(ctx context.Context, mark string) error { return script.End(ctx, mark) }
