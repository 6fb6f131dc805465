//go:build linux && (amd64 || arm64)

package model

import (
	"testing"

	"github.com/pawl-ota/pawl/internal/powercut"
)

// TestDevices cuts the power in all that a device does.
func TestDevices(t *testing.T) {
	scene := powercut.New(t, inMemory(t)) // before the stand, which has its own inodes
	stand := newStand(t)
	for _, w := range Devices(scene) {
		t.Run(w.Name, func(t *testing.T) {
			t.Parallel()
			onStand(t, stand, w, Options{States: states(1000, 100_000), Recoveries: states(3, 300), RecoveryStates: 50})
		})
	}
}
