package otatest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// Fault is what goes wrong at one step of a [Device].
type Fault string

// The values of [Fault]. In all of them the step has no effect.
const (
	// PowerCut takes the power away; everything that was not durable is lost.
	PowerCut Fault = "power"
	// Kill ends the process; the device stays up.
	Kill Fault = "kill"
	// Fail has the one step return an I/O error; the process lives on.
	Fail Fault = "fail"
)

var (
	errDead = errors.New("otatest: this process has ended")
	// errNotStarted is the simulated app's own answer.
	errNotStarted = errors.New("not started")
)

// What things take on a simulated device, in its own time.
const (
	bootTime  = 15 * time.Second
	startTime = 2 * time.Second
	verbTime  = 20 * time.Second // one call of Stage, Activate, Commit or Revert
	askTime   = time.Second      // one answer of the health check
)

// Part is one component that a simulated device has a backend for.
type Part struct {
	Name   string
	Effect ota.Effect // what its Activate needs to become effective
}

// Device is a simulated device: state folder, boot loader, watchdog, clock and
// one backend for each of its parts, all in memory. Steps that a real disk
// would remember are counted, and a [Fault] can be put on any of them. Time is
// simulated too: nothing waits.
//
// A process on the device is what Options returns; after the power or the
// process is gone everything in it fails. Its methods may be called from any
// goroutine.
type Device struct {
	mu     sync.Mutex
	repo   *Repo
	state  state
	faults map[int]Fault
	steps  int
	hits   int
	ctx    context.Context
	cancel context.CancelFunc
	trace  []string
	line   line

	// Log has Trace keep every step. It is set before the first one.
	Log bool
}

// state is all that there is of a device, disk and memory.
type state struct {
	files   map[string]file
	ghosts  map[string]file // cleared, and durable before that
	written int             // counts writes, for their order
	parts   map[string]*part
	offered *release.Release
	offline bool
	refuse  map[string]int    // trial boots that the boot loader will refuse, by part
	failing map[string]int    // verbs that will fail, by "Verb part"
	asked   map[string]int    // answers given by a health script, by its component
	begun   map[ota.TxID]bool // transactions whose Commit was called
	broken  []string          // rules that were seen broken
	resets  int
	scripts map[Script]ScriptState
	order   []ranScript // those of scripts, as they began
	// Exit codes of the next runs of scripts.
	exits, undoExits map[Script][]int

	up, alive     bool
	boots, starts int
	uptime, clock time.Duration
	watchdog, fed time.Duration // uptime at which it bites, 0 when not armed; what it was armed with
	locked        bool
	free          [2]int64 // bytes and inodes
	memory        int64
}

// NewDevice returns a device that is up, with nothing installed, and with repo
// as its source, which offers nothing yet.
func NewDevice(repo *Repo, parts ...Part) *Device {
	d := &Device{repo: repo, state: state{
		files: map[string]file{}, ghosts: map[string]file{}, parts: map[string]*part{},
		refuse: map[string]int{}, failing: map[string]int{}, asked: map[string]int{}, begun: map[ota.TxID]bool{},
		scripts: map[Script]ScriptState{}, exits: map[Script][]int{}, undoExits: map[Script][]int{},
		free: [2]int64{1 << 40, 1 << 30}, memory: 1 << 30,
	}}
	for _, p := range parts {
		d.state.parts[p.Name] = newPart(p)
	}
	d.Boot()
	return d
}

