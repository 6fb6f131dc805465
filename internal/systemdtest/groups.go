//go:build linux

package systemdtest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Cut ends the manager and all it started, as a power cut does.
func (m *Manager) Cut() {
	if m.cmd == nil {
		return
	}
	m.cmd = nil
	tick, limit := time.NewTicker(10*time.Millisecond), time.After(patience)
	defer tick.Stop()
	for {
		pids := m.processes()
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if len(pids) == 0 {
			break
		}
		select {
		case <-tick.C:
		case <-limit:
			m.t.Fatalf("processes do not end within %v:\n%s", patience, m.where())
		}
	}
	m.must(os.RemoveAll(filepath.Join(m.Run, "systemd")))
}

// groups are the folders of its control groups, those above before those below.
func (m *Manager) groups() (all []string) {
	for _, pattern := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/"} {
		found, _ := filepath.Glob(pattern + m.group)
		for _, g := range found {
			_ = filepath.WalkDir(g, func(path string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					all = append(all, path)
				}
				return nil
			})
		}
	}
	return all
}

// processes are all that are in them.
func (m *Manager) processes() (pids []int) {
	for _, g := range m.groups() {
		data, _ := os.ReadFile(filepath.Join(g, "cgroup.procs")) // it may have gone meanwhile
		for word := range strings.FieldsSeq(string(data)) {
			var pid int
			if _, err := fmt.Sscan(word, &pid); err == nil && pid > 1 {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// end removes all that is left.
func (m *Manager) end() {
	m.Cut()
	for _, g := range slices.Backward(m.groups()) {
		_ = os.Remove(g)
	}
	if m.t.Failed() {
		m.t.Log(m.said())
	}
	_ = m.log.Close()
	m.must(os.RemoveAll(m.Run))
}
