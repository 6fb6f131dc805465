package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/monitor/updates"
	"github.com/pawl-ota/pawl/ota"
)

// TestSickAfterTheCommit: a release that becomes sick after its commit is gone back
// from, out of the local copy and without a network, where it does not forbid it.
func TestSickAfterTheCommit(t *testing.T) {
	t.Parallel()
	for word, returns := range map[string]bool{"lateRollback: allow": true, "lateRollback: forbid": false} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			m := newMaker(t)
			d := newDevice(t, m, t.TempDir())
			v1 := filepath.Join(m.dir, "v1")
			write(t, v1, "health", "well", 0o644)
			write(t, v1, "bin/app", "the first\n", 0o755)
			m.release("1.0.0", v1)
			require.Equal(t, ota.Committed, d.updateTold(m, nil).result.State)
			v2 := cloneTree(t, v1, filepath.Join(m.dir, "v2"))
			write(t, v2, "bin/app", "the second\n", 0o755)
			m.release("1.1.0", v2, word)
			require.Equal(t, ota.Committed, d.updateTold(m, nil).result.State)
			m.server.Close()

			r, err := d.watchLate(m)
			if returns {
				require.NoError(t, err)
				require.Equal(t, ota.Committed, r.State)
				require.True(t, r.Back)
				requireSame(t, pictureOf(t, v1), pictureOf(t, d.app))
				return
			}
			require.ErrorIs(t, err, updates.ErrForbidden)
			requireSame(t, pictureOf(t, v2), pictureOf(t, d.app))
		})
	}
}

// watchLate is what the program does after an update, on a device that is sick with
// the second release alone.
func (d *device) watchLate(m *maker) (ota.Result, error) {
	o, done := d.options(m)
	defer done()
	o.Health = func(ctx context.Context) error {
		data, err := os.ReadFile(filepath.Join(d.app, "bin/app"))
		if err == nil && string(data) == "the second\n" {
			err = errors.New("the tank leaks")
		}
		return errors.Join(err, d.asksItself(ctx))
	}
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	u, err := ota.Open(ctx, o)
	require.NoError(d.t, err)
	defer func() { require.NoError(d.t, u.Close()) }()
	_, err = u.Resume(ctx)
	require.NoError(d.t, err)
	late := updates.Late{File: filepath.Join(d.state, "late"), Health: o.Health, Interval: 5 * time.Millisecond, Failures: 3}
	return late.Watch(ctx, u)
}
