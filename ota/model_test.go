package ota_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

// The model: a device in memory goes from release 1 to release 2, or is told
// to, and something goes wrong at every step of it that a disk would remember,
// and at every pair of such steps. Whatever went wrong, the device is started
// again and does what it is asked for, until it rests. Then every part has to
// run exactly one release, the same one, and one good update has to succeed.
//
// What is checked here is read from the device itself: the bytes that run. It
// has no code in common with the engine.

// PAWL_MODEL=full has every fault and every pair of power cuts tried in every
// scenario: many minutes. What is left out without it, and with -short, is said
// by tried and paired.
const fullModel = "PAWL_MODEL"

// scenario is one thing that a device goes through.
type scenario struct {
	name   string
	parts  []otatest.Part
	health otatest.Health
	// first leaves the device empty before, and same keeps one part as it is.
	first, same bool
	// refuse is how many trial boots the boot loader refuses.
	refuse int
	// prepare changes the device once it runs release 1.
	prepare func(*otatest.Device)
	// drive is one process's part in it: byUpdate when nil.
	drive driver
	// from is what runs before: 1, 2 for a way back, 0 when first.
	from int
	// may are the releases that may run at the end, by seq; when no fault
	// happens, want has to.
	may  []int
	want int
	// offer is the release to be installed, 2 when it is 0. With 3 the device
	// has come to rest with release 2 first.
	offer int
	// scripts are in every release, and exits are the codes with which some of
	// release 2 end.
	scripts bool
	exits   map[otatest.Script][]int
	// endless scenarios end when the engine holds the release back, or is
	// stuck.
	endless bool
	// torn scenarios run two releases at once on purpose until the end.
	torn bool
	// hangs has the scenario run in a bubble of package synctest, where
	// waiting for an answer takes no time.
	hangs bool
	// damage is done to the state folder after the first fault.
	damage func(*otatest.Device)
}

const forEver = 1 << 30

func effects(e ...ota.Effect) (parts []otatest.Part) {
	for i, effect := range e {
		parts = append(parts, otatest.Part{Name: fmt.Sprintf("part%d-%s", i, effect), Effect: effect})
	}
	return parts
}

// scenarios returns the product of effects, health and boot loader, and what
// stands beside it.
func scenarios() (list []scenario) {
	const live, restart, reboot = ota.Live, ota.NeedsRestart, ota.NeedsReboot
	kinds := [][]ota.Effect{
		{live}, {restart}, {reboot},
		{live, live, live}, {restart, restart, restart}, {reboot, reboot, reboot},
		{live, reboot}, {live, restart, reboot},
	}
	answers := []struct {
		name   string
		health otatest.Health
		want   int
	}{
		{"healthy", otatest.Healthy(), 2}, {"sick", otatest.Sick(), 1},
		{"healthy then sick", otatest.HealthyThenSick(3), 1},
	}
	for _, kind := range kinds {
		parts := effects(kind...)
		name := strings.Trim(fmt.Sprint(kind), "[]")
		for _, a := range answers {
			list = append(list, scenario{
				name: name + "/" + a.name, parts: parts, health: a.health, from: 1, want: a.want, may: []int{a.want},
			})
			if !strings.Contains(name, string(reboot)) {
				continue
			}
			list = append(list, scenario{
				name: name + "/" + a.name + "/refused for ever", parts: parts, health: a.health, from: 1, want: 1, may: []int{1},
				refuse: forEver, endless: true,
			}, scenario{
				name: name + "/" + a.name + "/refused once", parts: parts, health: a.health, from: 1, want: a.want, may: []int{a.want},
				refuse: 1,
			})
		}
	}
	return append(append(list, besides(live, restart, reboot)...), withScripts()...)
}

