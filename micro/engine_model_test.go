//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// The model of package ota has backends in memory. This one has the real ones,
// on a real file system with a real state folder: a device goes from release 1
// to release 2, and something goes wrong at every step that lasts, of the
// backends, of the engine's own records and of scripts. Whatever went wrong,
// processes are started until the device rests. Then its roots have to be
// exactly old, with the times of everything, or exactly new; nothing may be
// left over beside them; every script is undone or ran to its end; and a good
// update succeeds.

// engineScenario is one thing that a device goes through.
type engineScenario struct {
	name   string
	parts  []enginePart
	health func(asked int) error // of release 2, with the number of the question
	// back has the device go from release 2 back to 1.
	back bool
	// scripts are in the release that is tried; exits are the codes with which
	// some of them end.
	scripts bool
	exits   map[engineScript][]int
	// local is a change by hand of the in-place root, made before the update
	// begins or, with late, when all is staged.
	local  func(testing.TB, string)
	late   bool
	policy Policy
	// changes are what the policy makes of release 2.
	changes func(m picture, edited string)
	// want is how it ends: new, old, refused. After an error it may end in
	// old, too, and where either is set after a kill.
	want   string
	either bool
	// every nth step has a kill, unless there is time for all.
	every int
}

// tried is the release that the device is to go to.
func (sc *engineScenario) tried() int {
	if sc.back {
		return 1
	}
	return 2
}

var errSick = errors.New("sick")

func healthy(int) error { return nil }

func sick(int) error { return errSick }

func healthyThenSick(asked int) error {
	if asked > 2 {
		return errSick
	}
	return nil
}

// healthyUntilProved is for who asks as often as it has to, and never again.
func healthyUntilProved(asked int) error {
	if asked > 3 {
		return errSick
	}
	return nil
}

func engineScenarios() []engineScenario {
	place := enginePart{name: "conf", layout: InPlace, root: "sys"}
	tree := enginePart{name: "app", layout: Tree, root: "srv/app"}
	slow := tree
	slow.effect = ota.NeedsRestart
	one, both := []enginePart{place}, []enginePart{place, slow}
	edit := func(t testing.TB, root string) { files(t, root, map[string]string{"bin/app": "edited"}) }
	keep := func(m picture, edited string) { m["bin/app.pawl-new"], m["bin/app"] = m["bin/app"], edited }
	of := func(component string, at release.Point, name string) engineScript {
		return engineScript{2, component, at, name}
	}
	return []engineScenario{
		{name: "in place/healthy", parts: one, health: healthy, want: "new", every: 1},
		{name: "in place/sick", parts: one, health: sick, want: "old", every: 9},
		{name: "in place/healthy then sick", parts: one, health: healthyThenSick, want: "old", every: 40},
		{name: "in place/never asked again", parts: one, health: healthyUntilProved, want: "new", either: true, every: 7},
		{name: "in place/way back", parts: one, health: healthy, back: true, want: "new", every: 12},
		{name: "tree/healthy", parts: []enginePart{tree}, health: healthy, want: "new", every: 1},
		{name: "tree/sick", parts: []enginePart{tree}, health: sick, want: "old", every: 12},
		{name: "both/healthy", parts: both, health: healthy, scripts: true, want: "new", every: 13},
		{name: "both/healthy then sick", parts: both, health: healthyThenSick, scripts: true, want: "old", every: 19},
		{name: "both/way back", parts: both, health: healthy, scripts: true, back: true, want: "new", every: 29},
		{name: "both/later, then sick", parts: both, health: healthyThenSick, scripts: true, want: "old", every: 41,
			exits: map[engineScript][]int{
				of("", release.BeforeStage, "s"):     {ota.ExitLater},
				of("", release.BeforeActivate, "s2"): {ota.ExitLater, ota.ExitLater},
			}},
		{name: "both/a script fails", parts: both, health: healthy, scripts: true, want: "old", every: 53,
			exits: map[engineScript][]int{of("conf", release.BeforeCommit, "s"): {1, 1}}},
		{name: "both/a script refuses", parts: both, health: healthy, scripts: true, want: "old", every: 53,
			exits: map[engineScript][]int{of("conf", release.AfterActivate, "s"): {ota.ExitRefuse, ota.ExitRefuse}}},
		{name: "local change/refuse", parts: both, health: healthy, local: edit, policy: Refuse, want: "refused", every: 31},
		{name: "local change/refuse, late", parts: both, health: healthy, local: edit, late: true, policy: Refuse, want: "refused", every: 31},
		{name: "local change/keep", parts: one, health: healthy, local: edit, policy: Keep, changes: keep, want: "new", every: 29},
		{name: "local change/keep, sick", parts: one, health: sick, local: edit, policy: Keep, want: "old", every: 29},
		{name: "local change/overwrite", parts: one, health: healthy, local: edit, policy: Overwrite, want: "new", every: 29},
		{name: "local change/overwrite, late, sick", parts: one, health: sick, local: edit, late: true, policy: Overwrite, want: "old", every: 23},
	}
}

