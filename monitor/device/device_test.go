package device

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/monitor"
)

// kernel makes a /proc and a /sys of these files, and options for them.
func kernel(t *testing.T, files map[string]string) Options {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"proc", "sys"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	for path, text := range files {
		path = filepath.Join(dir, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	return Options{
		Proc: filepath.Join(dir, "proc"), Sys: filepath.Join(dir, "sys"), Paths: []string{},
		Now: func() (time.Time, bool) { return time.Time{}, true },
	}
}

var machine = map[string]string{
	"proc/stat":    "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 100 0 100 700 100 0 0 0 0 0\nintr 5 0 5\nctxt 1\nbtime 1700000000\nprocesses 9\nprocs_running 1\nprocs_blocked 0\nsoftirq 1 0 1 0 0 0 0 0 0 0 0\n",
	"proc/loadavg": "0.50 0.25 0.10 1/100 1234\n",
	"proc/meminfo": "MemTotal:  1000 kB\nMemFree:  100 kB\nMemAvailable:  400 kB\nSwapTotal:  100 kB\nSwapFree:  60 kB\n",
	"proc/vmstat":  "nr_free_pages 7\noom_kill_other 9\noom_kill 2\nlast 1\n",
	"proc/uptime":  "3600.50 100.00\n",
	"proc/net/dev": "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n" +
		"    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  eth0: 1000 10 1 2 0 0 0 0 500 5 3 4 0 0 0 0\n veth1: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n",
	"proc/pressure/cpu":      "some avg10=12.50 avg60=1.00 avg300=0.00 total=5\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=0\n",
	"proc/pressure/memory":   "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=50.00 avg60=0.00 avg300=0.00 total=0\n",
	"proc/pressure/io":       "some avg10=1.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=0\n",
	"sys/block/mmcblk0/stat": " 10 0 8 100 20 0 16 200 0 1500 300 0 0 0 0\n", "sys/block/loop0/stat": " 10 0 8 100 20 0 16 200 0 300 300\n",
	"sys/class/hwmon/hwmon0/name": "drivetemp\n", "sys/class/hwmon/hwmon0/temp1_input": "38000\n",
	"sys/class/hwmon/hwmon1/name": "nvme\n", "sys/class/hwmon/hwmon1/temp1_input": "51250\n", "sys/class/hwmon/hwmon1/temp1_label": "Sensor 1\n",
	"sys/class/hwmon/hwmon2/name": "drivetemp\n", "sys/class/hwmon/hwmon2/temp1_input": "39000\n",
	"sys/class/hwmon/hwmon2/temp2_input": "127000\n", "sys/class/hwmon/hwmon2/temp2_fault": "1\n", "sys/class/hwmon/hwmon2/temp3_input": "-\n",
	"sys/class/thermal/thermal_zone0/type": "cpu\n", "sys/class/thermal/thermal_zone0/temp": "45500\n", "sys/class/thermal/thermal_zone0/policy": "step_wise\n",
	"sys/class/thermal/thermal_zone1/type": "cpu\n", "sys/class/thermal/thermal_zone1/temp": "-5000\n", "sys/class/thermal/thermal_zone1/policy": "step_wise\n",
}

func TestSample(t *testing.T) {
	o := kernel(t, machine)
	d, err := New(o)
	require.NoError(t, err)
	v, err := d.Sample()
	require.NoError(t, err)
	require.Equal(t, map[string]float64{
		"cpu.busy": 0.2, "cpu.wait": 0.1, "cpu.stolen": 0, "load1": 0.5, "load5": 0.25, "load15": 0.1,
		"memory.total": 1000 << 10, "memory.available": 400 << 10, "swap.used": 40 << 10, "oom": 2,
		"pressure.cpu.some": 0.125, "pressure.memory.some": 0, "pressure.memory.full": 0.5, "pressure.io.some": 0.01, "pressure.io.full": 0.005,
		"io.mmcblk0.read": 8 * 512, "io.mmcblk0.written": 16 * 512, "io.mmcblk0.busy": 1.5,
		"temperature.cpu": 45.5, "temperature.cpu.1": -5, "temperature.max": 51.25,
		"temperature.drivetemp.temp1": 38, "temperature.nvme.Sensor-1": 51.25, "temperature.drivetemp.temp1.2": 39,
		"network.eth0.received": 1000, "network.eth0.sent": 500, "network.eth0.errors": 10,
		"uptime": 3600.5, "clock.trusted": 1,
	}, round(v))

	now := strings.Replace(machine["proc/stat"], "cpu  100 0 100 700 100", "cpu  190 0 100 710 100", 1)
	require.NoError(t, os.WriteFile(filepath.Join(o.Proc, "stat"), []byte(now), 0o644))
	v, err = d.Sample()
	require.NoError(t, err)
	require.InDelta(t, 0.9, v["cpu.busy"], 1e-9, "since the look before")
	v, err = d.Sample()
	require.NoError(t, err)
	require.NotContains(t, v, "cpu.busy", "no tick has passed")
}

func round(v map[string]float64) map[string]float64 {
	for name, n := range v {
		v[name] = float64(int64(n*1e6+0.5*sign(n))) / 1e6
	}
	return v
}

func sign(n float64) float64 {
	if n < 0 {
		return -1
	}
	return 1
}

// TestSensorOfAZone: a zone that the kernel shows as a sensor too is there once.
func TestSensorOfAZone(t *testing.T) {
	o := kernel(t, map[string]string{
		"sys/class/thermal/thermal_zone0/type": "cpu_thermal\n", "sys/class/thermal/thermal_zone0/temp": "-2000\n", "sys/class/thermal/thermal_zone0/policy": "step_wise\n",
		"sys/class/hwmon/hwmon0/name": "cpu_thermal\n", "sys/class/hwmon/hwmon0/temp1_input": "47000\n",
	})
	require.NoError(t, os.Symlink("../../thermal/thermal_zone0", filepath.Join(o.Sys, "class/hwmon/hwmon0/device")))
	d, err := New(o)
	require.NoError(t, err)
	v, err := d.Sample()
	require.NoError(t, err)
	require.Equal(t, map[string]float64{"clock.trusted": 1, "temperature.cpu_thermal": -2, "temperature.max": -2}, v)
}

// TestPoorKernel: what is not there is left out, and what is broken is said and
// takes nothing else along.
func TestPoorKernel(t *testing.T) {
	d, err := New(kernel(t, nil))
	require.NoError(t, err)
	v, err := d.Sample()
	require.NoError(t, err)
	require.Equal(t, map[string]float64{"clock.trusted": 1}, v)

	broken := maps.Clone(machine)
	for _, path := range []string{"proc/stat", "proc/loadavg", "proc/meminfo", "proc/net/dev", "proc/uptime", "sys/block/mmcblk0/stat", "sys/class/thermal/thermal_zone1/temp",
		"sys/class/hwmon/hwmon1/temp1_input"} {
		broken[path] = "\x00 ,, :\n:: 7\n\n-\n"
	}
	o := kernel(t, broken)
	o.Paths = []string{"/", "/no/such/folder"}
	d, err = New(o)
	require.NoError(t, err)
	v, err = d.Sample()
	require.ErrorContains(t, err, "/no/such/folder")
	require.Equal(t, 45.5, v["temperature.max"])
	require.Equal(t, 2.0, v["oom"])
	require.Positive(t, v["disk./.size"])
	require.LessOrEqual(t, v["disk./.free"], v["disk./.size"])
	for _, name := range []string{"memory.total", "uptime", "temperature.cpu.1", "temperature.nvme.Sensor-1"} {
		require.NotContains(t, v, name)
	}
	var root unix.Statfs_t
	require.NoError(t, unix.Statfs("/", &root))
	require.EqualValues(t, float64(root.Blocks)*float64(root.Bsize), v["disk./.size"])
	require.InEpsilon(t, float64(root.Bavail)*float64(root.Bsize)+1, v["disk./.free"]+1, 0.1)
	require.InEpsilon(t, float64(root.Ffree)+1, v["disk./.inodes"]+1, 0.1)
}

func TestOptions(t *testing.T) {
	for want, o := range map[string]Options{
		"field Interval": {Interval: -1}, "field Paths": {Paths: make([]string, 17)}, "device: ": {Proc: "/no/such/folder"}, "Units": {Units: make([]string, 65)},
	} {
		_, err := New(o)
		require.ErrorContains(t, err, want)
	}
}

func TestUnits(t *testing.T) {
	all := parseUnits([]byte("Id=app.service\nActiveState=active\nNRestarts=3\nCPUUsageNSec=2500000000\nMemoryCurrent=1048576\nTasksCurrent=7\n\n" +
		"Id=old.service\nActiveState=failed\nNRestarts=0\nCPUUsageNSec=18446744073709551615\nMemoryCurrent=[not set]\nTasksCurrent=\n\ngarbage\n"))
	require.Equal(t, map[string]map[string]float64{
		"app.service": {"active": 1, "restarts": 3, "cpu": 2.5, "memory": 1 << 20, "tasks": 7},
		"old.service": {"active": 0, "restarts": 0},
	}, all)
}

// TestSystemd: one command asks for all units, and one that hangs is killed.
func TestSystemd(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\necho \"$@\" >>" + dir + "/asked\n[ \"$1\" != hang ] || exec sleep 60\nprintf 'Id=a.service\\nNRestarts=2\\n\\nId=b.service\\nNRestarts=0\\n'\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "systemctl"), []byte(script), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	told := map[string]float64{}
	o := kernel(t, nil)
	o.Units, o.Systemctl = []string{"a.service", "b.service"}, []string{"--user"}
	o.Look = func(name string, v map[string]float64) { told[name] = v["restarts"] }
	d, err := New(o)
	require.NoError(t, err)
	d.apps(t.Context(), false)
	require.Equal(t, map[string]float64{"unit/a.service": 2, "unit/b.service": 0}, told)
	asked, err := os.ReadFile(filepath.Join(dir, "asked"))
	require.NoError(t, err)
	require.Equal(t, "--no-ask-password --no-pager --user show --property="+unitProperties+" -- a.service b.service\n", string(asked))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "systemctl"), []byte("#!/bin/sh\nsleep 60\n"), 0o755))
	_, err = d.units(ctx)
	require.ErrorContains(t, err, "cannot ask systemd")
}

