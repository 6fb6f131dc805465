//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// enginePart is one component of a device, in one layout.
type enginePart struct {
	name   string
	layout Layout
	root   string // below the device's folder
	effect ota.Effect
}

// engineDevice is a device under a real Updater with a real state folder: one
// process at a time, with a clock of its own.
type engineDevice struct {
	dir    string
	parts  []enginePart
	source ota.Source
	health func() error
	report func(ota.Progress)
	faults faults
	log    scriptLog

	boots, starts int
	uptime        time.Duration
	ctx           context.Context
}

// fault is what goes wrong at one step.
type fault struct {
	n    int
	what string // faultKill, faultError
}

const (
	faultKill  = "kill"  // the step and all later ones fail; the process ends
	faultError = "error" // the step alone fails, with EIO
)

var (
	errKilled   = errors.New("this process was killed")
	errInjected = fmt.Errorf("put there by the test: %w", unix.EIO)
)

// faults counts steps, those of the backends and those of package durable, and
// puts a fault on one.
type faults struct {
	count int
	next  fault
	hit   bool
	dead  bool
	kill  context.CancelFunc
	trace []string
}

func (f *faults) step(op, path string) error {
	if f.dead {
		return errKilled
	}
	f.count++
	f.trace = append(f.trace, fmt.Sprintf("%d: %s %s", f.count, op, path))
	if f.count != f.next.n {
		return nil
	}
	f.hit = true
	if f.next.what == faultError {
		return errInjected
	}
	f.dead = true
	f.kill()
	return errKilled
}

// set puts a fault on the nth step from now; none where n is 0.
func (f *faults) set(next fault) {
	f.count, f.next, f.hit, f.trace = 0, next, false, nil
}

// durable stands between package durable and the system. What only a power cut
// would tell from its absence is left out: it costs most of the time.
func (f *faults) durable(op, path string, call func() error) error {
	if err := f.step("durable "+op, path); err != nil {
		return err
	}
	if strings.HasPrefix(op, "fsync") || op == "syncfs" {
		return nil
	}
	return call()
}

// hook makes d the device that package durable asks.
func (d *engineDevice) hook(t testing.TB) {
	h := d.faults.durable
	seam.Step.Store(&h)
	t.Cleanup(func() { seam.Step.Store(nil) })
}

func (d *engineDevice) path(names ...string) string {
	return filepath.Join(append([]string{d.dir}, names...)...)
}

// boot ends whatever runs; the next process is of another boot.
func (d *engineDevice) boot() { d.boots++ }

// start is a new process, with backends that know nothing.
func (d *engineDevice) start(t testing.TB) (*ota.Updater, error) {
	d.starts++
	d.faults.dead = false
	d.uptime += time.Second
	var cancel context.CancelFunc
	d.ctx, cancel = context.WithCancel(t.Context())
	d.faults.kill = cancel
	t.Cleanup(cancel)
	o := ota.Options{
		Dir:      d.path("state"),
		Device:   ota.Device{ID: "d", Product: "model", Variant: "engine"},
		Source:   d.source,
		Backends: map[string]ota.Backend{},
		Health:   func(context.Context) error { return d.health() },
		Trial:    ota.Trial{Soak: 2 * time.Second, Deadline: 20 * time.Second},
		Progress: d.report,
		LockWait: -1,
	}
	for _, p := range d.parts {
		f, err := New(Options{Name: p.name, Root: d.path(p.root), Layout: p.layout, Effect: p.effect})
		require.NoError(t, err)
		f.layout.(interface{ common() *base }).common().before = d.faults.step
		o.Backends[p.name] = f
	}
	seam.Set(&o, engineHost{d}, nil)
	return ota.Open(d.ctx, o)
}

// names are all names outside of the roots.
func (d *engineDevice) names(t testing.TB) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(d.dir, func(p string, e os.DirEntry, err error) error {
		rel, _ := filepath.Rel(d.dir, p)
		for _, part := range d.parts {
			if rel == part.root {
				return filepath.SkipDir
			}
		}
		if err == nil && !e.IsDir() {
			all = append(all, rel)
		}
		return err
	})
	require.NoError(t, err)
	return all
}