// engineRun is one device that goes through a scenario.
type engineRun struct {
	engineScenario
	T      testing.TB
	world  *engineWorld
	device *engineDevice
	old    map[string]picture // the roots before, with times
	new    map[string]picture // the roots afterwards, without
	names  []string           // what is beside the roots before
	clean  []string           // and after an update without a fault
	failed bool               // a step returned an error to a process that lived on
	offers int
	why    error // the refusal
	asked  int
	steps  int // up to the rest
}

// newEngineRun is a device right before the update.
func newEngineRun(t testing.TB, sc engineScenario, w *engineWorld) *engineRun {
	t.Helper()
	to := sc.tried()
	from := 3 - to
	r := &engineRun{engineScenario: sc, T: t, world: w, device: newEngineDevice(t, w, from), offers: to}
	w.source.Offer(w.releases[2])
	r.names = r.device.names(t)
	r.new = map[string]picture{}
	for _, p := range w.parts {
		r.new[p.name] = w.goOn(p, snapshot(t, r.device.path(p.root)), from, to)
	}
	if r.local != nil && !r.late {
		r.change()
	}
	r.look()
	r.device.log.state, r.device.log.order = map[engineScript]string{}, nil
	r.device.health = func() error { r.asked++; return sc.health(r.asked) }
	for s, codes := range sc.exits {
		r.device.log.exits[s] = slices.Clone(codes)
	}
	r.device.report = func(p ota.Progress) {
		if r.late && p.Step == "staged" && r.local != nil && !r.device.faults.dead {
			r.change()
			r.look()
		}
	}
	return r
}

// change makes the local change, once.
func (r *engineRun) change() {
	root := r.device.path(r.world.parts[0].root)
	r.local(r.T, root)
	if r.local = nil; r.changes != nil {
		r.changes(r.new["conf"], snapshotLine(r.T, root, "bin/app"))
	}
}

// look takes the roots as they are for the old ones.
func (r *engineRun) look() {
	r.old = map[string]picture{}
	for _, p := range r.world.parts {
		_, r.old[p.name] = r.device.look(r.T, p)
	}
}

// compare says how the roots differ from the old ones, and from the new ones.
func (r *engineRun) compare() (old, new string) {
	for _, p := range r.world.parts {
		plain, timed := r.device.look(r.T, p)
		if r.old != nil {
			old += differing(r.old[p.name], timed)
		}
		new += differing(r.new[p.name], plain)
	}
	return old, new
}

// maxEngineLives bounds the processes that a device may take to come to rest.
const maxEngineLives = 40

