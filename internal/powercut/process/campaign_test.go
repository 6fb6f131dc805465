package process

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/powercut"
	"github.com/pawl-ota/pawl/internal/powercut/check"
	"github.com/pawl-ota/pawl/internal/powercut/firmware"
	"github.com/pawl-ota/pawl/ota"
)

// campaign puts faults into segments until every point of them was met.
type campaign struct {
	*stand
	t      *testing.T
	faults func(n int, p point) []fault // for the nth run, at a point nobody knew
	// then, where there is one, puts a second fault into the Resume after the
	// first, and says which.
	then    func(ctx context.Context, b *bench, n int) (fault, error)
	shuffle *rand.Rand // has the runs be made in another order
	most    int        // runs to make, 0 for all
	again   int        // how often a point is tried again that was not met

	mu      sync.Mutex
	changed sync.Cond
	known   map[string]*known // by segment
	queue   []job
	busy    int
	runs    int
	points  int
	unmet   []job
	wrong   []string
}

// job is one run that is to be made.
type job struct {
	segment int
	fault   fault
	missed  int // how often the point was not met so far
}

// maxWrong is how many violations are told before a campaign gives up.
const maxWrong = 20

func newCampaign(t *testing.T, s *stand, faults func(n int, p point) []fault) *campaign {
	c := &campaign{stand: s, t: t, faults: faults, again: 20, known: map[string]*known{}, busy: 1}
	c.changed.L = &c.mu
	return c
}

// do runs the campaign over the processes that prepare makes on each bench, on
// all processors, and prints its figures.
func (c *campaign) do(procs int, prepare func(context.Context, *bench) ([]segment, error)) {
	t, begin := c.t, time.Now()
	t.Helper()
	var all sync.WaitGroup
	failed := make(chan error, runtime.GOMAXPROCS(0))
	for i := range cap(failed) {
		all.Go(func() {
			var segments []segment
			b, err := c.bench()
			if err == nil {
				segments, err = prepare(t.Context(), b)
			}
			if err == nil && i == 0 {
				err = c.learn(t.Context(), b, segments, procs)
			}
			if err != nil {
				failed <- err
			}
			if i == 0 {
				c.done() // until now there was a job: to learn what jobs there are
			}
			c.work(t.Context(), b, segments, err == nil)
			_ = os.RemoveAll(filepath.Dir(b.dir)) // at the latest with the stand
		})
	}
	all.Wait()
	close(failed)
	require.NoError(t, <-failed)
	t.Logf("process: %d points, %d runs, %d violations, %d points not met again in %d tries, in %.0f s",
		c.points, c.runs, len(c.wrong), len(c.unmet), c.again, time.Since(begin).Seconds())
	require.Empty(t, c.wrong, "promises that are broken")
	require.Empty(t, c.unmet, "points that were seen once and not again")
}

// learn runs each segment without a fault, for the points that it has.
func (c *campaign) learn(ctx context.Context, b *bench, segments []segment, procs int) error {
	for i, g := range segments {
		m, err := b.run(ctx, g, fault{procs: procs})
		if err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
		c.add(i, g, m.points)
	}
	return nil
}

// add queues the faults of points that nobody knew.
func (c *campaign) add(i int, g segment, points []point) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.known[g.name]
	if k == nil {
		k = &known{has: map[point]bool{}}
		c.known[g.name] = k
	}
	for _, p := range k.add(points) {
		for _, f := range c.faults(c.points, p) {
			c.queue = append(c.queue, job{segment: i, fault: f})
		}
		c.points++
	}
	c.changed.Broadcast()
}

func (c *campaign) done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy--
	c.changed.Broadcast()
}

