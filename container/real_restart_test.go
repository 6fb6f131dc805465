//go:build linux

package container

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/dockerd"
	"github.com/pawl-ota/pawl/ota"
)

// restartsOfAnEngine kills an engine with all that it runs, again and again, after
// a commit and after a way back: each time it starts the right containers by
// itself, and only those. With PAWL_CRASH=long it is twenty times each.
func restartsOfAnEngine(t *testing.T, e *dockerd.Engine) {
	r, ctx := &killRig{realRig: newRealRig(t, e)}, t.Context()
	rounds := 1
	if os.Getenv("PAWL_CRASH") == "long" {
		rounds = 20
	}
	now, next := killApp(t, 1), killApp(t, 2)
	r.install("one", now)
	for _, back := range []bool{false, true} {
		tx := map[bool]ota.TxID{false: "two", true: "three"}[back]
		if back {
			now, next = next, now
		}
		_, err := r.b.Stage(ctx, tx, next.c, next.blobs)
		require.NoError(t, err)
		require.NoError(t, r.b.Activate(ctx, tx, next.c))
		runs := next
		if back {
			require.NoError(t, r.b.Revert(ctx, tx, next.c))
			runs = now
		} else {
			require.NoError(t, r.b.Commit(ctx, tx, next.c))
			require.NoError(t, r.b.Prune(ctx, "shop", nil, nil))
		}
		for range rounds {
			r.boot()
			r.onlyRuns(runs)
		}
	}
	t.Logf("%d of %d restarts after a commit and after a way back", rounds, rounds)
}