// live starts processes until the device rests with what it may.
func (r *engineRun) live(may ...string) error {
	for range maxEngineLives {
		done, err := r.life()
		if err != nil {
			return err
		}
		if done {
			r.steps = r.device.faults.count
			return r.rest(may...)
		}
		if r.device.starts%2 == 0 {
			r.device.boot()
		}
	}
	return fmt.Errorf("the device did not come to rest in %d processes", maxEngineLives)
}

// life is one process, from Open to its end.
func (r *engineRun) life() (done bool, err error) {
	d := r.device
	u, err := d.start(r.T)
	if err != nil {
		if d.faults.hit {
			return false, nil
		}
		return false, fmt.Errorf("open: %w", err)
	}
	defer func() { _ = u.Close() }()
	res, err := u.Resume(d.ctx)
	if over, err := r.after(res, err); over || err != nil {
		return false, err
	}
	if err == nil && r.old != nil {
		if old, new := r.compare(); old != "" && new != "" {
			return false, fmt.Errorf("after Resume (%v) the roots are neither old:\n%s\nnor new:\n%s", res, old, new)
		}
		for s, state := range d.log.state {
			if res.State == ota.Staged && s.at == release.BeforeActivate {
				return false, fmt.Errorf("it is staged, and %v is %s", s, state)
			}
		}
	}
	drive := r.update
	if r.back {
		drive = r.goBack
	}
	done, res, err = drive(u)
	if over, err := r.after(res, err); over || err != nil {
		return false, err
	}
	return done, nil
}

// after looks at what a verb returned. over is set when the process ends with
// it.
func (r *engineRun) after(res ota.Result, err error) (over bool, _ error) {
	switch {
	case r.device.faults.dead:
		return true, nil
	case res.Needs == ota.NeedsRestart, errors.Is(err, ota.ErrRestartPending):
		return true, nil
	case errors.Is(err, ota.ErrPoisoned) && r.failed:
		return true, nil
	case errors.Is(err, ota.ErrStuck), errors.Is(err, ota.ErrBackoff):
		r.device.uptime += 48 * time.Hour
		return false, nil
	case err == nil, errors.Is(err, ota.ErrUnhealthy), errors.Is(err, ota.ErrHeld), r.failed:
		return false, nil
	case errors.Is(err, ErrLocalChange) && r.policy != "":
		return false, nil
	case r.exits != nil && (errors.Is(err, ota.ErrScript) || errors.Is(err, ota.ErrRefused) || errors.Is(err, ota.ErrLater)):
		return false, nil
	}
	return false, fmt.Errorf("%v: %w", res, err)
}

// update goes the whole way. A refusal of local changes is an answer, after
// which the operator gives up.
func (r *engineRun) update(u *ota.Updater) (done bool, _ ota.Result, _ error) {
	ctx := r.device.ctx
	res, err := u.Update(ctx)
	if !errors.Is(err, ErrLocalChange) {
		done = err == nil && (res.State == ota.Committed || res.State == ota.Idle) || errors.Is(err, ota.ErrCondemned)
		return done, res, err
	}
	r.why = err
	if tx := u.Tx(); tx != nil {
		err = tx.Rollback(ctx, "local changes")
	}
	return err == nil || u.Tx() == nil, res, err
}

// goBack goes back to the kept release, by an operator who asks again after a
// fault.
func (r *engineRun) goBack(u *ota.Updater) (done bool, _ ota.Result, _ error) {
	ctx := r.device.ctx
	tx := u.Tx()
	if tx == nil {
		if u.Status().Running.Seq == 1 {
			return true, ota.Result{}, nil
		}
		res, err := u.Rollback(ctx, 0)
		return false, res, err
	}
	var err error
	if tx.State() == ota.Staging {
		err = tx.Stage(ctx)
	}
	if err == nil && tx.State() == ota.Staged {
		err = tx.Activate(ctx)
	}
	if err == nil && (tx.State() == ota.InTrial || tx.State() == ota.Committing) {
		err = tx.Commit(ctx)
	}
	return false, tx.Result(), err
}

