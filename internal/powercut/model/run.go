//go:build linux && (amd64 || arm64)

package model

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// Options say how many crashes are looked at.
type Options struct {
	// States is how many, at most.
	States int
	// Seed decides which, where there are more: see Crashes.
	Seed uint64
	// Recoveries is of how many of the states the recovery is recorded, and cut
	// short in RecoveryStates ways each.
	Recoveries, RecoveryStates int
	// Orders are those that what is recorded has to keep.
	Orders []Order
	// First ends it at the first violation.
	First bool
	// Until ends it early, if it is not zero.
	Until time.Time
	// Progress, if it is there, is called every few minutes.
	Progress func(*Report)
	// Env is added to the environment of what is recorded.
	Env []string
}

// Report says what was looked at.
type Report struct {
	Workload   string
	Calls      int // that were recorded
	Effects    int
	Kills      int // at which a process was killed, where it was killed anywhere
	States     int // distinct ones, of disk and facts
	Proofs     int // of those that were compared with what was to be laid out
	Recoveries int // that were recorded
	Deeper     int // states after a crash of a recovery
	Violations []Violation
	Took       time.Duration
}

// Violation is a state in which a promise does not hold.
type Violation struct {
	Err   error
	Calls int      // that had been made
	Last  string   // the last of them
	Lost  []string // what a crash took of what they did; as little of it as is enough
	Facts []string
	Deep  bool // it is of a recovery
}

// String describes it for a person.
func (v *Violation) String() string {
	where := "crash"
	if v.Deep {
		where = "crash of the recovery"
	}
	return fmt.Sprintf("%s after %d calls, the last one %s, acknowledged %q:\n  %v\n  %s",
		where, v.Calls, v.Last, v.Facts, v.Err, strings.Join(v.Lost, "\n  "))
}

// String says it in one line.
func (r *Report) String() string {
	s := fmt.Sprintf("model: %s: %d calls, %d effects, %d states", r.Workload, r.Calls, r.Effects, r.States)
	if r.Kills > 0 {
		s += fmt.Sprintf(" after kills at %d of the calls", r.Kills)
	}
	if r.Recoveries > 0 {
		s += fmt.Sprintf(", %d of %d crashed recoveries", r.Deeper, r.Recoveries)
	}
	return s + fmt.Sprintf(", %d proofs of the layout, %d violations in %.1f s", r.Proofs, len(r.Violations), r.Took.Seconds())
}

// maxViolations ends a campaign: what follows would be the same again.
const maxViolations = 10

// Stand is where workloads are recorded and their crashes are laid out: a folder,
// which should be in memory. Workloads may run on it at the same time.
type Stand struct {
	dir string
	x   *known
}

// NewStand makes a stand in the folder dir. There is one at a time in a process,
// until done is called.
func NewStand(dir string) (s *Stand, done func()) {
	s = &Stand{dir, &known{}}
	return s, s.x.install()
}

