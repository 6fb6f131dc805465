// Package device measures a device and the apps on it: once in 10 seconds at a
// cost that nobody notices, for rules on the device, and once in 5 minutes, with
// the peaks since the time before, for those at home.
//
//	d, err := device.New(device.Options{
//		Units: []string{"app.service"},
//		Look:  alerts.Sample, // of an alert.Alerts
//		Emit:  stream.Sample, // of a monitor.Stream
//	})
//	go d.Run(ctx)
//
// The samples and their values; what a device does not have is left out:
//
//	device
//	  cpu.busy, cpu.wait, cpu.stolen        shares of all processors since the look before, 0 to 1
//	  load1, load5, load15                  the load
//	  memory.total, memory.available        bytes
//	  swap.used, oom                        bytes; kills for lack of memory since boot
//	  pressure.R.some, pressure.R.full      shares of 10 s in which some or all waited; R is cpu, memory, io
//	  disk.PATH.size, .free, .inodes        bytes of a file system, those that are free, and free inodes
//	  io.DISK.read, .written, .busy         bytes since boot, and seconds in which it was busy
//	  temperature.ZONE, .CHIP.SENSOR, .max  degrees Celsius
//	  network.IF.received, .sent, .errors   bytes since boot, and errors and drops
//	  uptime, clock.trusted                 seconds, and 1 when a source of time has set the clock
//	unit/NAME
//	  active, restarts, cpu, memory, tasks  1 or 0, automatic restarts, seconds since it started, bytes, processes and threads
//	container/NAME
//	  running, restarts, cpu, memory, oom   likewise; oom counts kills for lack of memory
//
// What is emitted has besides the highest cpu.busy, load1, pressure and
// temperature since the time before, as name.max, and the lowest memory.available
// as memory.available.min.
package device

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/procfs"
	"github.com/prometheus/procfs/blockdevice"
	"github.com/prometheus/procfs/sysfs"

	"github.com/pawl-ota/pawl/monitor"
)

// Options configure a [Device]. The zero value measures, and tells nobody.
type Options struct {
	// Look is told of every look; [alert.Alerts.Sample] fits. Emit is told
	// less often; [monitor.Stream.Sample] fits. Both have to return soon, and are
	// called from two goroutines.
	Look, Emit func(name string, values map[string]float64)
	// Interval is the time from one look at the device to the next; 0 means
	// 10 s. AppInterval is that for units and containers, whose supervisors
	// have to be asked; 0 means 1 minute. EmitInterval is the time between two
	// samples that are emitted; 0 means 5 minutes.
	Interval, AppInterval, EmitInterval time.Duration
	// Paths are on the file systems that are measured; nil means "/". At most
	// 16.
	Paths []string
	// Units are the units of systemd that are measured, by "systemctl show"
	// with Systemctl before all other arguments, such as --user. At most 64.
	Units, Systemctl []string
	// Containers lists containers; it should return soon after ctx ends. nil
	// means none. More than 64 are left out.
	Containers func(ctx context.Context) ([]Container, error)
	// Now returns the wall clock, and whether to trust it; nil means
	// [monitor.WallClock].
	Now func() (t time.Time, trusted bool)

	// Proc and Sys are where the kernel tells of itself; empty means /proc and
	// /sys.
	Proc, Sys string
}

const (
	maxPaths = 16
	maxApps  = 64
	maxOf    = 16 // disks, interfaces and zones
	askLimit = 30 * time.Second
)

func (o Options) withDefaults() (Options, error) {
	for _, d := range []struct {
		field string
		value *time.Duration
		zero  time.Duration
	}{
		{"Interval", &o.Interval, 10 * time.Second}, {"AppInterval", &o.AppInterval, time.Minute}, {"EmitInterval", &o.EmitInterval, 5 * time.Minute},
	} {
		if *d.value < 0 {
			return o, fmt.Errorf("device: field %s is negative", d.field)
		}
		*d.value = cmp.Or(*d.value, d.zero)
	}
	if o.Paths == nil {
		o.Paths = []string{"/"}
	}
	if len(o.Paths) > maxPaths || len(o.Units) > maxApps {
		return o, fmt.Errorf("device: field Paths has more than %d, or Units more than %d", maxPaths, maxApps)
	}
	nobody := func(string, map[string]float64) {}
	if o.Look == nil {
		o.Look = nobody
	}
	if o.Emit == nil {
		o.Emit = nobody
	}
	if o.Now == nil {
		o.Now = monitor.WallClock
	}
	o.Proc, o.Sys = cmp.Or(o.Proc, "/proc"), cmp.Or(o.Sys, "/sys")
	return o, nil
}

// Device measures. Sample and Run are for one goroutine at a time.
type Device struct {
	o     Options
	proc  procfs.FS
	sys   sysfs.FS
	disks blockdevice.FS
	cpu   procfs.CPUStat // at the last look
}

// New returns a Device. An error names the option that is wrong, or says that
// the kernel does not tell of itself.
func New(o Options) (*Device, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	d := &Device{o: o}
	var procErr, sysErr, diskErr error
	d.proc, procErr = procfs.NewFS(o.Proc)
	d.sys, sysErr = sysfs.NewFS(o.Sys)
	d.disks, diskErr = blockdevice.NewFS(o.Proc, o.Sys)
	if err := errors.Join(procErr, sysErr, diskErr); err != nil {
		return nil, fmt.Errorf("device: %w", err)
	}
	return d, nil
}

// Run measures until ctx ends.
func (d *Device) Run(ctx context.Context) {
	apps := make(chan struct{})
	go func() {
		defer close(apps)
		if len(d.o.Units) > 0 || d.o.Containers != nil {
			d.every(ctx, d.o.AppInterval, func(emit bool) { d.apps(ctx, emit) })
		}
	}()
	peaks := peaks{}
	d.every(ctx, d.o.Interval, func(emit bool) {
		values, _ := d.Sample() // what cannot be read is not there
		d.o.Look("device", values)
		peaks.see(values)
		if emit {
			peaks.into(values)
			d.o.Emit("device", values)
		}
	})
	<-apps
}

// every calls look now and at each interval, with emit when that is due.
func (d *Device) every(ctx context.Context, interval time.Duration, look func(emit bool)) {
	t := time.NewTicker(interval)
	defer t.Stop()
	var emitted time.Time
	for {
		emit := emitted.IsZero() || time.Since(emitted) >= d.o.EmitInterval
		if emit {
			emitted = time.Now()
		}
		look(emit)
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// peaks are the highest and lowest values since they were emitted.
type peaks map[string]float64

func (p peaks) see(values map[string]float64) {
	for name, v := range values {
		if !peaks.wanted(p, name) {
			continue
		}
		if worst, ok := p[name]; !ok || v > worst && name != available || v < worst && name == available {
			p[name] = v
		}
	}
}

const available = "memory.available"

func (peaks) wanted(name string) bool {
	switch name {
	case "cpu.busy", "load1", "temperature.max", "pressure.cpu.some", "pressure.memory.some", "pressure.io.some", available:
		return true
	}
	return false
}

// into adds the peaks to values, and begins anew.
func (p peaks) into(values map[string]float64) {
	for name, v := range p {
		if name == available {
			values[name+".min"] = v
		} else {
			values[name+".max"] = v
		}
	}
	clear(p)
}