// TestContainers: what the engine says and what the kernel says, of both versions
// of cgroups.
func TestContainers(t *testing.T) {
	d, err := New(kernel(t, map[string]string{
		"proc/41/cgroup": "0::/system.slice/docker-a.scope\n",
		"sys/fs/cgroup/system.slice/docker-a.scope/cpu.stat":       "usage_usec 1500000\nuser_usec 1\n",
		"sys/fs/cgroup/system.slice/docker-a.scope/memory.current": "4096\n",
		"sys/fs/cgroup/system.slice/docker-a.scope/memory.events":  "low 0\noom 3\noom_kill 2\n",
		"proc/42/cgroup": "9:cpu,cpuacct:/docker/b\n4:memory:/docker/b\n",
		"sys/fs/cgroup/cpuacct/docker/b/cpuacct.usage":        "2500000000\n",
		"sys/fs/cgroup/memory/docker/b/memory.usage_in_bytes": "8192\n",
		"sys/fs/cgroup/memory/docker/b/memory.oom_control":    "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
		"proc/43/cgroup": "0::/\n", "sys/fs/cgroup/memory.current": "1\n",
		"proc/44/cgroup": "0::/../../etc\n", "sys/etc/memory.current": "7\n",
	}))
	require.NoError(t, err)
	for _, c := range []struct {
		c    Container
		want map[string]float64
	}{
		{Container{Running: true, Restarts: 4, PID: 41}, map[string]float64{"running": 1, "restarts": 4, "cpu": 1.5, "memory": 4096, "oom": 2}},
		{Container{Running: true, PID: 42}, map[string]float64{"running": 1, "restarts": 0, "cpu": 2.5, "memory": 8192, "oom": 1}},
		{Container{Running: true, PID: 43}, map[string]float64{"running": 1, "restarts": 0}},
		{Container{PID: 44}, map[string]float64{"running": 0, "restarts": 0}},
		{Container{PID: 999}, map[string]float64{"running": 0, "restarts": 0}},
		{Container{}, map[string]float64{"running": 0, "restarts": 0}},
	} {
		require.Equal(t, c.want, d.container(c.c))
	}
	for _, list := range []func(context.Context) ([]Container, error){
		func(context.Context) ([]Container, error) { panic("no engine") },
		func(context.Context) ([]Container, error) { return make([]Container, 9), errors.New("no engine") },
	} {
		d.o.Containers = list
		require.Empty(t, d.containers(t.Context()))
	}
	d.o.Containers = func(context.Context) ([]Container, error) { return make([]Container, 900), nil }
	require.Len(t, d.containers(t.Context()), maxApps)
}

