package process

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/pawl-ota/pawl/internal/powercut/firmware"
	"github.com/pawl-ota/pawl/internal/trace"
)

// long reports whether the long campaigns are asked for.
func long() bool { return os.Getenv("PAWL_CRASH") == "long" }

// everything are the workloads of the long campaigns, usual those of the others.
func everything() []string { return []string{"update", "rollback", "sick", "install"} }
func usual() []string      { return []string{"update", "rollback"} }

// kills are a kill before and one after the call.
func kills(procs int) func(int, point) []fault {
	return func(_ int, p point) []fault {
		return []fault{{at: p, action: trace.KillBefore, procs: procs}, {at: p, action: trace.KillAfter, procs: procs}}
	}
}

// prepare makes the segments of the workloads that are named, and those of the
// Resume after each of them was cut short.
func prepare(names []string) func(context.Context, *bench) ([]segment, error) {
	return func(ctx context.Context, b *bench) (all []segment, err error) {
		for _, w := range workloads {
			if !slices.Contains(names, w.name) {
				continue
			}
			segments, err := b.segments(ctx, w)
			if err != nil {
				return nil, err
			}
			all = append(all, segments...)
		}
		return b.resumes(ctx, all)
	}
}

// resumes adds the Resume after a process was killed in its middle, and shortly
// before its end.
func (b *bench) resumes(ctx context.Context, segments []segment) ([]segment, error) {
	all := segments
	for _, g := range segments {
		m, err := b.run(ctx, g, fault{procs: 1})
		if err != nil {
			return nil, err
		}
		for _, cut := range []struct {
			in     string
			tenths int
		}{{"its middle", 5}, {"its end", 9}} {
			f := fault{nth: len(m.points) * cut.tenths / 10, action: trace.KillBefore, procs: 1}
			if _, err := b.run(ctx, g, f); err != nil {
				return nil, err
			}
			from, err := b.keep()
			if err != nil {
				return nil, err
			}
			all = append(all, segment{name: "resume after " + g.name + " was killed in " + cut.in, verb: firmware.VerbResume, from: from, was: g.was, goal: g.goal})
		}
	}
	return all, nil
}

// TestCrash takes the device's program through all campaigns of this package.
// The long ones are for PAWL_CRASH=long; an ordinary user takes a second, smaller
// look at what root sees.
func TestCrash(t *testing.T) {
	s := newStand(t)
	t.Run("kill", s.kill)
	t.Run("errors", s.errors)
	t.Run("twice", s.twice)
}

// kill kills the device's program before and after each call that changes
// something: in an update, a rollback, and the Resume after a kill. The long
// campaign does so in more workloads, and also on four threads.
func (s *stand) kill(t *testing.T) {
	if !long() {
		c := newCampaign(t, s, kills(1))
		if os.Geteuid() != 0 {
			c.most = 60
		}
		c.do(1, prepare(usual()))
		return
	}
	onThreads(t, func(t *testing.T, procs int) { newCampaign(t, s, kills(procs)).do(procs, prepare(everything())) })
}

// onThreads runs a campaign with the device on one thread, and on four.
func onThreads(t *testing.T, campaign func(t *testing.T, procs int)) {
	for _, procs := range []int{1, 4} {
		t.Run(fmt.Sprint("threads=", procs), func(t *testing.T) { campaign(t, procs) })
	}
}
