package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type countingHardware struct{ kicks int }

func (h *countingHardware) Kick() error  { h.kicks++; return nil }
func (h *countingHardware) Close() error { return nil }

// TestDog has the hardware kicked by the main loop alone, and not any more
// when an updater that is at work hangs.
func TestDog(t *testing.T) {
	hardware, now := &countingHardware{}, time.Unix(0, 0)
	d := newDog(hardware, func() time.Time { return now })
	d.alive()
	require.Equal(t, 1, hardware.kicks)

	require.NoError(t, d.Arm(time.Minute))
	now = now.Add(59 * time.Second)
	d.alive()
	require.Equal(t, 2, hardware.kicks)
	require.NoError(t, d.Kick())
	require.Equal(t, 2, hardware.kicks, "the updater's kick reached the hardware past the main loop")
	now = now.Add(59 * time.Second)
	d.alive()
	require.Equal(t, 3, hardware.kicks)

	now = now.Add(time.Second)
	d.alive()
	require.Equal(t, 3, hardware.kicks, "kicked although the updater hangs")
	require.NoError(t, d.Disarm())
	d.alive()
	require.Equal(t, 4, hardware.kicks)
}
