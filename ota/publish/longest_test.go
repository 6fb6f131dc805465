package publish

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// TestNothingThatDevicesDoNotTake: a list of releases that has grown beyond
// what a device reads is refused before it is published.
func TestNothingThatDevicesDoNotTake(t *testing.T) {
	m := metadata.Targets(start)
	for i := 0; ; i++ {
		m.Signed.Targets[fmt.Sprintf("releases/%s/%d.json", strings.Repeat("x", 4000), i)] = &metadata.TargetFiles{Length: 1}
		if i%100 > 0 {
			continue
		}
		file, _, err := seal(m, roleName(Targets, 1), 1)
		if err == nil {
			require.LessOrEqual(t, len(file.data), 4<<20)
			continue
		}
		require.ErrorContains(t, err, "devices take at most 4194304: drop releases")
		require.Greater(t, i, 100)
		return
	}
}
