package device

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// Sample looks at the device itself once. The error tells what could not be read
// though it is there; the values are the rest.
func (d *Device) Sample() (map[string]float64, error) {
	v := make(map[string]float64, 64)
	err := errors.Join(
		d.processors(v), d.load(v), d.memory(v), d.outOfMemory(v), d.pressure(v), d.fileSystems(v),
		d.inputOutput(v), d.temperatures(v), d.network(v), d.clocks(v))
	return v, err
}

// present drops the error of a kernel or device that does not have something.
func present(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

func (d *Device) processors(v map[string]float64) error {
	s, err := d.proc.Stat()
	if err != nil {
		return present(err)
	}
	was, is := d.cpu, s.CPUTotal
	d.cpu = is
	// The times of guests are in those of user and nice already.
	sum := func(c procfs.CPUStat) float64 {
		return c.User + c.Nice + c.System + c.Idle + c.Iowait + c.IRQ + c.SoftIRQ + c.Steal
	}
	whole := sum(is) - sum(was)
	if whole <= 0 { // no tick has passed
		return nil
	}
	share := func(part float64) float64 { return min(max(part/whole, 0), 1) }
	v["cpu.busy"] = 1 - share(is.Idle-was.Idle+is.Iowait-was.Iowait)
	v["cpu.wait"] = share(is.Iowait - was.Iowait)
	v["cpu.stolen"] = share(is.Steal - was.Steal)
	return nil
}

func (d *Device) load(v map[string]float64) error {
	l, err := d.proc.LoadAvg()
	if err != nil {
		return present(err)
	}
	v["load1"], v["load5"], v["load15"] = l.Load1, l.Load5, l.Load15
	return nil
}

func (d *Device) memory(v map[string]float64) error {
	m, err := d.proc.Meminfo()
	if err != nil {
		return present(err)
	}
	set := func(name string, bytes *uint64) {
		if bytes != nil {
			v[name] = float64(*bytes)
		}
	}
	set("memory.total", m.MemTotalBytes)
	set("memory.available", m.MemAvailableBytes)
	if m.SwapTotalBytes != nil && m.SwapFreeBytes != nil {
		v["swap.used"] = float64(*m.SwapTotalBytes) - float64(*m.SwapFreeBytes)
	}
	return nil
}

// outOfMemory reads the one line of /proc/vmstat that procfs leaves out.
func (d *Device) outOfMemory(v map[string]float64) error {
	data, err := readFile(filepath.Join(d.o.Proc, "vmstat"))
	if err != nil {
		return present(err)
	}
	set(v, "oom", data, "oom_kill", 1)
	return nil
}

// set takes the number after key, at the start of a line of data.
func set(v map[string]float64, name string, data []byte, key string, times float64) {
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		if is, value, _ := strings.Cut(lines.Text(), " "); is == key {
			if n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64); err == nil {
				v[name] = float64(n) * times
			}
			return
		}
	}
}

// readFile reads a small file of the kernel.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, 64<<10))
}

func (d *Device) pressure(v map[string]float64) (err error) {
	for _, what := range []string{"cpu", "memory", "io"} {
		p, e := d.proc.PSIStatsForResource(what)
		if e != nil {
			err = errors.Join(err, present(e))
			continue
		}
		if p.Some != nil {
			v["pressure."+what+".some"] = p.Some.Avg10 / 100
		}
		if p.Full != nil && what != "cpu" { // of a whole machine it means nothing for cpu (psi.rst)
			v["pressure."+what+".full"] = p.Full.Avg10 / 100
		}
	}
	return err
}

func (d *Device) fileSystems(v map[string]float64) (err error) {
	for _, path := range d.o.Paths {
		var f unix.Statfs_t
		if e := unix.Statfs(path, &f); e != nil {
			err = errors.Join(err, &fs.PathError{Op: "statfs", Path: path, Err: e})
			continue
		}
		v["disk."+path+".size"] = float64(f.Blocks) * float64(f.Bsize)
		v["disk."+path+".free"] = float64(f.Bavail) * float64(f.Bsize)
		if f.Files > 0 { // a file system that makes inodes as it needs them has none
			v["disk."+path+".inodes"] = float64(f.Ffree)
		}
	}
	return err
}

// inputOutput measures whole disks, and not those that are in memory or files.
func (d *Device) inputOutput(v map[string]float64) error {
	names, err := d.disks.SysBlockDevices()
	if err != nil {
		return present(err)
	}
	names = slices.DeleteFunc(names, func(n string) bool {
		return strings.HasPrefix(n, "loop") || strings.HasPrefix(n, "ram") || strings.HasPrefix(n, "zram") || strings.HasPrefix(n, "dm-")
	})
	slices.Sort(names)
	for _, n := range names[:min(len(names), maxOf)] {
		s, _, e := d.disks.SysBlockDeviceStat(n)
		if e != nil {
			err = errors.Join(err, present(e))
			continue
		}
		v["io."+n+".read"] = float64(s.ReadSectors) * 512
		v["io."+n+".written"] = float64(s.WriteSectors) * 512
		v["io."+n+".busy"] = float64(s.IOsTotalTicks) / 1000
	}
	return err
}

// network leaves out what stays on the device.
func (d *Device) network(v map[string]float64) error {
	all, err := d.proc.NetDev()
	if err != nil {
		return present(err)
	}
	var names []string
	for n := range all {
		if n != "lo" && !strings.HasPrefix(n, "veth") && !strings.HasPrefix(n, "br-") && !strings.HasPrefix(n, "docker") {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	for _, n := range names[:min(len(names), maxOf)] {
		i := all[n]
		v["network."+n+".received"], v["network."+n+".sent"] = float64(i.RxBytes), float64(i.TxBytes)
		v["network."+n+".errors"] = float64(i.RxErrors + i.TxErrors + i.RxDropped + i.TxDropped)
	}
	return nil
}

func (d *Device) clocks(v map[string]float64) error {
	_, trusted := d.o.Now()
	v["clock.trusted"] = 0
	if trusted {
		v["clock.trusted"] = 1
	}
	data, err := readFile(filepath.Join(d.o.Proc, "uptime"))
	if err != nil {
		return present(err)
	}
	first, _, _ := strings.Cut(string(data), " ")
	if v["uptime"], err = strconv.ParseFloat(first, 64); err != nil {
		delete(v, "uptime")
	}
	return err
}
