//go:build !containers

package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNoApps has an agent for files say how to get one that knows apps.
func TestNoApps(t *testing.T) {
	_, err := parseConfig([]byte(strings.Replace(goodConfig, `"files"`, `"compose"`, 1)))
	require.ErrorContains(t, err, "-tags containers")
}