// Clone returns a second device in exactly the same state, in a process of its
// own that goes on where this one is. Faults and trace are not taken over.
func (d *Device) Clone() *Device {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &Device{repo: d.repo, state: d.state, Log: d.Log}
	s := &c.state
	s.files, s.ghosts = maps.Clone(s.files), maps.Clone(s.ghosts)
	s.refuse, s.failing = maps.Clone(s.refuse), maps.Clone(s.failing)
	s.scripts, s.exits, s.undoExits = maps.Clone(s.scripts), maps.Clone(s.exits), maps.Clone(s.undoExits)
	s.asked, s.begun, s.broken = maps.Clone(s.asked), maps.Clone(s.begun), slices.Clone(s.broken)
	s.parts = make(map[string]*part, len(d.state.parts))
	for name, p := range d.state.parts {
		s.parts[name] = p.clone()
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if !s.alive {
		c.cancel()
	}
	return c
}

// Boot starts the device anew, in an orderly way when it is up. The boot
// loader brings up what is armed, once, unless it refuses, and what is
// permanent otherwise.
func (d *Device) Boot() {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &d.state
	s.up, s.uptime, s.watchdog = true, 0, 0
	s.boots++
	s.clock += bootTime
	for _, name := range slices.Sorted(maps.Keys(s.parts)) {
		s.parts[name].boot(s.refuses(name))
	}
	d.start()
}

func (s *state) refuses(name string) func() bool {
	return func() bool {
		if s.refuse[name] == 0 {
			return false
		}
		s.refuse[name]--
		return true
	}
}

// Restart starts a new process in the same boot. On a device without power it
// is Boot.
func (d *Device) Restart() {
	d.mu.Lock()
	up := d.state.up
	if up {
		d.start()
	}
	d.mu.Unlock()
	if !up {
		d.Boot()
	}
}

// start begins a new process; d.mu is held.
func (d *Device) start() {
	if d.cancel != nil {
		d.cancel()
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.state.starts++
	d.state.alive, d.state.locked = true, false
	for _, p := range d.state.parts {
		p.loaded = p.live
	}
	d.state.advance(startTime)
	d.bite()
}

// Context ends when the process that is running now ends.
func (d *Device) Context() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ctx
}

// Up reports whether the device has power. Alive reports whether a process
// runs on it.
func (d *Device) Up() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state.up
}

// Alive reports whether the process runs that Options was last called for.
func (d *Device) Alive() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state.alive
}

// At puts a fault on the step that is the nth from now, from 1 on.
func (d *Device) At(n int, f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.faults == nil {
		d.faults = map[int]Fault{}
	}
	d.faults[d.steps+n] = f
}

// Steps returns how many steps were made so far, the ones that a fault hit
// included.
func (d *Device) Steps() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.steps
}

// Cut has the fault happen now, between two steps. It takes back the faults
// that At announced and that were not reached. Fail does nothing else.
func (d *Device) Cut(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.faults)
	switch f {
	case PowerCut:
		d.powerOff()
	case Kill:
		d.end()
	}
}

// Touched returns how often a verb of a part's backend was called that could
// change something.
func (d *Device) Touched(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state.parts[name].touched
}

// Faults returns how many of the faults of At were reached.
func (d *Device) Faults() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hits
}

// Trace returns what happened so far, when Log is set.
func (d *Device) Trace() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.trace)
}

// note adds a line to the trace; d.mu is held.
func (d *Device) note(format string, args ...any) {
	if d.Log {
		d.trace = append(d.trace, fmt.Sprintf(format, args...))
	}
}

// Broken returns the rules of the contract between engine and backends that
// were seen broken: a Commit of what does not run or must not be kept, a
// Revert after a Commit, an app activated below an old system, and the like.
func (d *Device) Broken() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.state.broken)
}

// Resets returns how often the watchdog reset the device.
func (d *Device) Resets() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state.resets
}

// Offer makes r what the source of the device has as its newest release.
func (d *Device) Offer(r *release.Release) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.offered = r
}

// Offline takes the network from the device, or gives it back.
func (d *Device) Offline(off bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.offline = off
}

// Refuse has the boot loader refuse the next n trial boots of a part that
// needs a reboot.
func (d *Device) Refuse(name string, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.refuse[name] = n
}

// FailVerb has the next n calls of a verb ("Stage", "Activate", "Commit" or
// "Revert") fail for one part, before they change anything.
func (d *Device) FailVerb(verb, name string, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.failing[verb+" "+name] = n
}

