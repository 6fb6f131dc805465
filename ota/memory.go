package ota

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Memory goes by what the kernel says is available without swapping, and by
// what the groups of this process leave of their limits (cgroups, version 2).
func (machine) Memory() (held, available int64, err error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0, fmt.Errorf("cannot tell how much memory there is: %w", err)
	}
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, fmt.Errorf("cannot tell how much memory there is: %w", err)
	}
	held, _ = kibibytes(status, "VmRSS:")
	available, ok := kibibytes(info, "MemAvailable:")
	if !ok { // before Linux 3.14
		free, _ := kibibytes(info, "MemFree:")
		cached, _ := kibibytes(info, "Cached:")
		available = free + cached
	}
	return held, min(available, groupLeft("/sys/fs/cgroup", "/proc/self/cgroup")), nil
}

// kibibytes returns the value of a line "name n kB" in bytes.
func kibibytes(data []byte, name string) (int64, bool) {
	for line := range bytes.Lines(data) {
		fields := strings.Fields(string(line))
		if len(fields) == 3 && fields[0] == name {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			return n << 10, err == nil
		}
	}
	return 0, false
}

// groupLeft returns what the groups below root that the file self names leave
// of their limits, files that the kernel can drop counted as left.
func groupLeft(root, self string) int64 {
	left := int64(math.MaxInt64)
	data, err := os.ReadFile(self)
	if err != nil {
		return left
	}
	for line := range strings.Lines(string(data)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::/")
		for ; ok && path != "."; path = filepath.Dir(path) {
			left = min(left, oneGroupLeft(filepath.Join(root, path)))
			if path == "" {
				break
			}
		}
	}
	return left
}

func oneGroupLeft(dir string) int64 {
	limit, err := readNumber(filepath.Join(dir, "memory.max"))
	if err != nil { // no limit, or no such group here
		return math.MaxInt64
	}
	used, err := readNumber(filepath.Join(dir, "memory.current"))
	if err != nil {
		return math.MaxInt64
	}
	return max(0, limit-used+droppable(dir))
}

// droppable is how much of a group's memory holds files nobody looked at lately.
func droppable(dir string) int64 {
	data, err := os.ReadFile(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "inactive_file "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
			return n
		}
	}
	return 0
}

// readNumber reads a file that holds one number.
func readNumber(path string) (int64, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	if err != nil {
		return 0, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
}
