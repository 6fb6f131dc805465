//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/dockerd"
	"github.com/pawl-ota/pawl/internal/powercut/block"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/otatest"
)

// diskStates is how many states of a disk are looked at.
const diskStates = 60

// diskApp is version n of an app of one service with a port.
func diskApp(t testing.TB, n int) testApp {
	return realApp(t, n).changed(t, func(a *compose.App) {
		v := a.Services[1]
		v.DependsOn, v.Files = nil, nil
		a.Services, a.Files, a.Volumes = []compose.Service{v}, nil, nil
	})
}

// diskRig is a device whose engine, state and record are on the disk at dir.
func diskRig(t testing.TB, dir string, e *dockerd.Engine) (*realRig, *otatest.Memory) {
	source := otatest.NewMemory()
	for n := 1; n <= 2; n++ {
		offer(source, uint64(n), diskApp(t, n))
	}
	r := &realRig{t: t, e: e, dir: filepath.Join(dir, "device")}
	r.reopen()
	r.b.opts.Restart = func(context.Context) error {
		e.Kill()
		return e.Launch()
	}
	return r, source
}

// TestDiskWorker is the program that works on the disk: the process that serves the
// disk must not. Without its environment it does nothing.
func TestDiskWorker(t *testing.T) {
	if os.Getenv(diskWork) == "" {
		return
	}
	r := &realRig{t: t, dir: filepath.Join(os.Getenv(diskWork), "device"), host: os.Getenv("DOCKER_HOST")}
	source := otatest.NewMemory()
	r.reopen()
	u := r.updater(source)
	for n := 1; n <= 2; n++ {
		if uint64(n) == u.Status().Running.Seq {
			continue
		}
		offer(source, uint64(n), diskApp(t, n))
		_, err := u.Update(t.Context())
		require.NoError(t, err)
		if n == 1 {
			return
		}
	}
}

// work runs the worker once: the first time it installs version 1, then version 2.
func work(t *testing.T, dir string, e *dockerd.Engine) {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestDiskWorker$")
	cmd.Env = append(os.Environ(), diskWork+"="+dir, "DOCKER_HOST="+e.Host())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// TestDiskOfAnEngine cuts the power of a disk that holds everything, the engine's
// store and pawl's state, while version 2 is installed over version 1. In none of
// the states that this can leave is there, once Resume has returned, an app that
// cannot be started: it runs, or does after a Repair. It takes minutes, and runs with PAWL_CRASH=long.
func TestDiskOfAnEngine(t *testing.T) {
	if os.Getenv("PAWL_CRASH") != "long" {
		return
	}
	dir, fs := t.TempDir(), block.Ext4()
	fs.Size = 192 << 20
	at := dockerd.At
	if engineKind == "podman" {
		at = func(t testing.TB, root string, _ ...string) *dockerd.Engine { return dockerd.PodmanAt(t, root) }
	}
	e := at(t, filepath.Join(dir, "engine"))
	log := recordUpdate(t, fs, dir, e)
	t.Log(log)
	all, found := block.States(log, block.Choice{Seed: 1, Sector: fs.Sector, All: 4, Most: 4000})
	count := map[string]int{}
	for i := range diskStates {
		state := all[i*(len(all)-1)/(diskStates-1)]
		s, err := block.NewStand(fs, dir)
		require.NoError(t, err)
		require.NoError(t, s.Load(block.NewBuilder(log).Build(state)))
		if err := s.Mount(); err != nil {
			require.NoError(t, s.Repair())
			require.NoError(t, s.Mount())
		}
		says, err := lookAtDisk(t, dir, e)
		e.Kill()
		require.NoError(t, s.Unmount())
		require.NoError(t, s.Close())
		if err != nil {
			t.Errorf("state %d, %s: %v", i, state, err)
		}
		count[says]++
	}
	t.Logf("block: %d distinct states of %d, %v", diskStates, found, count)
}

// recordUpdate makes a disk with version 1, and records the update to version 2.
func recordUpdate(t *testing.T, fs block.FS, dir string, e *dockerd.Engine) *block.Log {
	s, err := block.NewStand(fs, dir)
	require.NoError(t, err)
	require.NoError(t, s.Make())
	require.NoError(t, s.Mount())
	require.NoError(t, e.Launch())
	work(t, dir, e)
	e.Kill()
	require.NoError(t, s.Unmount())
	first, err := s.Save()
	require.NoError(t, errors.Join(err, s.Close()))
	d, err := block.Record(fs, first, time.Millisecond, dir, t.TempDir())
	require.NoError(t, err)
	launched := e.Launch()
	if launched == nil {
		work(t, dir, e)
	}
	e.Kill()
	log, err := d.Close()
	require.NoError(t, errors.Join(launched, err))
	return log
}

// lookAtDisk boots a state, has Resume settle it, and says what runs.
func lookAtDisk(t *testing.T, dir string, e *dockerd.Engine) (string, error) {
	if err := e.Launch(); err != nil {
		return "no engine", err
	}
	r, source := diskRig(t, dir, e)
	defer func() { _ = r.b.Close() }()
	u, err := ota.Open(t.Context(), r.options(source))
	if err != nil {
		return "no updater", err
	}
	defer func() { _ = u.Close() }()
	if _, err := u.Resume(t.Context()); err != nil {
		return "no settling", err
	}
	if err := r.b.Settle(t.Context()); err != nil {
		t.Log("settling:", err) // Repair has a try
	}
	says, mended := r.version(8*time.Second), ""
	if says == "" {
		// The engine could not start it by itself: after some states it holds the
		// port for what it began to start before the cut.
		left, err := u.Repair(t.Context())
		if says, mended = r.version(20*time.Second), ", mended"; says == "" {
			w, _ := r.b.look(t.Context())
			return "no app", fmt.Errorf("the app does not run: %w, %v: %+v; the engine's log ends with\n%s", err, left, w, e.Log())
		}
	}
	w, err := r.b.look(t.Context())
	up := 0
	for _, b := range w {
		if b.up() {
			up++
		}
	}
	if err == nil && up != 1 {
		err = fmt.Errorf("%d containers run", up)
	}
	return says + mended, err
}

// version waits for what the app answers.
func (r *realRig) version(most time.Duration) string {
	limit := time.After(most)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if says := r.get(); strings.HasPrefix(says, "version ") {
			return says
		}
		select {
		case <-tick.C:
		case <-limit:
			return ""
		}
	}
}