// besides are the scenarios that no product has.
func besides(live, restart, reboot ota.Effect) []scenario {
	mixed := effects(live, restart, reboot)
	healthy, one, two := otatest.Healthy(), []int{1}, []int{2}
	stuck := func(verb string, part, times int) func(*otatest.Device) {
		return func(d *otatest.Device) { d.FailVerb(verb, mixed[part].Name, times) }
	}
	return []scenario{
		{name: "first install", parts: mixed, health: healthy, first: true, want: 2, may: two},
		{name: "first install/sick", parts: effects(live, restart), health: otatest.Sick(), first: true, want: 0, may: []int{0}},
		{name: "first install/sick, reboots", parts: mixed, health: otatest.Sick(), first: true, want: 0, may: []int{0}},
		{name: "one part stays", parts: mixed, health: healthy, same: true, from: 1, want: 2, may: two},
		{name: "one part stays/sick", parts: mixed, health: otatest.Sick(), same: true, from: 1, want: 1, may: one},
		{name: "slow start", parts: mixed, health: otatest.SickThenHealthy(9), from: 1, want: 2, may: two},
		{name: "never asked again", parts: mixed, health: otatest.HealthyUntilProved(4), from: 1, want: 2, may: []int{1, 2}},
		{name: "crash loop", parts: effects(live, restart), health: otatest.Crashing(false), from: 1, want: 1, may: one, endless: true},
		{name: "panic loop", parts: effects(live, restart), health: otatest.Crashing(true), from: 1, want: 1, may: one, endless: true},
		{name: "flaky", parts: mixed, health: otatest.Flaky(3), from: 1, want: 1, may: one},
		{name: "way back", parts: mixed, health: healthy, drive: byRollback, from: 2, want: 1, may: one},
		{name: "way back/one part stays", parts: mixed, health: healthy, same: true, drive: byRollback, from: 2, want: 1, may: one},
		{name: "by single verbs", parts: mixed, health: healthy, drive: byVerbs, from: 1, want: 2, may: two},
		{name: "by single verbs/sick", parts: mixed, health: otatest.Sick(), drive: byVerbs, from: 1, want: 1, may: one},
		{name: "taken back by hand", parts: mixed, health: healthy, drive: byHand, from: 1, want: 1, may: one},
		{name: "activate fails", parts: mixed, health: healthy, from: 1, want: 2, may: two, prepare: stuck("Activate", 1, 1)},
		{name: "revert fails/some", parts: mixed, health: otatest.Sick(), from: 1, want: 1, may: one, prepare: stuck("Revert", 1, 2)},
		{name: "revert fails/many", parts: mixed, health: otatest.Sick(), from: 1, want: 1, may: one, prepare: stuck("Revert", 0, 7)},
		{name: "commit fails/many", parts: mixed, health: healthy, from: 1, want: 2, may: two, prepare: stuck("Commit", 1, 7)},
		{name: "revert fails/for ever", parts: mixed, health: otatest.Sick(), from: 1, want: 1, may: nil, torn: true, endless: true,
			prepare: stuck("Revert", 1, forEver)},
		{name: "revert fails/newer over it", parts: mixed, health: otatest.Sick(), from: 1, want: 3, may: []int{3}, torn: true,
			prepare: stuck("Revert", 1, 12), offer: 3},
		{name: "hang", parts: mixed, health: otatest.HealthyThenHang(2, false), from: 1, want: 1, may: one, endless: true, hangs: true},
		{name: "hang/deaf", parts: mixed, health: otatest.HealthyThenHang(2, true), from: 1, want: 1, may: one, endless: true, hangs: true},
	}
}

// world is the repository of a scenario, and what its releases put where.
type world struct {
	repo     *otatest.Repo
	releases [4]*release.Release // by seq
	labels   [4]map[string]string
	// devices are as they are when it starts.
	device *otatest.Device
}

