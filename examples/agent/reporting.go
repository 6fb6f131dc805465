package main

import (
	"context"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/ota"
)

// reporting tells others what happens on the device, where the agent was built
// with -tags monitor. It has no errors, and waits for nobody but in close.
type reporting interface {
	// opened is called when the agent has its updater, before the first verb.
	opened(a *agent)
	progress(p ota.Progress)
	changed(a monitor.Answer)
	outcome(r ota.Result, err error)
	repaired(found, left []ota.Damage, err error)
	close(ctx context.Context)
}
