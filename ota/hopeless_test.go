package ota_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
)

// TestHopelessTrial ends a trial at the first answer that says that waiting is of no
// use, also before there was a good one, and not at another.
func TestHopelessTrial(t *testing.T) {
	for _, sick := range []int{0, 5} {
		d, list := device(t, 1, "app")
		d.Offer(list[1])
		o, asked := d.Options(), 0
		o.Trial.Deadline = time.Hour
		o.Health = func(context.Context) error {
			if asked++; asked <= sick {
				return fmt.Errorf("not yet")
			}
			return fmt.Errorf("service web: %w", ota.ErrHopeless)
		}
		u, err := ota.Open(d.Context(), o)
		require.NoError(t, err)
		result, err := u.Update(d.Context())
		require.ErrorIs(t, err, ota.ErrUnhealthy)
		require.Equal(t, ota.Reverted, result.State)
		require.Equal(t, "unhealthy: service web: it will not become healthy", result.Reason)
		require.Equal(t, sick+1, asked)
		_, err = u.Update(d.Context())
		require.ErrorIs(t, err, ota.ErrHeld, "it is condemned")
		require.NoError(t, u.Close())
	}
}