// newWorld makes releases 1 to 3 and a device that runs the one before. Only
// release 2 answers as the scenario says, but where the way is back from it.
func newWorld(t testing.TB, sc scenario) *world {
	w := &world{repo: otatest.NewRepo()}
	for seq := 1; seq <= 3; seq++ {
		var contents []otatest.Content
		w.labels[seq] = map[string]string{}
		for i, p := range sc.parts {
			label := fmt.Sprint("v", seq)
			if sc.same && seq == 2 && i == len(sc.parts)-1 {
				label = "v1"
			}
			contents = append(contents, otatest.Content{Part: p.Name, Label: label})
			w.labels[seq][p.Name] = label
		}
		health := otatest.Healthy()
		if seq == 2 {
			health = sc.health
		}
		add := w.repo.Add
		if sc.scripts {
			add = w.repo.AddScripted
		}
		w.releases[seq] = add(uint64(seq), health, contents...)
	}
	w.device = otatest.NewDevice(w.repo, sc.parts...)
	for seq := 1; seq <= sc.from; seq++ {
		w.device.Offer(w.releases[seq])
		r := run{scenario: scenario{may: []int{seq}, from: seq - 1}, world: w, device: w.device}
		if err := r.live(); err != nil {
			t.Fatalf("release %d cannot be installed to begin with: %v", seq, err)
		}
	}
	w.device.Offer(w.releases[2])
	w.device.Offline(sc.from == 2) // a way back needs no network
	if sc.prepare != nil {
		sc.prepare(w.device)
	}
	for s, codes := range sc.exits {
		w.device.ScriptExits(s, codes...)
	}
	for _, p := range sc.parts {
		if p.Effect == ota.NeedsReboot {
			w.device.Refuse(p.Name, sc.refuse)
		}
	}
	if sc.offer == 3 {
		before := sc
		before.endless, before.may = true, nil
		r := run{scenario: before, world: w, device: w.device}
		if err := r.live(); err != nil {
			t.Fatalf("release 2 cannot be tried to begin with: %v", err)
		}
		w.device.Offer(w.releases[3])
	}
	return w
}

// runs returns the seqs of the releases that all parts run, 0 for nothing: two
// where they have every part in common.
func (w *world) runs(look func(string) [2]string) (seqs []int, seen string) {
	for seq := range w.labels {
		all := true
		for part, label := range w.labels[len(w.labels)-1] {
			want := [2]string{}
			if seq > 0 {
				label = w.labels[seq][part]
				want = otatest.Content{Part: part, Label: label}.Files()
			}
			all = all && look(part) == want
		}
		if all {
			seqs = append(seqs, seq)
		}
	}
	for part := range w.labels[len(w.labels)-1] {
		seen += fmt.Sprintf(" %q", look(part))
	}
	return seqs, seen
}

// run is one device that goes through a scenario.
type run struct {
	scenario
	world  *world
	device *otatest.Device
	failed bool // a step returned an error to a process that lived on
	rests  int  // the seq that it came to rest with
}

// maxLives bounds the processes that a device may take to come to rest.
const maxLives = 60

// live starts processes until one of them is done.
func (r *run) live() error {
	for range maxLives {
		switch d := r.device; {
		case !d.Up():
			d.Boot()
		case !d.Alive():
			d.Restart()
		}
		done, err := r.life()
		if !r.device.Alive() {
			if r.damage != nil && r.device.Faults() > 0 {
				r.damage(r.device)
				r.damage = nil
			}
			continue
		}
		if err != nil || done {
			return errors.Join(err, r.broken())
		}
	}
	return fmt.Errorf("the device did not come to rest in %d processes", maxLives)
}

func (r *run) broken() error {
	if b := r.device.Broken(); len(b) > 0 {
		return errors.New("rules were broken: " + strings.Join(b, "; "))
	}
	return nil
}

