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
	all := []cuts{
		{workload("durable", steps), 1000, 10_000, nil},
		{journaling(), 1000, 10_000, nil},
		{trusting(repos), 800, 60_000, []string{envRepos + "=" + repos.dir}},
	}
	for _, w := range Devices(scene, every) {
		all = append(all, cuts{w, 1050, 115_000, nil})
	}
	reports := make([]*Report, len(all))
	began, worked := time.Now(), cpu()
	end, _ := t.Deadline()
	t.Run("of", func(t *testing.T) {
		for n, c := range all {
			t.Run(strings.ReplaceAll(c.Name, " ", "_"), func(t *testing.T) {
				t.Parallel()
				o := Options{States: states(c.few, c.many), Seed: seed, Env: c.env, Until: until(end, began, len(all))}
				o.Progress = func(r *Report) { t.Logf("so far, at %s: %s", time.Now().Format(time.TimeOnly), r) }
				if c.Recover != nil {
					o.Recoveries, o.RecoveryStates = recoveries(), 50
				}
				var err error
				reports[n], err = c.Run(t.Context(), stand, o)
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

// summary says what was looked at, in one line.
func summary(reports []*Report, seed uint64, every int, worked int64, took time.Duration) string {
	var all Report
	workloads := 0
	for _, r := range reports {
		if r == nil {
			continue
		}
		workloads++
		all.States, all.Deeper, all.Recoveries, all.Proofs = all.States+r.States, all.Deeper+r.Deeper, all.Recoveries+r.Recoveries, all.Proofs+r.Proofs
		all.Violations = append(all.Violations, r.Violations...)
	}
	return fmt.Sprintf("model: seed %d: %d states of %d workloads, and %d of %d crashed recoveries, a good update after every %dth, %d proofs of the layout, %d violations in %.0f s, %.1f ms of processor time per state",
		seed, all.States, workloads, all.Deeper, all.Recoveries, every, all.Proofs, len(all.Violations), took.Seconds(), float64(worked)/1e6/float64(max(1, all.States+all.Deeper)))
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

// until is when one of n workloads, which begins now, has had its share of the time
// limit of the tests: a long run tells how far it came.
func until(end, began time.Time, n int) time.Time {
	if end.IsZero() {
		return end
	}
	procs := runtime.GOMAXPROCS(0)
	return time.Now().Add(end.Sub(began) * 9 / 10 / time.Duration((n+procs-1)/procs))
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