// rest starts one more process, which has nothing to do, and looks at all
// there is.
func (r *engineRun) rest(may ...string) error {
	d := r.device
	if d.faults.dead {
		return errors.New("a fault hit after the end")
	}
	d.faults.next = fault{}
	u, err := d.start(r.T)
	if err != nil {
		return err
	}
	defer func() { _ = u.Close() }()
	res, err := u.Resume(d.ctx)
	if err != nil || res.State != ota.Idle && res.State != ota.Committed || u.Status().Tx != nil {
		return fmt.Errorf("at rest Resume returned %v, %v", res, err)
	}
	if len(d.log.broken) > 0 {
		return errors.New(strings.Join(d.log.broken, "\n"))
	}
	if r.new == nil {
		return nil // while it is being prepared
	}
	old, new := r.compare()
	end, seq := "old", 3-r.offers
	switch {
	case new == "":
		end, seq = "new", r.offers
	case old != "":
		return fmt.Errorf("the roots are neither old:\n%s\nnor new:\n%s", old, new)
	case r.why != nil:
		end = "refused"
	}
	if !slices.Contains(may, end) {
		return fmt.Errorf("it is %s, and may be %v; history %v", end, may, u.History())
	}
	if end == "refused" && !strings.Contains(r.why.Error(), "bin/app") {
		return fmt.Errorf("the refusal names no entry: %w", r.why)
	}
	if run := u.Status().Running.Seq; run != uint64(seq) {
		return fmt.Errorf("seq %d is installed, and the status says %d", seq, run)
	}
	return errors.Join(r.leftOver(end == "new"), r.scriptsAt(end == "new"))
}

// leftOver looks for what a clean device does not have.
func (r *engineRun) leftOver(isNew bool) error {
	names := r.device.names(r.T)
	want := r.names
	if isNew {
		want = r.clean
	}
	if want == nil || slices.Equal(names, want) {
		return nil
	}
	less := func(a, b []string) string {
		only := slices.DeleteFunc(slices.Clone(a), func(name string) bool { return slices.Contains(b, name) })
		return strings.Join(only, "\n")
	}
	return fmt.Errorf("beside the roots there is left over\n%s\nand is missing\n%s", less(names, want), less(want, names))
}

// scriptsAt checks what scripts of the release that was tried did.
func (r *engineRun) scriptsAt(isNew bool) error {
	l := &r.device.log
	for s, state := range l.state {
		if s.seq != uint64(r.offers) {
			continue
		}
		if !isNew && s.at != release.AfterRevert || state != "done" {
			return fmt.Errorf("%v is %s", s, state)
		}
	}
	if !isNew || !r.scripts {
		return nil
	}
	for _, at := range release.Points() {
		s := engineScript{uint64(r.offers), "", at, "s"}
		if at == release.BeforeActivate {
			s.name = "s1"
		}
		if at != release.AfterRevert && at != release.OnMerge && l.state[s] != "done" {
			return fmt.Errorf("%v never ran to its end: %q", s, l.state[s])
		}
	}
	return nil
}

// good takes the device through one good update.
func (r *engineRun) good() error {
	r.world.source.Offer(r.world.releases[3])
	d := r.device
	d.source, d.report, d.health = r.world.source, nil, func() error { return nil }
	next := &engineRun{T: r.T, world: r.world, device: d, offers: 3, new: map[string]picture{}}
	for _, p := range r.world.parts {
		was := snapshot(r.T, d.path(p.root))
		prev := 1
		if was["version"] == r.world.lists[p.name][2]["version"] {
			prev = 2
		}
		delete(was, "bin/app.pawl-new")
		next.new[p.name] = r.world.goOn(p, was, prev, 3)
	}
	if err := next.live("new"); err != nil {
		return fmt.Errorf("in the good update afterwards: %w", err)
	}
	return nil
}

