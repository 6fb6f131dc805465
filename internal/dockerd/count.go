//go:build linux

package dockerd

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Written is how many bytes the engine, its containers and all that they started
// had written to disks, as the kernel counts them: pages that were made dirty.
func (e *Engine) Written() (sum int64) {
	pid, err := e.inside()
	if err != nil {
		return 0
	}
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return 0
	}
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range all {
		if ns, err := os.Readlink(p + "/ns/pid"); err != nil || ns != own {
			continue
		}
		data, _ := os.ReadFile(p + "/io")
		sum += field(string(data), "write_bytes:", 0)
	}
	return sum
}

// Received is how many bytes had come in on the loopback of the engine's network,
// where its registry is.
func (e *Engine) Received() int64 {
	pid, err := e.inside()
	if err != nil {
		return 0
	}
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	return field(string(data), "lo:", 0)
}

// field is the nth number behind a word at the begin of a line.
func field(text, word string, n int) int64 {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) > n+1 && fields[0] == word {
			v, _ := strconv.ParseInt(fields[n+1], 10, 64)
			return v
		}
	}
	return 0
}
