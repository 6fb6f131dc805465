// Package textfile shows Prometheus what a device knows of itself: it writes a
// file that node_exporter's textfile collector reads (its README, "Textfile
// Collector"), in Prometheus' text format, version 0.0.4. The device opens no
// port for it.
//
//	f := textfile.New("/run/node_exporter/pawl.prom")
//	stream.Tell(ctx, f.Event)
//	for … { err = f.Write() }
//
// The file holds pawl_info (device and release), pawl_release_seq, pawl_events_total
// by kind, pawl_last_event_seconds by kind (the device's clock), pawl_probe_well by
// probe, and pawl_sample by the names of the sample and its value.
package textfile

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/ota/durable"
)

// maxSeries bounds the file: what comes above that is left out.
const maxSeries = 2000

// File collects what events say. It is safe for concurrent use.
type File struct {
	path string

	mu     sync.Mutex
	series map[string]float64 // by name and labels
	info   string             // the series of that name that holds
}

// New returns a File that is written to path, which ends in .prom. Its folder
// should be in memory: the file is written durably every time.
func New(path string) *File {
	return &File{path: path, series: map[string]float64{}}
}

// Event takes in an event. It fits [monitor.Stream.Tell].
func (f *File) Event(e monitor.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	kind := series("events_total", "kind", string(e.Kind))
	f.set(kind, f.series[kind]+1)
	f.set(series("last_event_seconds", "kind", string(e.Kind)), float64(e.Time.UnixMilli())/1000)
	if e.Probe != nil {
		well := 0.0
		if e.Probe.State == monitor.Well {
			well = 1
		}
		f.set(series("probe_well", "probe", e.Probe.Probe), well)
	}
	if e.Kind == monitor.Sample {
		for name, v := range e.Values {
			f.set(series("sample", "name", e.Name, "value", name), v)
		}
	}
	if e.Release != nil && (e.Tx == "" || e.Kind == monitor.Committed) {
		f.runs(e.Device, e.Release)
	}
}

// runs notes what the device runs.
func (f *File) runs(device string, r *monitor.Release) {
	delete(f.series, f.info)
	f.info = series("info", "device", device, "product", r.Product, "variant", r.Variant, "version", r.Version)
	f.set(f.info, 1)
	f.set(series("release_seq"), float64(r.Seq))
}

func (f *File) set(name string, v float64) {
	if _, ok := f.series[name]; ok || len(f.series) < maxSeries {
		f.series[name] = v
	}
}

// series is a name with its labels.
func series(name string, labels ...string) string {
	name = "pawl_" + name
	if len(labels) == 0 {
		return name
	}
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	var all []string
	for i := 0; i < len(labels); i += 2 {
		all = append(all, labels[i]+`="`+escape.Replace(labels[i+1])+`"`)
	}
	return name + "{" + strings.Join(all, ",") + "}"
}

// Write writes the file as a whole: a reader finds the one before or this one.
func (f *File) Write() error {
	if err := durable.WriteFile(f.path, f.text(), 0o644); err != nil {
		return fmt.Errorf("cannot write the measurements: %w", err)
	}
	return nil
}

func (f *File) text() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out bytes.Buffer
	last := ""
	for _, s := range slices.Sorted(maps.Keys(f.series)) {
		name, _, _ := strings.Cut(s, "{")
		if name != last {
			kind := "gauge"
			if strings.HasSuffix(name, "_total") {
				kind = "counter"
			}
			fmt.Fprintf(&out, "# TYPE %s %s\n", name, kind)
			last = name
		}
		out.WriteString(s + " " + strconv.FormatFloat(f.series[s], 'g', -1, 64) + "\n")
	}
	return out.Bytes()
}
