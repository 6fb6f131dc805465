package e2e

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/internal/trace"
)

// TestKillAtEveryCall kills the agent and the scripts that it started before
// each call by which any of them changes something: in an update, in the
// rollback after it, and now and then in the Resume after that. When a Resume
// has returned, all is one release, as in TestKillAnywhere. It takes the long
// campaign to meet every call; else a few are enough.
func TestKillAtEveryCall(t *testing.T) {
	t.Parallel()
	if err := trace.Available(); err != nil {
		testneeds.Missing(t, "ptrace: "+err.Error())
	}
	step := 60
	if os.Getenv("PAWL_CRASH") == "long" {
		step = 1
	}
	m := newScriptMaker(t)
	bothLayouts(t, func(t *testing.T, layout string) {
		k := newKilled(t, m, layout, nil)
		k.publish(true)
		k.must(0, "update")
		k.must(0, "rollback")
		points := map[string]int{}
		for n := 1; ; n += step {
			hit := false
			for _, verb := range []string{"update", "rollback"} {
				if k.cutAt(n, verb) {
					points[verb], hit = n, true
					if n%7 == 0 {
						k.cutAt(1+n/7, "resume")
					}
					k.must(0, "resume")
					k.check()
				}
				k.finish(verb)
			}
			if !hit {
				break
			}
		}
		t.Logf("killed before the calls of an update up to the last but %d of %d, and of a rollback up to %d", step-1, points["update"], points["rollback"])
		require.Greater(t, points["update"], 2*step)
	})
}

// cutAt runs the agent and kills all before the nth call that changes something
// of the device, if there are so many.
func (k *killed) cutAt(n int, verb string) bool {
	k.t.Helper()
	dir, err := filepath.EvalSymlinks(k.dir)
	require.NoError(k.t, err)
	ctx, cancel := context.WithTimeout(k.t.Context(), time.Minute)
	defer cancel()
	args := []string{verb}
	if verb == "update" {
		args = append(args, "-retry")
	}
	exit, err := trace.Run(ctx, k.command(ctx, args...), trace.Options{Below: dir, Before: func(c *trace.Call) trace.Action {
		if c.N == n {
			return trace.KillBefore
		}
		return trace.Continue
	}})
	require.NoError(k.t, err)
	return exit.Killed
}

// finish takes the device to where the verb leads, if it is not there.
func (k *killed) finish(verb string) {
	k.t.Helper()
	want := map[string]string{"update": "2.2.0", "rollback": "2.1.0"}[verb]
	if verb == "update" || k.must(0, "status").Status.State != "idle" {
		k.must(0, "update", "-retry")
	}
	if k.version() != want {
		k.must(0, verb)
	}
	k.check()
	require.Equal(k.t, want, k.version())
	require.Equal(k.t, "idle", string(k.must(0, "status").Status.State))
}