// look describes a root, as snapshot does, and with the times of everything but
// the folder that carried paths leave and come back to.
func (d *engineDevice) look(t testing.TB, p enginePart) (plain, timed picture) {
	t.Helper()
	plain, timed = picture{}, picture{}
	root := d.path(p.root)
	err := filepath.WalkDir(root, func(q string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, q)
		plain[rel], err = describe(q)
		if timed[rel] = plain[rel]; p.layout == InPlace || rel != "." {
			timed[rel] += " " + info.ModTime().String()
		}
		return err
	})
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(t, err)
	}
	return plain, timed
}

// version reads what a component's own mark says is in effect.
func (d *engineDevice) version(component string) string {
	i := slices.IndexFunc(d.parts, func(p enginePart) bool { return p.name == component })
	data, err := os.ReadFile(d.path(d.parts[i].root, "version"))
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// engineHost is the machine of an engineDevice.
type engineHost struct{ d *engineDevice }

func (h engineHost) Boot() (string, error)    { return fmt.Sprint("boot-", h.d.boots), nil }
func (h engineHost) Process() (string, error) { return fmt.Sprint("process-", h.d.starts), nil }
func (h engineHost) Now() time.Time           { return time.Unix(2e9, 0).Add(h.d.uptime) }
func (h engineHost) Uptime() time.Duration    { return h.d.uptime }

// Sleep takes no time but the device's own.
func (h engineHost) Sleep(ctx context.Context, t time.Duration) error {
	h.d.uptime += t
	return ctx.Err()
}

func (h engineHost) Space(string) (bytes, inodes int64, fs string, err error) {
	return 1 << 40, 1 << 30, "disk", nil
}

func (h engineHost) Memory() (held, available int64, err error) { return 0, 1 << 30, nil }

// End has nothing to end: a script ends with the process that ran it.
func (h engineHost) End(context.Context, string) error { return nil }

// engineScript is one script of a release.
type engineScript struct {
	seq       uint64
	component string // empty for one of the release
	at        release.Point
	name      string
}

func (s engineScript) program(verb string) []byte {
	return fmt.Appendf(nil, "%s %d %q %s %s", verb, s.seq, s.component, s.at, s.name)
}

// scriptLog is what scripts did to a device. A script has two halves with a
// step between them, and so has its undo.
type scriptLog struct {
	state  map[engineScript]string // half, done; an undo ends in none
	order  []engineScript          // those that are in state, as they began
	exits  map[engineScript][]int  // codes of the next runs, after the first half
	broken []string
}

func (l *scriptLog) breaks(format string, args ...any) {
	l.broken = append(l.broken, fmt.Sprintf(format, args...))
}

// Run is a program of a script: it parses the bytes that it is given.
func (h engineHost) Run(_ context.Context, p seam.Program) (seam.Ran, error) {
	r, err := p.Open()
	if err != nil {
		return seam.Ran{}, err
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return seam.Ran{}, err
	}
	var verb string
	var s engineScript
	if _, err := fmt.Sscanf(string(data), "%s %d %q %s %s", &verb, &s.seq, &s.component, &s.at, &s.name); err != nil {
		return seam.Ran{}, fmt.Errorf("no program of a script: %q", data)
	}
	h.checkEnv(s, verb, p.Env)
	if verb == "undo" {
		return h.undo(s)
	}
	return h.do(s)
}

func (h engineHost) checkEnv(s engineScript, verb string, env []string) {
	want := []string{"PAWL_SCRIPT=" + s.name, "PAWL_POINT=" + string(s.at), fmt.Sprint("PAWL_TO_SEQ=", s.seq)}
	if s.component != "" {
		i := slices.IndexFunc(h.d.parts, func(p enginePart) bool { return p.name == s.component })
		want = append(want, "PAWL_COMPONENT="+s.component, "PAWL_ROOT="+h.d.path(h.d.parts[i].root))
	}
	for _, w := range want {
		if !slices.Contains(env, w) {
			h.d.log.breaks("%v ran without %s", s, w)
		}
	}
	if slices.Contains(env, "PAWL_UNDO=1") != (verb == "undo") {
		h.d.log.breaks("%s of %v ran with %v", verb, s, env)
	}
}

func (h engineHost) do(s engineScript) (seam.Ran, error) {
	l := &h.d.log
	h.checkTime(s)
	if err := h.d.faults.step("begin script", fmt.Sprint(s)); err != nil {
		return scriptEnd(err)
	}
	l.order = append(slices.DeleteFunc(l.order, func(x engineScript) bool { return x == s }), s)
	l.state[s] = "half"
	if codes := l.exits[s]; len(codes) > 0 {
		l.exits[s] = codes[1:]
		if codes[0] != 0 {
			return seam.Ran{Exit: codes[0]}, nil
		}
	}
	if err := h.d.faults.step("end script", fmt.Sprint(s)); err != nil {
		return scriptEnd(err)
	}
	l.state[s] = "done"
	return seam.Ran{}, nil
}

// undo takes back what ran or half ran. Nothing that began later may be left.
func (h engineHost) undo(s engineScript) (seam.Ran, error) {
	l := &h.d.log
	if i := slices.Index(l.order, s); i >= 0 {
		for _, later := range l.order[i+1:] {
			if later.at.HasUndo() {
				l.breaks("%v was undone before %v, which began after it", s, later)
			}
		}
	}
	if s.at == release.BeforeActivate && s.component != "" && h.d.version(s.component) == fmt.Sprint(s.seq) {
		l.breaks("%v was undone before the component was", s)
	}
	if err := h.d.faults.step("begin undo", fmt.Sprint(s)); err != nil {
		return scriptEnd(err)
	}
	if l.state[s] != "" {
		l.state[s] = "half"
	}
	if err := h.d.faults.step("end undo", fmt.Sprint(s)); err != nil {
		return scriptEnd(err)
	}
	delete(l.state, s)
	l.order = slices.DeleteFunc(l.order, func(x engineScript) bool { return x == s })
	return seam.Ran{}, nil
}

// checkTime notes a script that runs when the components are not as its point
// says.
func (h engineHost) checkTime(s engineScript) {
	for _, p := range h.d.parts {
		if s.component != "" && s.component != p.name {
			continue
		}
		isNew := h.d.version(p.name) == fmt.Sprint(s.seq)
		switch s.at {
		case release.AfterActivate, release.BeforeCommit, release.AfterCommit:
			if !isNew {
				h.d.log.breaks("%v ran when %s was not in effect", s, p.name)
			}
		default:
			if isNew {
				h.d.log.breaks("%v ran when %s was in effect", s, p.name)
			}
		}
	}
}

// scriptEnd is the end of a script that met a fault: killed with its process,
// or with an error of its own.
func scriptEnd(err error) (seam.Ran, error) {
	if errors.Is(err, errKilled) {
		return seam.Ran{}, err
	}
	return seam.Ran{Exit: 1, Output: []byte(err.Error())}, nil
}

// addScripts puts scripts into a release: at every point of its own, two of
// them where they may ask for later, and some of the first component's. It
// returns their programs.
func addScripts(r *release.Release) (blobs [][]byte) {
	add := func(component string, names ...string) (list []release.Script) {
		for _, n := range names {
			at, name, _ := strings.Cut(n, "/")
			s := engineScript{r.Seq, component, release.Point(at), "s" + name}
			x := release.Script{Name: s.name, At: s.at}
			program := func(verb string) release.Blob {
				data := s.program(verb)
				blobs = append(blobs, data)
				return release.Blob{Digest: release.Sum(data), Size: int64(len(data))}
			}
			if x.Run = program("do"); s.at.HasUndo() {
				x.Undo = program("undo")
			}
			list = append(list, x)
		}
		return list
	}
	r.Scripts = add("", "before-stage", "after-stage", "before-activate/1", "before-activate/2", "after-activate", "before-commit", "after-commit", "after-revert")
	c := &r.Components[0]
	c.Scripts = add(c.Name, "after-stage", "before-activate", "after-activate", "before-commit", "after-commit", "after-revert")
	return blobs
}
