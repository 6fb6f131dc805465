//go:build linux && (amd64 || arm64)

package model

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOrder: devices owe nothing to luck. At each record of their journal, at each
// switch and before each thing is dropped, all is durable that has to be.
func TestOrder(t *testing.T) {
	for _, r := range recordAll(t) {
		for _, o := range r.orders {
			require.NoError(t, o.check(r.base), r.Name)
			require.True(t, slices.ContainsFunc(r.ops, func(op Op) bool { return o.At(&op) }) || r.Name != "update", "%s: %s never applies", r.Name, o.Name)
		}
	}
}