// TestRun: a look every 10 s and an event every 5 minutes, with the peak of what
// was seen in between; an engine that hangs holds nothing up.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := kernel(t, machine)
		looks, emitted := map[string]int{}, map[string][]map[string]float64{}
		var mu sync.Mutex // the device and its apps are measured side by side
		o.Look = func(name string, v map[string]float64) {
			mu.Lock()
			defer mu.Unlock()
			if looks[name]++; name == "device" && looks[name] == 5 { // for the next look
				require.NoError(t, os.WriteFile(filepath.Join(o.Proc, "loadavg"), []byte("7 0 0 1/1 1\n"), 0o644))
				require.NoError(t, os.WriteFile(filepath.Join(o.Proc, "meminfo"), []byte("MemTotal: 9 kB\nMemAvailable: 1 kB\n"), 0o644))
			} else if name == "device" && looks[name] == 6 {
				for _, f := range []string{"loadavg", "meminfo"} {
					require.NoError(t, os.WriteFile(filepath.Join(o.Proc, f), []byte(machine["proc/"+f]), 0o644))
				}
			}
		}
		o.Emit = func(name string, v map[string]float64) {
			mu.Lock()
			defer mu.Unlock()
			emitted[name] = append(emitted[name], maps.Clone(v))
		}
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		o.Containers = func(ctx context.Context) ([]Container, error) {
			if asked++; asked == 3 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return []Container{{Name: "web", Running: true}}, nil
		}
		d, err := New(o)
		require.NoError(t, err)
		ended := make(chan struct{})
		go func() { defer close(ended); d.Run(ctx) }()
		<-time.After(10*time.Minute + time.Second)
		cancel()
		<-ended
		require.Equal(t, map[string]int{"device": 61, "container/web": 10}, looks)
		require.Len(t, emitted["device"], 3)
		require.Len(t, emitted["container/web"], 3)
		require.Equal(t, 0.5, emitted["device"][0]["load1.max"])
		require.Equal(t, 7.0, emitted["device"][1]["load1.max"])
		require.Equal(t, 1024.0, emitted["device"][1]["memory.available.min"])
		require.Equal(t, 0.5, emitted["device"][2]["load1.max"])
	})
}