// Run records the workload and looks at its crashes. The error is of the
// machinery; violations are in the Report.
func (w *Workload) Run(ctx context.Context, s *Stand, o Options) (*Report, error) {
	began := time.Now()
	var r *Report
	_, err := w.recordIn(ctx, s, o, func(base string, h *History) (err error) {
		r, err = w.Look(ctx, s, base, h, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	r.Took = time.Since(began)
	return r, nil
}

// Look looks at the crashes of what was recorded in the folder base, where all
// of them are laid out, one after the other: a program may know its disk by its
// path.
func (w *Workload) Look(ctx context.Context, s *Stand, base string, h *History, o Options) (*Report, error) {
	began := time.Now()
	c := &campaign{w: w, o: o, r: &Report{Workload: w.Name, Calls: len(h.ops), Effects: len(h.effects)}}
	c.told = began
	c.l = newLayout(filepath.Join(base, diskName), s.x)
	defer c.l.follow()()
	if err := c.all(ctx, base, h); err != nil {
		return nil, err
	}
	c.r.Took = time.Since(began)
	return c.r, nil
}

// campaign is one Look.
type campaign struct {
	w    *Workload
	o    Options
	l    *layout
	r    *Report
	deep []job // states whose recovery is to be recorded
	bad  []found
	// after is set where a process was killed, and what came after that counts.
	after bool

	looks int
	told  time.Time
}

// proofs: after so many states one is compared with what was to be laid out.
const proofs = 64

// job is one state to look at.
type job struct {
	s     *State
	facts []string
	n     int
}

// found is a violation as it was seen.
type found struct {
	job
	err error
}

// all looks at the crashes of h, and of recoveries from some of them.
func (c *campaign) all(ctx context.Context, base string, h *History) error {
	if err := c.crashes(ctx, h, c.o.States, nil, &c.r.States); err != nil {
		return err
	}
	c.tell(ctx, nil)
	for _, j := range c.deep {
		if len(c.r.Violations) > 0 {
			break
		}
		deeper, err := c.w.recordRecovery(ctx, base, j.s.Entries())
		if err != nil {
			return err
		}
		c.r.Recoveries++
		if err := c.crashes(ctx, deeper, c.o.RecoveryStates, j.facts, &c.r.Deeper); err != nil {
			return err
		}
		c.tell(ctx, &j)
	}
	return nil
}

// tell makes violations of what was found bad; of is the state that was being
// recovered from, or nil.
func (c *campaign) tell(ctx context.Context, of *job) {
	for _, f := range c.bad {
		s := f.s.smaller(func(t *State) bool {
			bad, err := c.look(ctx, job{t, f.facts, f.n})
			return err == nil && bad != nil
		})
		v := Violation{Err: f.err, Calls: s.Op, Lost: s.Lost(), Facts: f.facts, Deep: of != nil}
		if bad, err := c.look(ctx, job{s, f.facts, f.n}); err == nil && bad != nil {
			v.Err = bad
		}
		if s.Op > 0 {
			v.Last = s.h.ops[s.Op-1].String()
		}
		if of != nil {
			v.Lost = append(v.Lost, fmt.Sprintf("before, after %d calls:", of.s.Op))
			v.Lost = append(v.Lost, of.s.Lost()...)
		}
		c.r.Violations = append(c.r.Violations, v)
	}
	c.bad = nil
}

// crashes looks at the crashes of h, before which facts had been acknowledged,
// and counts them.
func (c *campaign) crashes(ctx context.Context, h *History, max int, facts []string, count *int) error {
	n := 0
	every := 0
	if c.o.Recoveries > 0 && facts == nil {
		every = 1 + max/c.o.Recoveries
	}
	crashes := h.Crashes
	if c.after {
		crashes = h.After
	}
	for s := range crashes(max, c.o.Seed) {
		j := job{s, append(facts[:len(facts):len(facts)], s.Facts()...), n}
		bad, err := c.look(ctx, j)
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		n++
		*count++
		if bad != nil {
			c.bad = append(c.bad, found{j, bad})
			if c.o.First || len(c.bad) >= maxViolations {
				return nil
			}
		}
		c.progress()
		if every > 0 && n%every == 0 {
			c.deep = append(c.deep, j)
		}
		if !c.o.Until.IsZero() && time.Now().After(c.o.Until) {
			return nil
		}
	}
	return nil
}

// progress tells how far it came, now and then.
func (c *campaign) progress() {
	if c.o.Progress == nil || time.Since(c.told) < 3*time.Minute {
		return
	}
	c.told = time.Now()
	c.o.Progress(c.r)
}

// look lays out one state and checks it. bad is what is wrong with it.
func (c *campaign) look(ctx context.Context, j job) (bad, err error) {
	if err := c.l.lay(j.s.Entries()); err != nil {
		return nil, err
	}
	if c.looks++; c.looks%proofs == 0 {
		if err := c.l.prove(); err != nil {
			return nil, err
		}
		c.r.Proofs++
	}
	return c.w.Check(ctx, c.l.root, j.facts, j.n), nil
}
