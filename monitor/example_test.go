package monitor_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/monitor/probe"
)

// A health check of three probes, of which one does not decide. Its Check is what
// ota.Options.Health wants, and its changes go into a stream.
func Example() {
	stream, err := monitor.NewStream(monitor.StreamOptions{Device: "pump-7"})
	if err != nil {
		fmt.Println(err)
		return
	}
	health, err := monitor.NewHealth(monitor.HealthOptions{Changed: stream.Probe}, monitor.All(
		monitor.Probe{Name: "room", Ask: probe.Disk{Path: "/", FreeBytes: 1}.Ask(), Interval: time.Minute},
		monitor.Probe{Name: "pressure", Failures: 1, Ask: func(context.Context) (string, error) {
			return "0.2 bar", errors.New("the pressure is low")
		}},
		monitor.Advisory(monitor.Probe{Name: "fan", Ask: monitor.Func(func(context.Context) error { return errors.New("it does not turn") })}),
	))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(health.Check(context.Background()))
	for _, a := range health.Answers()[1:] {
		fmt.Println(a)
	}
	// Output:
	// pressure: the pressure is low (0.2 bar)
	// pressure: the pressure is low (0.2 bar)
	// fan: it does not turn
}
