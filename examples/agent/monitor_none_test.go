//go:build !monitor

package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNoMonitor has an agent without monitoring say how to get one that has
// it, rather than let a device be silent.
func TestNoMonitor(t *testing.T) {
	with := func(text string) error {
		_, err := parseConfig([]byte(strings.Replace(goodConfig, `"trial"`, text+`, "trial"`, 1)))
		return err
	}
	require.ErrorContains(t, with(`"report": {"url": "https://collector.example.com"}`), "report: this agent knows nothing of it: build it with go build -tags monitor")
	require.ErrorContains(t, with(`"run": {}`), "run: this agent knows nothing of it")
	_, err := parseConfig([]byte(strings.Replace(goodConfig, `{"exec": ["/bin/true"]}`, `{"memory": {"availableBytes": 1}}`, 1)))
	require.ErrorContains(t, err, `unknown field "memory"; more keys are known with go build -tags monitor`)
	var stdout, stderr strings.Builder
	require.Equal(t, exitUsage, run(t.Context(), []string{"bundle-logs"}, &stdout, &stderr))
	require.Contains(t, stderr.String(), "bundle-logs and mark-good with go build -tags monitor")
}
