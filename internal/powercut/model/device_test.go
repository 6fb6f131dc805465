//go:build linux && (amd64 || arm64)

package model

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/powercut"
)

// cuts is how many crashes of a workload are looked at: in an ordinary run, and
// in a long one.
type cuts struct {
	Workload
	few, many int
	env       []string
	anywhere  bool // see Anywhere; few and many are of each kill then
}

// kills: of so many calls one is the last one of a process that is killed.
func kills() int {
	switch {
	case os.Getenv("PAWL_CRASH") == "long":
		return 1
	case testing.Short() || os.Geteuid() != 0:
		return 200
	}
	return 40
}

// TestModel cuts the power in everything that pawl does to a disk: after every
// call, whatever was not durable then being lost or kept.
func TestModel(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	every, seed := 16, seedOf(t)
	if os.Getenv("PAWL_CRASH") == "long" {
		every = 64
	}
	scene := powercut.New(t, inMemory(t)) // before the stand, which has its own inodes
	repos := newRepos(t)
	stand := newStand(t)
	all := ways(scene, repos, every)
	costs := 0
	for _, c := range all {
		costs += c.cost()
	}
	reports := make([]*Report, len(all))
	began, worked := time.Now(), cpu()
	end, _ := t.Deadline()
	t.Run("of", func(t *testing.T) {
		for n, c := range all {
			t.Run(c.name(), func(t *testing.T) {
				t.Parallel()
				o := Options{States: states(c.few, c.many), Seed: seed, Env: c.env, Until: until(end, began, float64(c.cost())/float64(costs))}
				o.Progress = func(r *Report) { t.Logf("so far, at %s: %s", time.Now().Format(time.TimeOnly), r) }
				var err error
				reports[n], err = c.look(t, stand, o)
				require.NoError(t, err)
				t.Log(reports[n])
				for _, v := range reports[n].Violations {
					t.Error(v.String())
				}
			})
		}
	})
	t.Log(summary(reports, seed, every, cpu()-worked, time.Since(began)))
}

// ways are all that there is to look at.
func ways(scene *powercut.Scene, repos *repos, every int) []cuts {
	all := []cuts{
		{Workload: workload("durable", steps), few: 1000, many: 10_000},
		{Workload: journaling(), few: 1000, many: 10_000},
		{Workload: trusting(repos), few: 800, many: 60_000, env: []string{envRepos + "=" + repos.dir}},
	}
	all = append(all, cuts{Workload: distrusting(repos), few: 100, many: 5_000, env: all[2].env})
	for _, a := range allAlone() {
		all = append(all, cuts{Workload: a.workload(every), few: 1050, many: 280_000})
	}
	for _, w := range Devices(scene, every) {
		all = append(all, cuts{Workload: w, few: 700, many: 12_000}, cuts{Workload: w, few: 12, many: 16, anywhere: true})
	}
	for _, w := range KilledDevices(scene, every) {
		all = append(all, cuts{Workload: w, few: 160, many: 3_000})
	}
	return all
}

// name is that of a test.
func (c *cuts) name() string {
	name := strings.ReplaceAll(c.Name, " ", "_")
	if c.anywhere {
		name += ",_killed_anywhere"
	}
	return name
}

// cost is about how many milliseconds a long run takes.
func (c *cuts) cost() int {
	switch {
	case c.anywhere:
		return 500 * (300 + 10*c.many)
	case len(c.Next) == 0:
		return 4 * c.many
	}
	return 10 * c.many
}

// look looks at one of them.
func (c *cuts) look(t *testing.T, stand *Stand, o Options) (*Report, error) {
	if c.anywhere {
		o.Orders = append(Orders(), DeviceOrders()...)
		return c.Anywhere(t.Context(), stand, kills(), o)
	}
	if c.Recover != nil {
		o.Recoveries, o.RecoveryStates = recoveries(), 50
	}
	return c.Run(t.Context(), stand, o)
}

// summary says what was looked at, in one line.
func summary(reports []*Report, seed uint64, every int, worked int64, took time.Duration) string {
	var all Report
	workloads := 0
	for _, r := range reports {
		if r == nil {
			continue
		}
		workloads++
		all.Kills += r.Kills
		all.States, all.Deeper, all.Recoveries, all.Proofs = all.States+r.States, all.Deeper+r.Deeper, all.Recoveries+r.Recoveries, all.Proofs+r.Proofs
		all.Violations = append(all.Violations, r.Violations...)
	}
	return fmt.Sprintf("model: seed %d: %d states of %d workloads, with %d kills, and %d of %d crashed recoveries, a good update after every %dth, %d proofs of the layout, %d violations in %.0f s, %.1f ms of processor time per state",
		seed, all.States, workloads, all.Kills, all.Deeper, all.Recoveries, every, all.Proofs, len(all.Violations), took.Seconds(), float64(worked)/1e6/float64(max(1, all.States+all.Deeper)))
}

// seedOf returns which of all states are looked at: runs with other seeds add to
// the first one.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("PAWL_MODEL_SEED")
	if text == "" {
		return 1
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	require.NoError(t, err, "PAWL_MODEL_SEED")
	return seed
}

// until is when what begins now, and is this part of all, has had its share of the
// time limit of the tests: a long run tells how far it came.
func until(end, began time.Time, part float64) time.Time {
	if end.IsZero() {
		return end
	}
	all := end.Sub(began) * 8 / 10 * time.Duration(runtime.GOMAXPROCS(0))
	return time.Now().Add(max(20*time.Second, time.Duration(float64(all)*part)))
}

// recoveries is of how many crashes of a device the recovery is recorded.
func recoveries() int {
	n, err := strconv.Atoi(os.Getenv("PAWL_MODEL_RECOVERIES"))
	switch {
	case err == nil:
		return n
	case os.Getenv("PAWL_CRASH") == "long":
		return 300
	case testing.Short():
		return 1
	}
	return 3
}
