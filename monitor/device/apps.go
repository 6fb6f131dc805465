package device

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// Container is what its engine says of one container.
type Container struct {
	Name    string
	Running bool
	// Restarts is how often the engine has started it anew.
	Restarts int
	// PID is the number of its first process, as the device sees it: the
	// kernel says what its group uses. 0 leaves that out.
	PID int
}

// apps measures units and containers.
func (d *Device) apps(ctx context.Context, emit bool) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	tell := func(name string, values map[string]float64) {
		if ctx.Err() != nil && len(values) == 0 {
			return
		}
		d.o.Look(name, values)
		if emit {
			d.o.Emit(name, values)
		}
	}
	if units, err := d.units(ctx); err == nil {
		for name, values := range units {
			tell("unit/"+name, values)
		}
	}
	for _, c := range d.containers(ctx) {
		tell("container/"+c.Name, d.container(c))
	}
}

const unitProperties = "Id,ActiveState,NRestarts,CPUUsageNSec,MemoryCurrent,TasksCurrent"

// units asks systemd for all units at once.
func (d *Device) units(ctx context.Context) (map[string]map[string]float64, error) {
	if len(d.o.Units) == 0 {
		return nil, nil
	}
	args := append([]string{"--no-ask-password", "--no-pager"}, d.o.Systemctl...)
	args = append(append(args, "show", "--property="+unitProperties, "--"), d.o.Units...)
	cmd := exec.CommandContext(ctx, "systemctl", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("cannot ask systemd: %w", err)
	}
	return parseUnits(out), nil
}

// parseUnits reads the properties of units, with an empty line between two.
func parseUnits(out []byte) map[string]map[string]float64 {
	all := map[string]map[string]float64{}
	for part := range bytes.SplitSeq(out, []byte("\n\n")) {
		name, values := "", map[string]float64{}
		for l := range strings.Lines(string(part)) {
			key, value, _ := strings.Cut(strings.TrimSpace(l), "=")
			switch key {
			case "Id":
				name = value
			case "ActiveState":
				values["active"] = 0
				if value == "active" || value == "reloading" || value == "refreshing" {
					values["active"] = 1
				}
			case "NRestarts":
				number(values, "restarts", value, 1)
			case "CPUUsageNSec":
				number(values, "cpu", value, 1e-9)
			case "MemoryCurrent":
				number(values, "memory", value, 1)
			case "TasksCurrent":
				number(values, "tasks", value, 1)
			}
		}
		if name != "" {
			all[name] = values
		}
	}
	return all
}

// number takes what systemd knows; what it does not know is a word, or the
// highest number that there is.
func number(values map[string]float64, name, text string, times float64) {
	if n, err := strconv.ParseUint(text, 10, 64); err == nil && n != 1<<64-1 {
		values[name] = float64(n) * times
	}
}

// containers asks the engine. A callback that panics measures nothing.
func (d *Device) containers(ctx context.Context) (all []Container) {
	if d.o.Containers == nil {
		return nil
	}
	defer func() {
		if recover() != nil {
			all = nil
		}
	}()
	all, err := d.o.Containers(ctx)
	if err != nil {
		return nil
	}
	return all[:min(len(all), maxApps)]
}

func (d *Device) container(c Container) map[string]float64 {
	v := map[string]float64{"running": 0, "restarts": float64(c.Restarts)}
	if c.Running {
		v["running"] = 1
	}
	if c.PID <= 0 {
		return v
	}
	p, err := d.proc.Proc(c.PID)
	if err != nil {
		return v
	}
	groups, err := p.Cgroups()
	if err != nil {
		return v
	}
	for _, g := range groups {
		d.group(v, g)
	}
	return v
}

// group reads what a group of processes uses: of the one hierarchy of cgroup v2
// (cgroup-v2.rst), or of those for cpuacct and memory of version 1.
func (d *Device) group(v map[string]float64, g procfs.Cgroup) {
	if g.Path == "/" {
		return // the whole device
	}
	read := func(hierarchy, file string) []byte {
		data, err := readFile(filepath.Join(d.o.Sys, "fs/cgroup", hierarchy, filepath.Clean("/"+g.Path), file))
		if err != nil {
			return nil
		}
		return data
	}
	if g.HierarchyID == 0 {
		set(v, "cpu", read("", "cpu.stat"), "usage_usec", 1e-6)
		number(v, "memory", string(bytes.TrimSpace(read("", "memory.current"))), 1)
		set(v, "oom", read("", "memory.events"), "oom_kill", 1)
	}
	for _, c := range g.Controllers {
		switch c {
		case "cpuacct":
			number(v, "cpu", string(bytes.TrimSpace(read(c, "cpuacct.usage"))), 1e-9)
		case "memory":
			number(v, "memory", string(bytes.TrimSpace(read(c, "memory.usage_in_bytes"))), 1)
			set(v, "oom", read(c, "memory.oom_control"), "oom_kill", 1)
		}
	}
}