// next returns the next job, when there is or may be one.
func (c *campaign) next() (j job, n int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) == 0 && c.busy > 0 {
		c.changed.Wait()
	}
	if len(c.queue) == 0 || len(c.wrong) >= maxWrong || c.most > 0 && c.runs >= c.most {
		return j, 0, false
	}
	if c.shuffle != nil {
		i := c.shuffle.IntN(len(c.queue))
		c.queue[0], c.queue[i] = c.queue[i], c.queue[0]
	}
	j, c.queue = c.queue[0], c.queue[1:]
	c.busy++
	if c.runs++; c.runs%500 == 0 {
		c.t.Logf("%d runs, %d to come, %d points", c.runs, len(c.queue), c.points)
	}
	return j, c.runs, true
}

// work makes runs until none is left.
func (c *campaign) work(ctx context.Context, b *bench, segments []segment, fit bool) {
	for fit {
		j, n, ok := c.next()
		if !ok {
			return
		}
		c.one(ctx, b, segments[j.segment], j, n)
		c.done()
	}
}

// one makes one run, the nth.
func (c *campaign) one(ctx context.Context, b *bench, g segment, j job, n int) {
	m, err := b.run(ctx, g, j.fault)
	c.add(j.segment, g, m.points)
	if err == nil && !m.hit {
		c.missed(j)
		return
	}
	what := j.fault.String()
	if err == nil && c.then != nil {
		var again fault
		if again, err = c.then(ctx, b, n); again.nth > 0 {
			what += ", and then resume " + again.String()
		}
	}
	if err == nil {
		err = b.judge(ctx, g, j.fault, m, n)
	}
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.wrong = append(c.wrong, fmt.Sprintf("%s, %s: %v", g.name, what, err))
		c.t.Logf("violation %d, in run %d: %s", len(c.wrong), n, c.wrong[len(c.wrong)-1])
	}
}

func (c *campaign) missed(j job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if j.missed++; j.missed > c.again {
		c.unmet = append(c.unmet, j)
		return
	}
	c.queue = append(c.queue, j)
}

// judge looks at the device after a run, the nth: what the verb said must be
// so, and once the device has settled it is one release, all of it. In odd runs
// the device boots; in even ones the process alone was killed or failed. After
// every tenth a good update must go all the way.
func (b *bench) judge(ctx context.Context, g segment, f fault, m met, n int) error {
	if err := b.said(g, f, m); err != nil {
		return err
	}
	if err := b.settle(ctx, n%2 == 1, g.was, g.goal); err != nil {
		return err
	}
	if n%10 != 0 {
		return nil
	}
	if err := b.settle(ctx, true, g.was, g.goal); err != nil {
		return fmt.Errorf("after a boot: %w", err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "health"), []byte("ok\n"), 0o644); err != nil {
		return err
	}
	return powercut.Update(ctx, powercut.InProcess, b.dir)
}

// said checks the device against what a verb said that was not killed. Where
// no call went well any more, it could not sweep its state folders either.
func (b *bench) said(g segment, f fault, m met) error {
	a, want := m.answer, g.goal
	switch {
	case m.killed || a.Code != firmware.ExitDone:
		return nil
	case a.Result.State == ota.Committed, g.verb == firmware.VerbUpdate:
	case a.Result.State == ota.Reverted:
		want = g.was
	default:
		return nil
	}
	if found := check.Look(b.dir); f.lasting && found.Version() == want {
		return nil
	}
	if _, err := check.Device(b.dir, want); err != nil {
		return fmt.Errorf("the verb said %q: %w", a.Result, err)
	}
	return nil
}

// settle has the device settle, with or without a boot before.
func (b *bench) settle(ctx context.Context, boot bool, want ...check.Version) error {
	if !boot {
		a := firmware.Run(ctx, b.dir, firmware.VerbResume)
		if a.Code == firmware.ExitDone {
			_, err := check.Device(b.dir, want...)
			return err
		}
		if a.Code != firmware.ExitBoot {
			return fmt.Errorf("%w: resume in the same boot: %s", check.ErrViolation, a.Error)
		}
	}
	_, err := powercut.Settle(ctx, powercut.InProcess, b.dir, want...)
	if err != nil && !errors.Is(err, check.ErrViolation) {
		err = fmt.Errorf("%w: %w", check.ErrViolation, err)
	}
	return err
}
