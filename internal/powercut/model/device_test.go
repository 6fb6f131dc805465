//go:build linux && (amd64 || arm64)

package model

import (
	"os"
	"runtime"
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
	scene := powercut.New(t, inMemory(t)) // before the stand, which has its own inodes
	repos := newRepos(t)
	stand := newStand(t)
	all := []cuts{
		{workload("durable", steps), 1000, 10_000, nil},
		{journaling(), 1000, 10_000, nil},
		{trusting(repos), 800, 60_000, []string{envRepos + "=" + repos.dir}},
	}
	for _, w := range Devices(scene) {
		all = append(all, cuts{w, 1050, 115_000, nil})
	}
	reports := make([]*Report, len(all))
	began := time.Now()
	end, _ := t.Deadline()
	t.Run("of", func(t *testing.T) {
		for n, c := range all {
			t.Run(strings.ReplaceAll(c.Name, " ", "_"), func(t *testing.T) {
				t.Parallel()
				o := Options{States: states(c.few, c.many), Env: c.env, Until: until(end, began, len(all))}
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
	total, deeper, bad := 0, 0, 0
	for _, r := range reports {
		if r != nil {
			total, deeper, bad = total+r.States, deeper+r.Deeper, bad+len(r.Violations)
		}
	}
	t.Logf("model: %d states of %d workloads, and %d of crashed recoveries, %d violations in %.0f s",
		total, len(all), deeper, bad, time.Since(began).Seconds())
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
	switch {
	case os.Getenv("PAWL_CRASH") == "long":
		return 300
	case testing.Short():
		return 1
	}
	return 3
}
