package main

import (
	"time"

	"github.com/pawl-ota/pawl/monitor"
)

// day is what happens on a device: two samples every five minutes, as
// monitor/device emits them for a device and one app, a boot, now and then a
// probe that is sick for a while, and one update.
func (d *simulated) day() {
	const every = 5 * time.Minute
	d.stream.Emit(monitor.Event{Kind: monitor.Boot, Reason: "nothing said why: the power or a reset"})
	update := 15*time.Minute + time.Duration(d.random.Int64N(int64(d.span-40*time.Minute)))
	sick := time.Duration(d.random.Int64N(int64(d.span) * 20)) // one device of twenty
	for at := time.Since(d.began); at < d.span; at += every {
		d.until(at)
		d.stream.Sample("device", d.machine(at))
		d.stream.Sample("unit/pump.service", map[string]float64{
			"active": 1, "restarts": 0, "cpu": float64(d.random.IntN(1e9)) / 1e6, "memory": float64(30<<20 + d.random.IntN(1000)<<12), "tasks": 9,
		})
		if at <= sick && sick < at+every {
			d.stream.Probe(monitor.Answer{Probe: "pump: http", State: monitor.Sick, Saw: "503 Service Unavailable", Error: "the status is 503, not 200", InRow: 3})
			d.stream.Probe(monitor.Answer{Probe: "pump: http", State: monitor.Well, Saw: "200 OK", InRow: 1})
		}
		if at <= update && update < at+every {
			d.update()
		}
	}
}

// update is a transaction, which one device of fifty takes back.
func (d *simulated) update() {
	tx := "5-3f9a7c01d2e4"
	to := release(5)
	to.Digest = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	bytes := &monitor.Bytes{Metadata: 9000, Content: 400_000 + d.random.Int64N(1e6), Report: 70_000}
	d.stream.During(tx, to)
	d.stream.Emit(monitor.Event{Kind: monitor.Begin, From: release(4)})
	<-time.After(20 * time.Second)
	d.stream.Emit(monitor.Event{Kind: monitor.Staged, From: release(4), Bytes: bytes})
	<-time.After(2 * time.Second)
	d.stream.Emit(monitor.Event{Kind: monitor.Activated, From: release(4)})
	<-time.After(time.Minute)
	end := monitor.Event{Kind: monitor.Committed, Tx: tx, Release: to, From: release(4), Bytes: bytes, Took: 82 * time.Second, Key: tx}
	if d.n%50 == 3 {
		end.Kind, end.Reason, end.Condemned = monitor.Reverted, "unhealthy: pump: http: the status is 503, not 200", true
		d.reverted.Add(1)
	} else {
		d.stream.Running(*to)
	}
	d.stream.During("", nil)
	d.stream.Emit(end)
}

// machine is a sample of a small device with one disk and one network.
func (d *simulated) machine(at time.Duration) map[string]float64 {
	share := func() float64 { return d.random.Float64() * d.random.Float64() }
	count := func(perSecond float64) float64 { return float64(int64(at.Seconds() * perSecond * (1 + share()/100))) }
	busy, free := share(), 400e6+float64(d.random.IntN(20000))*4096
	return map[string]float64{
		"cpu.busy": busy, "cpu.busy.max": busy + share()/2, "cpu.wait": share() / 10, "cpu.stolen": 0,
		"load1": float64(d.random.IntN(200)) / 100, "load1.max": float64(d.random.IntN(400)) / 100, "load5": float64(d.random.IntN(150)) / 100, "load15": float64(d.random.IntN(100)) / 100,
		"memory.total": 1027604480, "memory.available": free, "memory.available.min": free - 3e6, "swap.used": 0, "oom": 0,
		"pressure.cpu.some": float64(d.random.IntN(900)) / 1e4, "pressure.cpu.some.max": float64(d.random.IntN(2000)) / 1e4,
		"pressure.memory.some": 0, "pressure.memory.some.max": 0, "pressure.memory.full": 0,
		"pressure.io.some": float64(d.random.IntN(90)) / 1e4, "pressure.io.some.max": float64(d.random.IntN(300)) / 1e4, "pressure.io.full": 0,
		"disk./.size": 3901026304, "disk./.free": 2901026304, "disk./.inodes": 200123,
		"disk./data.size": 7901026304, "disk./data.free": 5e9 + float64(d.random.IntN(5000))*4096, "disk./data.inodes": float64(490000 + d.random.IntN(100)),
		"io.mmcblk0.read": count(2000), "io.mmcblk0.written": count(9000), "io.mmcblk0.busy": count(0.02),
		"temperature.cpu": 40 + float64(d.random.IntN(9000))/1000, "temperature.max": 49, "temperature.max.max": 51,
		"network.eth0.received": count(300), "network.eth0.sent": count(200), "network.eth0.errors": 0,
		"uptime": at.Seconds(), "clock.trusted": 1,
	}
}
