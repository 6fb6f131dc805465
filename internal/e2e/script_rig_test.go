package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// script is one script of a release: a body in sh, which finds the device's
// folder in $d. Every run writes its name into $d/log first, an undo with
// "-undo" behind it.
type script struct {
	name      string
	at        release.Point
	component bool   // of the component app, else of the release
	run       string // the body, or a whole program when it begins with #!
	undo      string // the same; empty: none
	limit     string
}

// logged is what begins the body of every script.
const logged = "#!/bin/sh\nd='%s'\necho \"$PAWL_SCRIPT${PAWL_UNDO:+-undo}\" >>$d/log\n"

// bystanders are around the script that a test is about, so that the order of
// runs and undos shows.
func bystanders() []script {
	return []script{
		{name: "first", at: release.BeforeStage, run: "true", undo: "true"},
		{name: "ready", at: release.BeforeActivate, component: true, run: "true", undo: "true"},
		{name: "done", at: release.AfterCommit, run: "true"},
		{name: "told", at: release.AfterRevert, run: "true"},
	}
}

// scripts returns the lines of a specification that hold the scripts.
func (f *scripted) scripts(all ...script) (lines []string) {
	f.t.Helper()
	release, component := []string{"scripts:"}, []string{"  scripts:"}
	for i, s := range all {
		item := fmt.Sprintf("- {name: %s, at: %s, run: %q", s.name, s.at, f.program(i, s.name, s.run))
		if s.undo != "" {
			item += ", undo: " + strconv.Quote(f.program(i, s.name+"-undo", s.undo))
		}
		if s.limit != "" {
			item += ", limit: " + s.limit
		}
		if s.component {
			component = append(component, "    "+item+"}")
		} else {
			release = append(release, item+"}")
		}
	}
	if len(release) > 1 {
		lines = append(lines, release...)
	}
	if len(component) > 1 {
		lines = append(lines, component...)
	}
	return lines
}

// program writes the program of a script, and returns its path.
func (f *scripted) program(i int, name, body string) string {
	f.t.Helper()
	if !strings.HasPrefix(body, "#!") {
		body = fmt.Sprintf(logged, f.dir) + body + "\n"
	}
	path := filepath.Join(f.m.dir, fmt.Sprintf("%d-%s", i, name))
	require.NoError(f.t, os.WriteFile(path, []byte(body), 0o644))
	return path
}

// scripted is a device with 1.0.0 on it, for a release with scripts.
type scripted struct{ *field }

// newScripted makes a device with a repository of its own, a copy of m's,
// which holds 1.0.0 of v1.
func newScripted(t *testing.T, m *maker, layout string) *scripted {
	t.Helper()
	own := m.copy(t)
	d := newDevice(t, own, t.TempDir())
	d.layout(layout)
	f := &scripted{&field{device: d, m: own, v1: filepath.Join(m.dir, "v1"), v2: filepath.Join(m.dir, "v2")}}
	f.must(0, "update")
	return f
}

// newScriptMaker publishes 1.0.0 of a small tree, v1; v2 is another one.
func newScriptMaker(t testing.TB) *maker {
	t.Helper()
	m := newMaker(t)
	v1, v2 := filepath.Join(m.dir, "v1"), filepath.Join(m.dir, "v2")
	for name, content := range map[string]string{"bin/camera": "one", "etc/camera.conf": "a=1\n", "lib/old": "old", "same": "same"} {
		write(t, v1, name, content, 0o644)
	}
	for name, content := range map[string]string{"bin/camera": "two", "etc/camera.conf": "a=1\nb=2\n", "lib/new": "new", "same": "same"} {
		write(t, v2, name, content, 0o644)
	}
	require.NoError(t, os.Chmod(filepath.Join(v2, "etc/camera.conf"), 0o600))
	require.NoError(t, os.Symlink("camera", filepath.Join(v2, "bin/link")))
	m.release("1.0.0", v1)
	return m
}

// log returns what ran, in order.
func (f *scripted) log() string {
	f.t.Helper()
	data, err := os.ReadFile(filepath.Join(f.dir, "log"))
	if !os.IsNotExist(err) {
		require.NoError(f.t, err)
	}
	return strings.Join(strings.Fields(string(data)), " ")
}

// told checks that status or history, as a person reads them, say the words.
func (f *scripted) told(words ...string) {
	f.t.Helper()
	text := f.reads("status") + f.reads("history")
	for _, w := range words {
		require.Contains(f.t, text, w)
	}
}

// is checks what is on the device, to the last bit, and that nothing is open.
func (f *scripted) is(tree string) {
	f.t.Helper()
	f.holds(tree)
	require.Contains(f.t, f.must(0, "verify").Line, "is as published")
}

// pids returns the processes that scripts noted in $d/pids.
func (f *scripted) pids() (all []int) {
	f.t.Helper()
	data, err := os.ReadFile(filepath.Join(f.dir, "pids"))
	if !os.IsNotExist(err) {
		require.NoError(f.t, err)
	}
	for _, word := range strings.Fields(string(data)) {
		pid, err := strconv.Atoi(word)
		require.NoError(f.t, err)
		all = append(all, pid)
	}
	return all
}

// gone checks that none of the processes runs.
func (f *scripted) gone(pids ...int) {
	f.t.Helper()
	for _, pid := range pids {
		require.False(f.t, running(pid), "process %d of a script is left", pid)
	}
}

// running reports whether pid is a process of a script; the kernel may have
// given the number to another one since.
func running(pid int) bool {
	proc := "/proc/" + strconv.Itoa(pid)
	data, err := os.ReadFile(proc + "/stat")
	if err != nil {
		return false
	}
	after := data[bytes.LastIndexByte(data, ')')+1:]
	if bytes.HasPrefix(after, []byte(" Z")) || bytes.HasPrefix(after, []byte(" X")) {
		return false
	}
	env, err := os.ReadFile(proc + "/environ")
	return err == nil && bytes.Contains(env, []byte("PAWL_TX="))
}

// cut starts the agent and kills it when the script has said that it waits.
// The script goes on waiting.
func (f *scripted) cut(args ...string) (pids []int) {
	f.t.Helper()
	waits := filepath.Join(f.dir, "waits")
	require.NoError(f.t, os.RemoveAll(waits))
	require.NoError(f.t, os.RemoveAll(filepath.Join(f.dir, "pids")))
	cmd := f.command(f.t.Context(), args...)
	require.NoError(f.t, cmd.Start())
	defer func() {
		require.NoError(f.t, cmd.Process.Kill())
		require.Error(f.t, cmd.Wait())
		require.True(f.t, running(pids[0]), "the script died with the agent")
	}()
	require.Eventually(f.t, func() bool { _, err := os.Stat(waits); return err == nil }, 30*time.Second, 5*time.Millisecond,
		"the script was not reached: %s", f.log())
	pids = f.pids()
	require.NotEmpty(f.t, pids)
	return pids
}

// state is that of the open transaction, or idle.
func (f *scripted) stateIs(want ota.State) {
	f.t.Helper()
	require.Equal(f.t, want, f.must(0, "status").Status.State)
}
