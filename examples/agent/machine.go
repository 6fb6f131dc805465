//go:build monitor

package main

import (
	"errors"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/monitor/probe"
)

// askMachine is for what is asked of the device itself.
func (q question) askMachine(kind string) (ask monitor.Ask, about string, err error) {
	switch kind {
	case "process":
		p := *q.Process
		if p.Name == "" && p.PIDFile == "" {
			return nil, "", errors.New("name or pidFile is needed")
		}
		return probe.Process{Name: p.Name, PIDFile: p.PIDFile, Least: p.Least}.Ask(), p.Name + p.PIDFile, nil
	case "disk":
		d := *q.Disk
		if d.Path == "" || d.FreeBytes <= 0 && d.FreePercent <= 0 && d.FreeInodes <= 0 {
			return nil, "", errors.New("path, and freeBytes, freePercent or freeInodes are needed")
		}
		return probe.Disk{Path: d.Path, FreeBytes: d.FreeBytes, FreePercent: d.FreePercent, FreeInodes: d.FreeInodes}.Ask(), d.Path, nil
	case "memory":
		m := *q.Memory
		if m.AvailableBytes <= 0 && m.AvailablePercent <= 0 {
			return nil, "", errors.New("availableBytes or availablePercent is needed")
		}
		return probe.Memory{AvailableBytes: m.AvailableBytes, AvailablePercent: m.AvailablePercent}.Ask(), "", nil
	}
	if q.Temperature.Max == 0 {
		return nil, "", errors.New("max is needed")
	}
	return probe.Temperature{Sensors: q.Temperature.Sensors, Max: q.Temperature.Max}.Ask(), "", nil
}
