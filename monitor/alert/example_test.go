package alert_test

import (
	"fmt"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/monitor/alert"
)

// A rule for a value and one for the lines of a log.
func Example() {
	rules, err := alert.Parse([]byte(`{"format": "pawl-alerts/0", "rules": [
		{"name": "hot", "sample": "device", "value": "temperature.max", "above": 85, "until": 75},
		{"name": "oom", "log": "unit/app.service", "match": "(?i)out of memory", "say": "the app needs more memory"}
	]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	alerts, err := alert.New(alert.Options{Emit: func(e monitor.Event) { fmt.Println(e.Name+":", e.Reason) }}, rules)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, degrees := range []float64{60, 90, 80, 70} {
		alerts.Sample("device", map[string]float64{"temperature.max": degrees})
	}
	alerts.Line("unit/app.service", "worker 3: Out of memory")
	// Output:
	// hot: device temperature.max is 90, limit 85
	// hot: over: device temperature.max is 70, limit 85
	// oom: the app needs more memory: unit/app.service: worker 3: Out of memory
}
