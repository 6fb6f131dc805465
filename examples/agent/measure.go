//go:build monitor

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/monitor/alert"
	"github.com/pawl-ota/pawl/monitor/device"
	"github.com/pawl-ota/pawl/monitor/textfile"
)

// measure returns what runs beside the rounds where somebody is told: it
// measures, watches for alerts and writes the file for Prometheus.
func (r *runner) measure(ctx context.Context) (all []func(context.Context)) {
	if r.report == nil {
		return nil
	}
	conf := r.config.monitor.report
	w := &watcher{conf: conf.Alerts, stream: r.report.stream, followed: map[string]bool{}}
	var err error
	if w.alerts, err = alert.New(alert.Options{Emit: w.stream.Emit}, w.load()); err != nil {
		r.warn(err)
	}
	w.follow(ctx)
	w.stream.Tell(ctx, func(e monitor.Event) { w.event(ctx, e) })
	all = append(all, w.alerts.Run)
	if conf.Prometheus != "" {
		all = append(all, writeText(ctx, conf.Prometheus, w.stream))
	}
	if m := conf.Metrics; !m.Off {
		d, err := r.device(m, w.alerts.Sample)
		if err != nil {
			r.warn(err)
			return all
		}
		all = append(all, d.Run)
	}
	return all
}

// device measures what the configuration lists.
func (r *runner) device(m measured, look func(string, map[string]float64)) (*device.Device, error) {
	o := device.Options{
		Look: look, Emit: r.report.stream.Sample, Interval: time.Duration(m.Interval), EmitInterval: time.Duration(m.Emit), Paths: m.Paths, Units: m.Units,
	}
	if len(r.apps()) > 0 {
		o.Containers = r.containers
	}
	return device.New(o)
}

// containers lists those of the apps.
func (r *runner) containers(ctx context.Context) (all []device.Container, err error) {
	for _, one := range r.apps() {
		some, failed := one.services(ctx)
		err = errors.Join(err, failed)
		for _, s := range some {
			all = append(all, device.Container{Name: s.Container, Running: s.State == "running", Restarts: s.Restarts})
		}
	}
	return all, err
}

// watcher turns what is measured into alerts, by the rules of the device and of
// the release that runs.
type watcher struct {
	conf   rules
	stream *monitor.Stream
	alerts *alert.Alerts

	followed map[string]bool // logs
	said     string          // why rules cannot be used
}

// event passes on what rules may be about. Another release may bring other
// rules.
func (w *watcher) event(ctx context.Context, e monitor.Event) {
	switch e.Kind {
	case monitor.Activated, monitor.Committed, monitor.Reverted:
		if err := w.alerts.Set(w.load()); err != nil {
			w.tell(err)
		}
		w.follow(ctx)
	}
	w.alerts.Event(e)
}

// follow begins to follow the logs that rules are about, each once, until ctx
// ends.
func (w *watcher) follow(ctx context.Context) {
	for _, name := range w.alerts.Logs() {
		if w.followed[name] {
			continue
		}
		w.followed[name] = true
		if lines := linesOf(name); lines != nil {
			go w.alerts.Follow(ctx, name, lines)
		} else {
			w.tell(fmt.Errorf("only logs of the names unit/NAME and file/PATH can be followed, not %q", name))
		}
	}
}

// load reads the rules. Those that cannot be read are told of, and are none: a
// broken file in a release must not keep the device from being watched.
func (w *watcher) load() []alert.Rule {
	var all [2][]alert.Rule
	for i, path := range []string{w.conf.Release, w.conf.File} {
		if path == "" {
			continue
		}
		some, err := alert.Load(path)
		if i == 0 && errors.Is(err, fs.ErrNotExist) {
			continue // a release need not have any
		}
		if err != nil {
			w.tell(err)
		}
		all[i] = some
	}
	return alert.Merge(all[0], all[1])
}

// tell makes an alert of rules that cannot be used.
func (w *watcher) tell(err error) {
	if err.Error() == w.said {
		return
	}
	w.said = err.Error()
	w.stream.Emit(monitor.Event{Kind: monitor.Alert, Name: "alert rules", Reason: err.Error(), Values: map[string]float64{"firing": 1}})
}

// linesOf returns what follows a log, nil where the agent cannot.
func linesOf(name string) alert.Lines {
	if unit, ok := strings.CutPrefix(name, "unit/"); ok {
		return alert.Journal(unit)
	}
	if path, ok := strings.CutPrefix(name, "file/"); ok {
		return alert.File(path)
	}
	return nil
}

// textEvery is how often the file for Prometheus is written.
const textEvery = 15 * time.Second

func writeText(ctx context.Context, path string, stream *monitor.Stream) func(context.Context) {
	f := textfile.New(path)
	stream.Tell(ctx, f.Event)
	return func(ctx context.Context) {
		t := time.NewTicker(textEvery)
		defer t.Stop()
		for {
			_ = f.Write() // the one before stays, and node_exporter shows its age
			select {
			case <-t.C:
			case <-ctx.Done():
				_ = f.Write()
				return
			}
		}
	}
}
