package durable

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mountInfo is one line of /proc/self/mountinfo, as far as it matters here.
type mountInfo struct {
	point   string
	fs      string
	options []string // of the mount and of the file system
}

// Durable returns an error that wraps ErrVolatile when the mount that path
// lies on is known not to keep what it acknowledged: a file system in memory,
// an overlay mounted volatile or with its upper folder in memory, a mount
// without barriers. A nil error promises nothing about the drive below it.
// Where there is no /proc the answer is nil.
func Durable(path string) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("cannot find the mount of %s: %w", path, err)
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return volatile(parseMounts(string(data)), path, 0)
}

// volatile looks through at most three overlays on top of each other.
func volatile(mounts []mountInfo, path string, depth int) error {
	m, ok := mountOf(mounts, path)
	if !ok || depth > 3 {
		return nil
	}
	switch {
	case m.fs == "tmpfs" || m.fs == "ramfs" || m.fs == "devtmpfs":
		return fmt.Errorf("%w: %s is %s", ErrVolatile, m.point, m.fs)
	case m.has("nobarrier") || m.has("barrier=0"):
		return fmt.Errorf("%w: %s is mounted without barriers", ErrVolatile, m.point)
	case m.fs == "overlay" && m.has("volatile"):
		return fmt.Errorf("%w: %s is a volatile overlay", ErrVolatile, m.point)
	case m.fs == "overlay":
		return volatile(mounts, m.upper(), depth+1)
	}
	return nil
}

func (m mountInfo) has(option string) bool { return slices.Contains(m.options, option) }

// upper returns the folder that an overlay writes to, if it is known by its
// name here.
func (m mountInfo) upper() string {
	for _, o := range m.options {
		if dir, ok := strings.CutPrefix(o, "upperdir="); ok && dir != m.point {
			return dir
		}
	}
	return ""
}

// mountOf returns the mount that path lies on: the longest mount point above
// it, and the last one mounted there.
func mountOf(mounts []mountInfo, path string) (best mountInfo, ok bool) {
	for _, m := range mounts {
		below := m.point == "/" || path == m.point || strings.HasPrefix(path, m.point+"/")
		if path != "" && below && len(m.point) >= len(best.point) {
			best, ok = m, true
		}
	}
	return best, ok
}

// parseMounts reads mountinfo as proc(5) describes it. Lines of another shape
// are left out.
func parseMounts(text string) []mountInfo {
	var mounts []mountInfo
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(line, " - ")
		b, a := strings.Fields(before), strings.Fields(after)
		if !ok || len(b) < 6 || len(a) < 3 {
			continue
		}
		mounts = append(mounts, mountInfo{
			point:   unescape(b[4]),
			fs:      a[0],
			options: append(strings.Split(unescape(b[5]), ","), strings.Split(unescape(a[2]), ",")...),
		})
	}
	return mounts
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
