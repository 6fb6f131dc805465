//go:build linux && (amd64 || arm64)

package model

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Options say how many crashes are looked at.
type Options struct {
	// States is how many, at most.
	States int
	// Seed decides which, where there are more.
	Seed uint64
	// Workers look at states at the same time; 0 means 2.
	Workers int
	// Recoveries is of how many of the states the recovery is recorded, and cut
	// short in RecoveryStates ways each.
	Recoveries, RecoveryStates int
	// First ends it at the first violation.
	First bool
	// Env is added to the environment of what is recorded.
	Env []string
}

// Report says what was looked at.
type Report struct {
	Workload   string
	Calls      int // that were recorded
	Effects    int
	States     int // distinct ones, of disk and facts
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
	if r.Recoveries > 0 {
		s += fmt.Sprintf(", %d of %d crashed recoveries", r.Deeper, r.Recoveries)
	}
	return s + fmt.Sprintf(", %d violations in %.1f s", len(r.Violations), r.Took.Seconds())
}

// maxViolations ends a campaign: what follows would be the same again.
const maxViolations = 10

// Run records the workload and looks at its crashes. All of it happens in a
// folder of its own below dir, which should be in memory; one Run at a time in
// a process. The error is of the machinery; violations are in the Report.
func (w *Workload) Run(ctx context.Context, dir string, o Options) (*Report, error) {
	began := time.Now()
	dir, err := os.MkdirTemp(dir, "pawl-model-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = removeAll(dir) }()
	base := filepath.Join(dir, "recorded")
	if err := os.Mkdir(base, 0o755); err != nil {
		return nil, err
	}
	h, err := w.Record(ctx, base, o.Env...)
	if err != nil {
		return nil, err
	}
	c := &campaign{w: w, o: o, dir: dir, x: &known{}, r: &Report{Workload: w.Name, Calls: len(h.ops), Effects: len(h.effects)}}
	defer c.x.install()()
	if err := c.all(ctx, h); err != nil {
		return nil, err
	}
	c.r.Took = time.Since(began)
	return c.r, nil
}

// campaign is one Run.
type campaign struct {
	w   *Workload
	o   Options
	dir string
	x   *known

	mu   sync.Mutex
	r    *Report
	err  error
	deep []job // states whose recovery is to be recorded
	bad  []found
}

// job is one state to look at.
type job struct {
	s     *State
	disk  []Entry
	facts []string
	n     int
}

// found is a violation as it was seen.
type found struct {
	job
	err error
}

// all looks at the crashes of h, and of recoveries from some of them.
func (c *campaign) all(ctx context.Context, h *History) error {
	if err := c.crashes(ctx, h, c.o.States, nil); err != nil {
		return err
	}
	c.tell(ctx, nil)
	for n, j := range c.deep {
		if len(c.r.Violations) > 0 || ctx.Err() != nil {
			break
		}
		base := filepath.Join(c.dir, fmt.Sprint("recovery", n))
		if err := os.Mkdir(base, 0o755); err != nil {
			return err
		}
		deeper, err := c.w.recordRecovery(ctx, base, j.disk)
		if err != nil {
			return err
		}
		before := c.r.States
		if err := c.crashes(ctx, deeper, c.o.RecoveryStates, j.facts); err != nil {
			return err
		}
		c.r.Recoveries++
		c.r.Deeper, c.r.States = c.r.Deeper+c.r.States-before, before
		c.tell(ctx, &j)
		if err := removeAll(base); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// tell makes violations of what was found bad; of is the state that was being
// recovered from, or nil.
func (c *campaign) tell(ctx context.Context, of *job) {
	l := newLayout(filepath.Join(c.dir, "again"), c.x)
	for _, f := range c.bad {
		s := f.s.smaller(func(t *State) bool {
			bad, err := c.look(ctx, l, job{t, t.Entries(), f.facts, f.n})
			return err == nil && bad != nil
		})
		v := Violation{Err: f.err, Calls: s.Op, Lost: s.Lost(), Facts: f.facts, Deep: of != nil}
		if bad, err := c.look(ctx, l, job{s, s.Entries(), f.facts, f.n}); err == nil && bad != nil {
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

// crashes looks at the crashes of h, before which facts had been acknowledged.
func (c *campaign) crashes(ctx context.Context, h *History, max int, facts []string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	jobs := make(chan job, 16)
	var wg sync.WaitGroup
	for k := range max0(c.o.Workers, 2) {
		wg.Go(func() { c.work(ctx, stop, filepath.Join(c.dir, fmt.Sprint("w", k)), jobs) })
	}
	every := 1
	if c.o.Recoveries > 0 {
		every = 1 + max/c.o.Recoveries
	}
	n := 0
	for s := range h.Crashes(max, c.o.Seed) {
		j := job{s, s.Entries(), append(facts[:len(facts):len(facts)], s.Facts()...), n}
		if facts == nil && c.o.Recoveries > 0 && n%every == every-1 {
			c.deep = append(c.deep, j)
		}
		n++
		if ctx.Err() != nil {
			break
		}
		jobs <- j
	}
	close(jobs)
	wg.Wait()
	return c.err
}

func max0(n, otherwise int) int {
	if n > 0 {
		return n
	}
	return otherwise
}

// work looks at states, on a disk of its own.
func (c *campaign) work(ctx context.Context, stop func(), disk string, jobs <-chan job) {
	l := newLayout(disk, c.x)
	for j := range jobs {
		if ctx.Err() != nil {
			continue
		}
		bad, err := c.look(ctx, l, j)
		c.mu.Lock()
		c.r.States++
		if err != nil {
			c.err = errors.Join(c.err, err)
			stop()
		}
		if bad != nil {
			c.bad = append(c.bad, found{j, bad})
			if c.o.First || len(c.bad) >= maxViolations {
				stop()
			}
		}
		c.mu.Unlock()
	}
}

// look lays out one state and checks it. bad is what is wrong with it.
func (c *campaign) look(ctx context.Context, l *layout, j job) (bad, err error) {
	if err := l.lay(j.disk); err != nil {
		return nil, err
	}
	return c.w.Check(ctx, l.root, j.facts, j.n), nil
}

// removeAll removes folders too that have no mode to be removed with.
func removeAll(dir string) error {
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}