func TestBoots(t *testing.T) {
	o := kernel(t, map[string]string{"proc/sys/kernel/random/boot_id": "one\n"})
	b := Boots{File: filepath.Join(t.TempDir(), "boot"), Proc: o.Proc, Sys: o.Sys}
	boot := func(id string) {
		require.NoError(t, os.WriteFile(filepath.Join(o.Proc, "sys/kernel/random/boot_id"), []byte(id), 0o644))
	}
	begin := func(want string) {
		t.Helper()
		first, why, err := b.Begin()
		require.NoError(t, err)
		require.Equal(t, want != "", first)
		require.Equal(t, want, why)
	}
	knows := func(want string) {
		t.Helper()
		why, err := b.Why()
		require.NoError(t, err)
		require.Equal(t, want, why)
	}
	knows("")
	begin("not known: the first boot that is watched")
	begin("")
	boot("two")
	begin("nothing said why: the power or a reset")
	require.NoError(t, b.Ends("update to 1.4.0"))
	begin("")
	knows("nothing said why: the power or a reset")
	boot("three")
	knows("")
	begin("update to 1.4.0")
	knows("update to 1.4.0")
	boot("four")
	for path, text := range map[string]string{"class/watchdog/watchdog0/bootstatus": "32\n", "fs/pstore/dmesg-efi-1": "panic"} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(o.Sys, path)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(o.Sys, path), []byte(text), 0o644))
	}
	begin("a watchdog reset the device; the kernel panicked: 1 records in /sys/fs/pstore")
	require.NoError(t, os.WriteFile(b.File, []byte("\x00\x00\x00"), 0o600))
	begin("a watchdog reset the device; the kernel panicked: 1 records in /sys/fs/pstore")
	b.File = filepath.Join(b.File, "no folder")
	first, why, err := b.Begin()
	require.True(t, first)
	require.Contains(t, why, "watchdog")
	require.ErrorContains(t, err, "cannot note the boot")
	require.Error(t, Boots{Proc: t.TempDir()}.Ends("x"))
}

// TestBudget: on this machine one look costs less than half a percent of a core
// at 10 s, and a hundred of them keep no memory.
func TestBudget(t *testing.T) {
	d, err := New(Options{Look: func(string, map[string]float64) {}})
	require.NoError(t, err)
	v, err := d.Sample()
	require.NoError(t, err)
	for _, name := range []string{"load1", "memory.available", "uptime", "disk./.free"} {
		require.Contains(t, v, name, "%v", slices.Sorted(maps.Keys(v)))
	}
	require.LessOrEqual(t, len(v), 200, "an event holds 256")
	before, began := heap(), used(t)
	const looks = 100
	for range looks {
		_, err := d.Sample()
		require.NoError(t, err)
	}
	each := (used(t) - began) / looks
	require.Less(t, each, 50*time.Millisecond, "0.5 %% of 10 s")
	require.Less(t, heap()-before, int64(1<<20))
	t.Logf("%v of processor time for each look", each)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func used(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkSample(b *testing.B) {
	d, err := New(Options{Now: monitor.WallClock})
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Sample(); err != nil {
			b.Fatal(err)
		}
	}
}