// life is one process, from Open to the restart or reboot that it asks for.
func (r *run) life() (done bool, err error) {
	d := r.device
	ctx := d.Context()
	u, err := ota.Open(ctx, d.Options())
	if err != nil {
		return false, fmt.Errorf("open: %w", err)
	}
	defer func() { _ = u.Close() }()
	res, err := u.Resume(ctx)
	if over, err := r.after(res, err); over || err != nil || !d.Alive() {
		return false, err
	}
	if !r.torn && !errors.Is(err, ota.ErrStuck) {
		if err := r.consistent(); err != nil {
			return false, fmt.Errorf("after Resume returned %v: %w", res, err)
		}
	}
	if err := r.stoodDown(u); err != nil {
		return false, err
	}
	drive := r.drive
	if drive == nil {
		drive = byUpdate
	}
	done, res, err = drive(r, u)
	if errors.Is(err, ota.ErrStuck) || errors.Is(err, ota.ErrBackoff) {
		done = r.endless
	}
	if over, err := r.after(res, err); over || err != nil || !d.Alive() {
		return false, err
	}
	if !done {
		d.Restart()
		return false, nil
	}
	if r.may == nil {
		return true, nil
	}
	return true, r.atRest(u)
}

// after does what a verb asked for. over is set when that ends the process.
func (r *run) after(res ota.Result, err error) (over bool, _ error) {
	d := r.device
	reboot := res.Needs == ota.NeedsReboot || errors.Is(err, ota.ErrRebootPending)
	restart := res.Needs == ota.NeedsRestart || errors.Is(err, ota.ErrRestartPending)
	switch {
	case !d.Alive():
		return true, nil
	case reboot:
		d.Boot()
	case restart:
		d.Restart()
	case errors.Is(err, ota.ErrPoisoned) && r.failed:
		d.Restart()
	case errors.Is(err, ota.ErrStuck), errors.Is(err, ota.ErrBackoff):
		d.Wait(48 * time.Hour)
		return false, nil
	case err == nil, errors.Is(err, ota.ErrUnhealthy), errors.Is(err, ota.ErrHeld), r.failed:
		return false, nil
	case r.exits != nil && (errors.Is(err, ota.ErrScript) || errors.Is(err, ota.ErrRefused) || errors.Is(err, ota.ErrLater)):
		return false, nil
	case strings.Contains(err.Error(), "as asked for"):
		return false, nil
	default:
		return false, fmt.Errorf("%v: %w", res, err)
	}
	return true, nil
}

// consistent checks that every part runs the same release.
func (r *run) consistent() error {
	seqs, seen := r.world.runs(r.device.Runs)
	if len(seqs) == 0 {
		return fmt.Errorf("not one release runs:%s", seen)
	}
	return nil
}

// atRest checks what a device runs and will run when nothing is open any more.
func (r *run) atRest(u *ota.Updater) error {
	for _, look := range []func(string) [2]string{r.device.Runs, r.device.Installed} {
		seqs, seen := r.world.runs(look)
		if !overlap(seqs, r.may) && !(r.scripts && r.failed && overlap(seqs, []int{r.from})) {
			return fmt.Errorf("releases %v may run, and there is:%s", r.may, seen)
		}
		r.rests = int(u.Status().Running.Seq)
		if err := r.scriptsAt(r.rests); err != nil {
			return err
		}
		if s := u.Status(); !overlap(seqs, []int{int(s.Running.Seq)}) || s.State != ota.Idle || s.Tx != nil {
			return fmt.Errorf("the status is %v with %v running, and there is:%s", s.State, s.Running, seen)
		}
	}
	return nil
}

func overlap(a, b []int) bool {
	for _, x := range a {
		for _, y := range b {
			if x == y {
				return true
			}
		}
	}
	return false
}

// good takes the device through one good update.
func (r *run) good() error {
	r.device.Offline(false)
	for _, p := range r.parts {
		r.device.Refuse(p.Name, 0)
	}
	r.device.Offer(r.world.releases[3])
	next := run{scenario: scenario{may: []int{3}, torn: r.torn, parts: r.parts, scripts: r.scripts, from: max(r.from, r.rests)}, world: r.world, device: r.device, failed: r.failed}
	if err := next.live(); err != nil {
		return fmt.Errorf("in the good update afterwards: %w", err)
	}
	return nil
}