// engineTally counts.
type engineTally struct{ runs, kills, errors, pairs int }

// TestEngineModel puts faults on steps and on pairs of steps.
func TestEngineModel(t *testing.T) {
	percent := debug.SetGCPercent(800) // a run takes little memory
	t.Cleanup(func() { debug.SetGCPercent(percent) })
	var total engineTally
	for _, sc := range engineScenarios() {
		t.Run(sc.name, func(t *testing.T) { enumerateEngine(t, sc, &total) })
	}
	t.Logf("%d runs: %d with a kill, %d with an error, %d with two kills", total.runs, total.kills, total.errors, total.pairs)
}

// enumerateEngine goes through sc without a fault, then with one at steps, then
// with two.
func enumerateEngine(t *testing.T, sc engineScenario, total *engineTally) {
	w := newEngineWorld(t, sc)
	begin := time.Now()
	many := 1999 // one pair in so many
	switch {
	case long():
		many = 41 * len(sc.parts) * len(sc.parts)
	case testing.Short():
		sc.every = max(sc.every, 41)
	}
	steps, clean := tryEngine(t, sc, w, nil, total)
	for n := 1; n <= steps; n++ {
		if n%sc.every == 0 || long() {
			total.kills++
			left, _ := tryEngine(t, sc, w, clean, total, fault{n, faultKill})
			for m := 1; m <= left; m++ {
				if (7*n+11*m)%many == 0 {
					total.pairs++
					tryEngine(t, sc, w, clean, total, fault{n, faultKill}, fault{m, faultKill})
				}
			}
		}
		if n%(2*sc.every+5) == 0 || long() {
			total.errors++
			tryEngine(t, sc, w, clean, total, fault{n, faultError})
		}
	}
	t.Logf("%d steps, %v", steps, time.Since(begin).Round(time.Millisecond))
}

// tryEngine takes a fresh device through sc. It returns the number of steps
// after the last fault, or of all where there is none, and the names beside
// the roots at the end.
func tryEngine(t *testing.T, sc engineScenario, w *engineWorld, clean []string, total *engineTally, faults ...fault) (steps int, names []string) {
	t.Helper()
	total.runs++
	r := newEngineRun(t, sc, w)
	r.clean = clean
	steps, names, err := r.attempt(faults)
	if err != nil {
		trace := r.device.faults.trace
		t.Fatalf("with %v: %v\nthe last steps:\n%s", faults, err, strings.Join(trace[max(0, len(trace)-60):], "\n"))
	}
	require.NoError(t, os.RemoveAll(r.device.dir))
	return steps, names
}

func (r *engineRun) attempt(faults []fault) (steps int, names []string, err error) {
	d := r.device
	if r.back {
		d.source = offline{}
	}
	may := []string{r.want}
	for i, f := range faults {
		d.faults.set(f)
		if r.failed = f.what == faultError; r.failed || r.either {
			may = append(may, "old")
		}
		for lives := 0; i < len(faults)-1 && !d.faults.hit; lives++ {
			if _, err := r.life(); err != nil || lives > maxEngineLives {
				return 0, nil, fmt.Errorf("before the second fault: %w", err)
			}
		}
	}
	if len(faults) == 0 {
		d.faults.set(fault{})
	}
	if err := r.live(may...); err != nil {
		return 0, nil, err
	}
	if len(faults) > 0 && !d.faults.hit {
		return 0, nil, fmt.Errorf("the device rests after %d steps, before the fault", r.steps)
	}
	steps = r.steps
	if len(faults) > 0 {
		steps -= faults[len(faults)-1].n
	}
	names = d.names(r.T)
	d.faults.set(fault{})
	return steps, names, r.good()
}

// offline is a source that cannot be reached.
type offline struct{ ota.Source }

func (offline) Latest(context.Context, ota.Device) (*release.Release, error) {
	return nil, errors.New("the device is offline")
}
