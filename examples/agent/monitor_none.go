//go:build !monitor

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/pawl-ota/pawl/monitor"
)

// monitoring is what an agent that was built with -tags monitor, for some
// megabytes more, knows besides: run, reports, bundle-logs.
type monitoring struct{}

var errNoMonitor = errors.New("this agent knows nothing of it: build it with go build -tags monitor")

func (monitoring) parse(run, report json.RawMessage, _ string) error {
	switch {
	case run != nil:
		return fmt.Errorf("run: %w", errNoMonitor)
	case report != nil:
		return fmt.Errorf("report: %w", errNoMonitor)
	}
	return nil
}

func (monitoring) paths(func(*string)) {}

func (*agent) openReport(context.Context) reporting { return nil }

// otherKinds are none: health is asked by programs.
type otherKinds struct{}

func (s *probeSet) make(q question) (monitor.Part, error) { return s.program(q) }

func (otherKinds) paths(func(*string)) {}

// otherKeys is added to what is said of a key that is not known.
const otherKeys = "; more keys are known with go build -tags monitor"

// monitoredLines say nothing.
func (*condition) monitoredLines() []string { return nil }

// addMonitored adds what only the other agent knows.
func (*agent) addMonitored(*condition) []string { return nil }

// otherVerbs says where the others are.
const otherVerbs = "; run, bundle-logs and mark-good with go build -tags monitor"

func withMore(all map[string]command) map[string]command { return all }
