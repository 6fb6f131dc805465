//go:build linux

package micro_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

// TestCommands runs commands that log what they are called with.
func TestCommands(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	says := func(word string) []string {
		return []string{"sh", "-c", "echo " + word + " $1 >>" + log, "sh", "{}"}
	}
	s := &micro.CommandSupervisor{
		Commands: map[micro.Action][]string{micro.Start: says("start"), micro.Stop: says("stop"), micro.Reload: {"sh", "-c", "echo no $MINE; exit 3"}},
		Status:   []string{"sh", "-c", `echo "$1 is here"; [ "$1" = up ]`, "sh", "{}"},
		Env:      []string{"MINE=own"},
	}
	ctx := t.Context()
	require.NoError(t, s.Do(ctx, micro.Stop, "a"))
	require.NoError(t, s.Do(ctx, micro.StartLater, "b; rm -rf x"))
	require.NoError(t, s.Do(ctx, micro.Restart, "c"))
	data, err := os.ReadFile(log)
	require.NoError(t, err)
	require.Equal(t, "stop a\nstart b; rm -rf x\nstop c\nstart c\n", string(data))
	require.ErrorContains(t, s.Do(ctx, micro.Reload, "a"), "exit status 3: no own")
	require.ErrorContains(t, s.Do(ctx, "jump", "a"), `no command for "jump"`)

	state, err := s.State(ctx, "up")
	require.NoError(t, err)
	require.Equal(t, micro.ServiceState{Running: true, Detail: "up is here"}, state)
	state, err = s.State(ctx, "away")
	require.NoError(t, err)
	require.Equal(t, micro.ServiceState{Detail: "away is here"}, state)

	require.NoError(t, s.Refresh(ctx))
	s.Reread = []string{"/nonexistent/program"}
	require.ErrorIs(t, s.Refresh(ctx), os.ErrNotExist)
	s.Status = s.Reread
	_, err = s.State(ctx, "up")
	require.ErrorIs(t, err, micro.ErrSupervisor)
	_, err = (&micro.CommandSupervisor{}).State(ctx, "up")
	require.Error(t, err)
}

// TestCommandIsBounded: one that hangs with a child that holds its output, and
// one that says too much.
func TestCommandIsBounded(t *testing.T) {
	s := &micro.CommandSupervisor{
		Commands: map[micro.Action][]string{micro.Start: {"sh", "-c", "sleep 1000 & sleep 1000"}},
		Status:   []string{"sh", "-c", "head -c 10000000 /dev/zero | tr '\\0' x"},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	require.ErrorIs(t, s.Do(ctx, micro.Start, "a"), context.DeadlineExceeded)
	require.Less(t, time.Since(begin), time.Minute)
	state, err := s.State(t.Context(), "a")
	require.NoError(t, err)
	require.Len(t, state.Detail, 200)
	var all string
	s.Parse = func(_ int, output string) micro.ServiceState {
		all = output
		return micro.ServiceState{}
	}
	_, err = s.State(t.Context(), "a")
	require.NoError(t, err)
	require.True(t, len(all) == 64<<10, "%d bytes", len(all))
}

// TestRunit updates an app under a runsvdir of its own, and takes it back.
func TestRunit(t *testing.T) {
	runsvdir := testneeds.Program(t, "runsvdir")
	testneeds.Program(t, "sv")
	dir := t.TempDir()
	root, services := filepath.Join(dir, "app"), filepath.Join(dir, "service")
	require.NoError(t, os.MkdirAll(filepath.Join(services, "app"), 0o755))
	run := "#!/bin/sh\nexec " + root + "/app " + dir + "/version\n"
	require.NoError(t, os.WriteFile(filepath.Join(services, "app", "run"), []byte(run), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(services, "app", "down"), nil, 0o644))
	cmd := exec.Command(runsvdir, services)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
		_ = cmd.Wait()
		wait(t, func() bool { return !answers(services) })
	})
	sup := runit()
	sup.Env = []string{"SVDIR=" + services}
	wait(t, func() bool { return answers(services) })

	blobs := otatest.Blobs{}
	files, err := micro.New(micro.Options{Name: "app", Root: root, Supervisor: sup})
	require.NoError(t, err)
	is := func(version string) {
		t.Helper()
		wait(t, func() bool {
			data, _ := os.ReadFile(filepath.Join(dir, "version"))
			return string(data) == version+"\n"
		})
		require.NoError(t, files.CheckServices(t.Context()))
	}
	one, two := appRelease(t, blobs, "1"), appRelease(t, blobs, "2")
	ctx := t.Context()
	_, err = files.Stage(ctx, "t1", one, blobs)
	require.NoError(t, err)
	require.NoError(t, files.Activate(ctx, "t1", one))
	is("1")
	require.NoError(t, files.Commit(ctx, "t1", one))
	_, err = files.Stage(ctx, "t2", two, blobs)
	require.NoError(t, err)
	require.NoError(t, files.Activate(ctx, "t2", two))
	is("2")
	require.NoError(t, files.Revert(ctx, "t2", two))
	is("1")
	require.NoError(t, sup.Do(ctx, micro.Stop, "app"))
	state, err := sup.State(ctx, "app")
	require.NoError(t, err)
	require.False(t, state.Running || state.Starting, state.Detail)
	require.ErrorContains(t, files.CheckServices(ctx), "service app does not run: down: app:")
}

// appRelease is a release of one program, which lists one service.
func appRelease(t *testing.T, blobs otatest.Blobs, version string) release.Component {
	program := []byte("#!/bin/sh\necho " + version + " >$1\nexec sleep 1000\n")
	ix := release.Index{Entries: []release.Entry{
		{Path: ".", Type: release.Dir, Mode: 0o755, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())},
		{Path: "app", Type: release.File, Mode: 0o755, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Blob: release.Blob{Digest: release.Sum(program), Size: int64(len(program))}},
	}}
	var buf bytes.Buffer
	require.NoError(t, ix.Encode(&buf))
	blobs.Add(program, buf.Bytes())
	options, err := json.Marshal(micro.ComponentOptions{Services: []micro.Service{{Name: "app"}}})
	require.NoError(t, err)
	return release.Component{
		Name: "app", Kind: micro.Kind, Index: release.Blob{Digest: release.Sum(buf.Bytes()), Size: int64(buf.Len())},
		Keep: release.Keep{Previous: 1, Repair: release.RepairNone}, Options: options,
	}
}

// answers reports whether the runsv of the service is there.
func answers(services string) bool {
	cmd := exec.Command("sv", "status", "app")
	cmd.Env = append(os.Environ(), "SVDIR="+services)
	out, _ := cmd.CombinedOutput()
	return strings.HasPrefix(string(out), "run:") || strings.HasPrefix(string(out), "down:")
}

func wait(t *testing.T, is func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		if is() {
			return
		}
		<-tick.C
	}
	t.Fatal("it does not come about")
}
