// Package monitor tells whether a device is well, and says what happens on it.
//
// Two things are here. A [Health] asks probes and answers with one error or
// none: its [Health.Check] is what ota.Options.Health wants. A [Stream] takes
// the events of a device, numbers and dates them, and hands them to whoever
// listens in this process and to a [Sink], from which they are sent home.
//
//	health, err := monitor.NewHealth(monitor.HealthOptions{Changed: stream.Probe},
//		monitor.All(
//			monitor.Probe{Name: "app", Ask: probe.Unit{Name: "app.service"}.Ask(), Successes: 3},
//			monitor.Probe{Name: "port", Ask: probe.TCP("127.0.0.1:80"), Failures: 2},
//			monitor.Advisory(monitor.Probe{Name: "disk", Ask: probe.Disk{Path: "/var", FreeBytes: 8 << 20}.Ask()}),
//		))
//	…
//	options.Health = health.Check // of an ota.Options
//
// What nobody uses is not linked: the questions themselves are in package
// monitor/probe, the one over HTTP in monitor/probe/web, the durable [Sink] in
// monitor/outbox, what sends it in monitor/cloudevents, monitor/mqtt and
// monitor/otlp, measurements in monitor/device, rules for alerts in monitor/alert,
// the events of an ota.Updater and late rollback in monitor/updates, and watchdogs
// in monitor/watchdog. All of it sends, and opens no port.
//
// # What is promised
//
// A probe that hangs or panics is a failed probe: a check returns in its time,
// and at most one goroutine per probe is ever left waiting. Emitting an event
// never waits for a listener, a disk or a network, and has no error: an update
// goes on the same whether its events are heard or not.
//
// # Format
//
// An event is one JSON object, of the format "pawl-event/0"; EVENTS.md beside
// this file lists its fields. A reader has to ignore fields that it does not
// know, and may find kinds that it does not know.
package monitor
