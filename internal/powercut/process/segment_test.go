package process

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/powercut"
	"github.com/pawl-ota/pawl/internal/powercut/check"
	"github.com/pawl-ota/pawl/internal/powercut/firmware"
	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/internal/trace"
)

// stand has what runs need.
type stand struct {
	scene   *powercut.Scene
	program string
	base    string
}

// newStand makes a scene, and the program.
func newStand(t *testing.T) *stand {
	t.Helper()
	if err := trace.Available(); err != nil {
		testneeds.Missing(t, "ptrace: "+err.Error())
	}
	base := inMemory(t)
	s := &stand{base: base, scene: powercut.New(t, base), program: powercut.Program(t)}
	<-time.After(longPast) // else some devices trust what they know of their files, and some do not
	return s
}

// longPast is a little more than the time after which micro takes a write to a
// file for one that is over.
const longPast = 2100 * time.Millisecond

// bench is the place of one device. Its transactions know where it lies, so
// that it always lies there; its snapshots are put aside.
type bench struct {
	*stand
	dir  string // the device
	kept int    // snapshots so far
}

func (s *stand) bench() (*bench, error) {
	at, err := os.MkdirTemp(s.base, "bench-")
	return &bench{stand: s, dir: filepath.Join(at, "device")}, err
}

// keep takes a snapshot of the device.
func (b *bench) keep() (string, error) {
	b.kept++
	at := fmt.Sprintf("%s.%d", b.dir, b.kept)
	return at, powercut.Clone(b.dir, at)
}

// put makes the device what it was at a snapshot.
func (b *bench) put(from string) error {
	if err := os.RemoveAll(b.dir); err != nil {
		return err
	}
	return powercut.Clone(from, b.dir)
}

// inMemory returns a temporary folder, in memory if there is one: processes
// are killed here, and the disk is not, so that nothing depends on it.
func inMemory(t *testing.T) string {
	t.Helper()
	base, err := os.MkdirTemp("/dev/shm", "pawl-process-")
	if err != nil {
		base = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	base, err = filepath.EvalSymlinks(base)
	require.NoError(t, err)
	return base
}

// segment is one process in the life of a device: the verb that runs, and the
// device as it is before it.
type segment struct {
	name string
	verb string
	from string // the snapshot
	// was is what the device was before all of it, goal what the verb is for:
	// that it must be when the verb says so, and it is never anything else.
	was, goal check.Version
}

// workload takes a device through a verb and the boots it asks for.
type workload struct {
	name  string
	start check.Version
	verb  string
	sick  bool          // the release is found to be sick after its boot
	goal  check.Version // of the verb, whether it is reached or not
	skip  int           // segments that another workload has too
}

var workloads = []workload{
	{name: "update", start: check.V1, verb: firmware.VerbUpdate, goal: check.V2},
	{name: "rollback", start: check.V2, verb: firmware.VerbRollback, goal: check.V1},
	{name: "sick", start: check.V1, verb: firmware.VerbUpdate, sick: true, goal: check.V2, skip: 1},
	{name: "install", start: check.None, verb: firmware.VerbUpdate, goal: check.V2},
}

// segments runs w once and returns its processes.
func (b *bench) segments(ctx context.Context, w workload) (all []segment, err error) {
	if err := os.RemoveAll(b.dir); err != nil {
		return nil, err
	}
	if err := b.scene.CopyTo(b.dir, w.start); err != nil {
		return nil, err
	}
	if w.sick {
		if err := os.WriteFile(filepath.Join(b.dir, "health"), []byte("sick\n"), 0o644); err != nil {
			return nil, err
		}
	}
	for verb := w.verb; ; verb = firmware.VerbFinish {
		from, err := b.keep()
		if err != nil {
			return nil, err
		}
		all = append(all, segment{name: fmt.Sprintf("%s/%d", w.name, len(all)+1), verb: verb, from: from, was: w.start, goal: w.goal})
		a := firmware.Run(ctx, b.dir, verb)
		if a.Code != firmware.ExitBoot {
			ends := w.goal
			if w.sick {
				ends = w.start
			}
			_, err := check.Device(b.dir, ends)
			return all[w.skip:], err
		}
		if a := firmware.Run(ctx, b.dir, firmware.VerbBoot); a.Err() != nil || len(all) == 5 {
			return nil, fmt.Errorf("%s does not end: %w", w.name, a.Err())
		}
	}
}

// fault is what is done at a point.
type fault struct {
	at     point
	nth    int // in place of a point: the nth call of all
	action trace.Action
	// lasting has every later changing call fail too, until the process ends.
	lasting bool
	procs   int // GOMAXPROCS
}

func (f fault) String() string {
	what := "killed before"
	switch {
	case f.action == trace.KillAfter:
		what = "killed after"
	case f.action > 0 && f.lasting:
		what = fmt.Sprintf("%v from", syscall.Errno(f.action))
	case f.action > 0:
		what = fmt.Sprintf("%v at", syscall.Errno(f.action))
	}
	if f.nth > 0 {
		return fmt.Sprintf("%s call %d (GOMAXPROCS=%d)", what, f.nth, f.procs)
	}
	return fmt.Sprintf("%s %s (GOMAXPROCS=%d)", what, f.at, f.procs)
}

// after is what becomes of the calls after the one that met the fault.
func (f fault) after() trace.Action {
	if f.lasting {
		return f.action
	}
	return trace.Continue
}

// met is one run of a segment.
type met struct {
	hit    bool
	killed bool
	points []point         // up to the fault
	answer firmware.Answer // of a run that was not killed
}

// run runs the verb of g, with a fault where f has one.
func (b *bench) run(ctx context.Context, g segment, f fault) (m met, err error) {
	if err := b.put(g.from); err != nil {
		return m, err
	}
	return b.verb(ctx, g.verb, f)
}

// tooLong is when a verb hangs, also on a busy machine.
const tooLong = 5 * time.Minute

// verb runs a verb on the device as it is.
func (b *bench) verb(ctx context.Context, verb string, f fault) (m met, err error) {
	ctx, cancel := context.WithTimeout(ctx, tooLong)
	defer cancel()
	cmd := exec.Command(b.program, "-dir", b.dir, verb)
	cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(f.procs))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	c := newCounter(b.dir)
	exit, err := trace.Run(ctx, cmd, trace.Options{Below: b.dir, Before: func(call *trace.Call) trace.Action {
		if m.hit { // what comes now comes because of the fault
			return f.after()
		}
		p := c.next(call)
		if p != f.at && len(c.all) != f.nth {
			return trace.Continue
		}
		m.hit = true
		return f.action
	}})
	m.points, m.killed = c.all, exit.Killed
	if err != nil || exit.Killed {
		return m, err
	}
	if err := json.Unmarshal(stdout.Bytes(), &m.answer); err != nil {
		return m, fmt.Errorf("%w: %s ended with %#x and said %q %q", check.ErrViolation, verb, int(exit.Status), stdout.String(), stderr.String())
	}
	return m, nil
}