// SetFree sets what is free on the device's one file system.
func (d *Device) SetFree(bytes, inodes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.free = [2]int64{bytes, inodes}
}

// SetMemory sets how many bytes of memory the device has available.
func (d *Device) SetMemory(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.memory = bytes
}

// Wait lets time go by on the device.
func (d *Device) Wait(t time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.advance(t)
	d.bite()
}

// Runs returns the two files that run now as a part: what the boot loader
// brought up, what the process was started from, or what is on the disk,
// depending on the part's effect. A part that nobody started after a boot
// runs nothing.
func (d *Device) Runs(name string) [2]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state.parts[name].runs().text()
}

// Installed returns the two files that will run as a part when it starts
// anew.
func (d *Device) Installed(name string) [2]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state.parts[name].installed().text()
}

// Options returns the options of the process that runs now: its own state
// folder, source, backends, health check and watchdog. What is not about the
// device itself may be changed.
func (d *Device) Options() ota.Options {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := &process{d: d, id: d.state.starts, ctx: d.ctx}
	o := ota.Options{
		Device:   d.repo.device,
		Source:   repoSource{p},
		Backends: map[string]ota.Backend{},
		Health:   p.health,
		Trial: ota.Trial{
			Soak: 30 * time.Second, Interval: 10 * time.Second, Timeout: 5 * time.Second,
			Deadline: 10 * time.Minute,
		},
		Watchdog:        watchdog{p},
		WatchdogTimeout: 35 * time.Second,
	}
	for name := range d.state.parts {
		o.Backends[name] = Backend{p}
	}
	seam.Set(&o, host{p}, stateDir{p})
	return o
}

// process is one process on the device, as far as it can still do anything.
type process struct {
	d   *Device
	id  int
	ctx context.Context
}

// alive reports whether p still runs; d.mu is held.
func (p *process) alive() bool { return p.d.state.alive && p.d.state.starts == p.id }

// look runs f while nothing else happens, unless p has ended.
func (p *process) look(f func(s *state)) error {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	if !p.alive() {
		return errDead
	}
	f(&p.d.state)
	return nil
}

// step makes one change that a disk would remember, unless a fault is on it.
func (p *process) step(what string, change func(s *state)) error {
	d := p.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if !p.alive() {
		return errDead
	}
	d.steps++
	fault := d.faults[d.steps]
	d.note("%d: %s %s", d.steps, what, fault)
	if fault != "" {
		d.hits++
	}
	switch fault {
	case PowerCut:
		d.powerOff()
		return errDead
	case Kill:
		d.end()
		return errDead
	case Fail:
		return fmt.Errorf("otatest: cannot %s: %w", what, syscall.EIO)
	}
	change(&d.state)
	return nil
}

// end ends the process; d.mu is held.
func (d *Device) end() {
	d.state.alive, d.state.locked = false, false
	d.cancel()
}

// powerOff ends everything and loses what was not durable; d.mu is held.
func (d *Device) powerOff() {
	d.end()
	d.state.up = false
	d.state.lose(d.steps)
}

// advance lets time go by.
func (s *state) advance(t time.Duration) {
	s.uptime += t
	s.clock += t
}

// bite resets the device when its watchdog starved; d.mu is held.
func (d *Device) bite() {
	if s := &d.state; s.up && s.watchdog > 0 && s.uptime >= s.watchdog {
		d.note("the watchdog resets the device")
		s.resets++
		d.powerOff()
	}
}

// spend lets time go by in p.
func (p *process) spend(t time.Duration) error {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	if !p.alive() {
		return errDead
	}
	p.d.state.advance(t)
	p.d.bite()
	if !p.alive() {
		return errDead
	}
	return nil
}

// breaks notes a broken rule.
func (s *state) breaks(format string, args ...any) {
	s.broken = append(s.broken, fmt.Sprintf(format, args...))
}
