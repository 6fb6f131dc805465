package ota_test

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/pawl-ota/pawl/ota/otatest"
)

// tally counts over all scenarios.
type tally struct{ runs, single, double atomic.Int64 }

func (c *tally) log(t *testing.T) {
	t.Logf("%d runs: %d with one fault, %d with two", c.runs.Load(), c.single.Load(), c.double.Load())
}

// TestModel puts faults on steps and on pairs of steps.
func TestModel(t *testing.T) {
	relaxGC(t)
	var total tally
	t.Cleanup(func() { total.log(t) })
	for _, sc := range scenarios() {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			if sc.hangs {
				synctest.Test(t, func(t *testing.T) { enumerate(t, sc, &total) })
				return
			}
			enumerate(t, sc, &total)
		})
	}
}

func full() bool { return os.Getenv(fullModel) == "full" }

// relaxGC trades memory, of which a run takes little, for a third of the time.
func relaxGC(t *testing.T) {
	percent := debug.SetGCPercent(800)
	t.Cleanup(func() { debug.SetGCPercent(percent) })
}

// journals are the files whose newest is lost in TestModelDamage.
var journals = []string{"journal.a", "journal.b"}

// newest returns the journal file that was written last.
func newest(d *otatest.Device) string {
	for _, name := range d.Written("journal.") {
		if name == journals[0] || name == journals[1] {
			return name
		}
	}
	return journals[0]
}

// TestModelDamage cuts the power at every step, and the disk has then lost the
// newest record of the journal, or both.
func TestModelDamage(t *testing.T) {
	relaxGC(t)
	torn := func(b []byte) []byte { return b[:len(b)/2] }
	zeroed := func(b []byte) []byte { return make([]byte, len(b)) }
	damages := []struct {
		name string
		f    func(*otatest.Device)
	}{
		{"newest torn", func(d *otatest.Device) { d.Corrupt(newest(d), torn) }},
		{"newest zeroed", func(d *otatest.Device) { d.Corrupt(newest(d), zeroed) }},
		{"both torn", func(d *otatest.Device) { d.Corrupt(journals[0], torn); d.Corrupt(journals[1], torn) }},
	}
	var total tally
	t.Cleanup(func() { total.log(t) })
	for _, sc := range scenarios() {
		for i, damage := range damages {
			sc := sc
			sc.damage = damage.f
			if strings.HasPrefix(damage.name, "both") {
				// All memory is lost. What can be asked for is that the
				// device is not, and that the next release installs.
				sc.torn, sc.may, sc.endless, sc.same = true, nil, true, false
			}
			if sc.scripts && sc.torn || sc.hangs || sc.torn && (sc.drive != nil || sc.offer == 3) {
				continue
			}
			t.Run(sc.name+"/"+damage.name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, sc)
				last := try(t, sc, w, w.device, &total)
				for n := 1; n <= last; n++ {
					if full() || !testing.Short() && !sc.scripts && n%6 == i || !thin() && n%12 == i || n%48 == i {
						try(t, sc, w, w.device, &total, fault{n, otatest.PowerCut})
					}
				}
			})
		}
	}
}

// enumerate goes through sc without a fault, then with a fault at every step,
// and then at pairs of steps.
func enumerate(t *testing.T, sc scenario, total *tally) {
	w := newWorld(t, sc)
	smooth := sc
	if sc.may != nil {
		smooth.may = []int{sc.want}
	}
	steps := try(t, smooth, w, w.device, total)
	for n := 1; n <= steps; n++ {
		for i, first := range []otatest.Fault{otatest.PowerCut, otatest.Kill, otatest.Fail} {
			if !tried(sc, n, i) {
				continue
			}
			left := try(t, sc, w, w.device, total, fault{n, first})
			if first != otatest.Fail {
				pairs(t, sc, w, fault{n, first}, left, total)
			}
		}
	}
}

// thin is the ordinary user's run beside root's: the model is the same for both.
func thin() bool { return testing.Short() && os.Geteuid() != 0 }

// tried says whether a fault of the kind i is put on step n: every power cut,
// and every fault in scenarios of one part whose boot loader refuses nothing;
// else the other kinds take turns. Scenarios with scripts have many steps, of
// which one in six, or in twelve, has a fault.
func tried(sc scenario, n, i int) bool {
	switch {
	case full():
		return true
	case thin():
		return n%24 == i
	case testing.Short():
		return n%3 == i
	case sc.scripts:
		return n%(3+3*len(sc.parts)) == i
	default:
		return i == 0 || len(sc.parts) == 1 && sc.refuse == 0 || n%5 == i
	}
}

