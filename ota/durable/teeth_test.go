package durable

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/powercut/site"
	"github.com/pawl-ota/pawl/internal/seam"
)

// stepsOf returns the steps that a primitive makes.
func stepsOf(t *testing.T, p primitive) string {
	t.Helper()
	dir := folder(t)
	var steps []string
	recordSteps(t, dir, func(step string) error { steps = append(steps, step); return nil })
	require.NoError(t, p.call(dir), p.name)
	return strings.Join(steps, ", ")
}

// TestTeeth leaves out each sync of this package, wherever in it it is asked for:
// the order of the steps of some primitive shows it.
func TestTeeth(t *testing.T) {
	var mu sync.Mutex
	var sites []string
	left := ""
	leave := func(op string) bool {
		at := site.Own(site.Stack(op))
		mu.Lock()
		defer mu.Unlock()
		if strings.Contains(op, "sync") && !slices.Contains(sites, at) {
			sites = append(sites, at)
		}
		return at == left
	}
	seam.Leave.Store(&leave)
	t.Cleanup(func() { seam.Leave.Store(nil) })
	all := allPrimitives()
	for _, p := range all {
		require.Equal(t, p.steps, stepsOf(t, p), p.name)
	}
	require.Greater(t, len(sites), 10)
	killed := 0
	for _, at := range slices.Clone(sites) {
		left = at
		if slices.ContainsFunc(all, func(p primitive) bool { return stepsOf(t, p) != p.steps }) {
			killed++
		} else {
			t.Errorf("nothing notices that %s is left out", at)
		}
	}
	t.Logf("teeth: %d of %d syncs of package durable, %d %%", killed, len(sites), 100*killed/len(sites))
}
