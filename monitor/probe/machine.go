package probe

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/monitor"
)

// Disk is what has to be free on the file system of Path, for somebody who is
// not root. A field that is 0 asks for nothing.
type Disk struct {
	Path        string
	FreeBytes   int64
	FreePercent float64
	FreeInodes  int64
}

// Ask returns the question.
func (d Disk) Ask() monitor.Ask {
	return func(context.Context) (string, error) {
		var f unix.Statfs_t
		if err := unix.Statfs(d.Path, &f); err != nil {
			return "", fmt.Errorf("cannot ask for the free space at %s: %w", d.Path, err)
		}
		free, percent := int64(f.Bavail)*int64(f.Bsize), 0.0
		if f.Blocks > 0 {
			percent = 100 * float64(f.Bavail) / float64(f.Blocks)
		}
		saw := fmt.Sprintf("%s has %d bytes (%.1f %%) and %d inodes free", d.Path, free, percent, f.Ffree)
		switch {
		case free < d.FreeBytes:
			return saw, fmt.Errorf("less than %d bytes are free", d.FreeBytes)
		case percent < d.FreePercent:
			return saw, fmt.Errorf("less than %g %% are free", d.FreePercent)
		case f.Files > 0 && int64(f.Ffree) < d.FreeInodes: // a file system that makes inodes as it needs them has none
			return saw, fmt.Errorf("less than %d inodes are free", d.FreeInodes)
		}
		return saw, nil
	}
}

// Memory is how much memory has to be available, as the kernel estimates it. A
// field that is 0 asks for nothing.
type Memory struct {
	AvailableBytes   int64
	AvailablePercent float64

	path string // in place of /proc/meminfo, for tests
}

// Ask returns the question.
func (m Memory) Ask() monitor.Ask {
	if m.path == "" {
		m.path = "/proc/meminfo"
	}
	return func(context.Context) (string, error) {
		data, err := readFile(m.path, 16<<10)
		if err != nil {
			return "", fmt.Errorf("cannot ask for the memory: %w", err)
		}
		available, total := kilobytes(data, "MemAvailable:"), kilobytes(data, "MemTotal:")
		if available < 0 || total <= 0 {
			return "", fmt.Errorf("%s does not say what is available", m.path)
		}
		percent := 100 * float64(available) / float64(total)
		saw := fmt.Sprintf("%d bytes (%.1f %%) of memory are available", available, percent)
		switch {
		case available < m.AvailableBytes:
			return saw, fmt.Errorf("less than %d bytes are available", m.AvailableBytes)
		case percent < m.AvailablePercent:
			return saw, fmt.Errorf("less than %g %% are available", m.AvailablePercent)
		}
		return saw, nil
	}
}

// kilobytes returns a value of /proc/meminfo in bytes, or -1.
func kilobytes(data []byte, key string) int64 {
	for l := range strings.Lines(string(data)) {
		rest, ok := strings.CutPrefix(l, key)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 50)
		if err != nil || n < 0 {
			return -1
		}
		return n << 10
	}
	return -1
}

// Temperature is how hot a sensor may be.
type Temperature struct {
	// Sensors is the pattern of files with thousandths of a degree Celsius;
	// empty means "/sys/class/thermal/thermal_zone*/temp".
	Sensors string
	Max     float64 // degrees Celsius
}

// Ask returns the question. A device without any such sensor fails it.
func (t Temperature) Ask() monitor.Ask {
	if t.Sensors == "" {
		t.Sensors = "/sys/class/thermal/thermal_zone*/temp"
	}
	return func(context.Context) (string, error) {
		paths, err := filepath.Glob(t.Sensors)
		if err != nil {
			return "", fmt.Errorf("pattern %s: %w", t.Sensors, err)
		}
		read, hottest, where := 0, 0.0, ""
		for _, p := range paths {
			degrees, ok := celsius(p)
			if !ok { // a zone that is switched off cannot be read
				continue
			}
			if read++; read == 1 || degrees > hottest {
				hottest, where = degrees, p
			}
		}
		if read == 0 {
			return "", errors.New("there is no sensor that can be read")
		}
		saw := fmt.Sprintf("%.1f °C at %s", hottest, where)
		if hottest > t.Max {
			return saw, fmt.Errorf("hotter than %g °C", t.Max)
		}
		return saw, nil
	}
}

func celsius(path string) (float64, bool) {
	data, err := readFile(path, 32)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 32)
	return float64(n) / 1000, err == nil
}