// pairs puts a second fault on the left steps after the first.
func pairs(t *testing.T, sc scenario, w *world, first fault, left int, total *tally) {
	if sc.hangs {
		return
	}
	var after *otatest.Device
	for m := 1; m <= left; m++ {
		for i, second := range []otatest.Fault{otatest.PowerCut, otatest.Kill} {
			if !paired(sc, first, m, i) {
				continue
			}
			if after == nil {
				after = until(sc, w, first)
			}
			try(t, sc, w, after, total, first, fault{m, second})
		}
	}
}

// paired says whether a fault of the kind i on step m follows the first: every
// power cut a power cut in the full model, and in scenarios of one part without
// scripts whose boot loader refuses nothing; else one pair in many, which follows from the
// numbers alone.
func paired(sc scenario, first fault, m, i int) bool {
	many := 199
	switch {
	case full():
		power := first.what == otatest.PowerCut && i == 0
		return power || (first.n+m+i)%3 == 0
	case thin():
		many = 4999
	case testing.Short():
	case sc.scripts:
		many = 997
	case len(sc.parts) == 1 && sc.refuse == 0:
		if first.what == otatest.PowerCut && i == 0 {
			return true
		}
	case len(sc.parts) == 1:
		many = 41
	}
	return (3*first.n+5*m+i+len(first.what))%many == 0
}

// fault is one fault, at the nth step from a start.
type fault struct {
	n    int
	what otatest.Fault
}

// until returns the device as it is right after the fault.
func until(sc scenario, w *world, f fault) *otatest.Device {
	r := newRun(sc, w, w.device)
	r.device.At(f.n, f.what)
	for r.device.Faults() == 0 {
		if _, err := r.life(); err != nil {
			break
		}
	}
	return r.device
}

func newRun(sc scenario, w *world, from *otatest.Device) *run {
	return &run{scenario: sc, world: w, device: from.Clone()}
}

// try takes a copy of a device through sc with the last of faults; an earlier
// one has happened to it already. It returns the number of steps after the
// last fault, or of all where there is none.
func try(t *testing.T, sc scenario, w *world, from *otatest.Device, total *tally, faults ...fault) int {
	t.Helper()
	total.runs.Add(1)
	switch len(faults) {
	case 1:
		total.single.Add(1)
	case 2:
		total.double.Add(1)
	}
	steps, err := attempt(newRun(sc, w, from), faults)
	if err == nil {
		return steps
	}
	again := newRun(sc, w, w.device)
	again.device.Log = true
	if len(faults) == 2 {
		again.device.At(faults[0].n, faults[0].what)
		for again.device.Faults() == 0 {
			_, _ = again.life()
		}
	}
	_, _ = attempt(again, faults)
	t.Fatalf("with %v: %v\n%s", faults, err, strings.Join(again.device.Trace(), "\n"))
	return 0
}

// attempt runs what is left of a scenario, then the good update; of the pairs
// every fifth has one.
func attempt(r *run, faults []fault) (steps int, err error) {
	d := r.device
	defer d.Cut(otatest.PowerCut)
	begin, hits := d.Steps(), d.Faults()
	if len(faults) > 0 {
		last := faults[len(faults)-1]
		d.At(last.n, last.what)
		begin += last.n
		r.failed = last.what == otatest.Fail
	}
	if err := r.live(); err != nil {
		return 0, err
	}
	steps = d.Steps() - begin
	if len(faults) > 0 && d.Faults() == hits {
		return 0, fmt.Errorf("the device rests after %d steps, before the fault", steps)
	}
	d.Cut(otatest.Fail)
	if err := r.untouched(); err != nil {
		return 0, err
	}
	if len(faults) == 2 && (faults[0].n+faults[1].n)%5 > 0 {
		return steps, nil
	}
	return steps, r.good()
}

// untouched checks that a part which stays the same was let alone.
func (r *run) untouched() error {
	if r.same {
		name := r.parts[len(r.parts)-1].Name
		if n := r.device.Touched(name) - r.world.device.Touched(name); n > 0 {
			return fmt.Errorf("%s stays the same and was touched %d times", name, n)
		}
	}
	if r.hangs && r.device.Resets() == 0 {
		return errors.New("the watchdog did not reset a device that hangs")
	}
	return nil
}
