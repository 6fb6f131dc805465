package ota_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
)

// TestProgressTellsTheEnd: once, with what the history has, and after that was
// made durable.
func TestProgressTellsTheEnd(t *testing.T) {
	for state, health := range map[ota.State]otatest.Health{ota.Committed: otatest.Healthy(), ota.Reverted: otatest.Sick()} {
		d := bench(t, ota.Live, health)
		var ends []ota.Result
		var u *ota.Updater
		u = opened(t, d, func(o *ota.Options) {
			o.Progress = func(p ota.Progress) {
				if p.Result == nil {
					return
				}
				require.Equal(t, p.Result.Tx, p.Tx)
				require.Equal(t, p.Result.To, p.To)
				require.Equal(t, state, p.State)
				ends = append(ends, *p.Result)
				require.Contains(t, u.History(), *p.Result)
			}
		})
		_, _ = u.Update(d.Context())
		require.Len(t, ends, 1)
		require.Equal(t, state, ends[0].State)
		require.Equal(t, u.History()[len(u.History())-1], ends[0])
		require.NoError(t, u.Close())
	}
}

// TestProgressThatPanics changes no outcome, wherever it does.
func TestProgressThatPanics(t *testing.T) {
	for state, health := range map[ota.State]otatest.Health{ota.Committed: otatest.Healthy(), ota.Reverted: otatest.Sick()} {
		d := bench(t, ota.Live, health)
		u := opened(t, d, func(o *ota.Options) {
			o.Progress = func(ota.Progress) { panic("nobody listens") }
		})
		_, _ = u.Update(d.Context())
		history := u.History()
		require.Equal(t, state, history[len(history)-1].State)
		require.NoError(t, u.Close())
	}
}
