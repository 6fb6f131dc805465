package device

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// heat collects temperatures.
type heat struct {
	values  map[string]float64
	any     bool
	hottest float64
}

// add takes one in thousandths of a degree. Where there is one of the name
// already, more tells them apart.
func (h *heat) add(name, more string, thousandths int64) {
	name = "temperature." + strings.ReplaceAll(name, " ", "-")
	if _, ok := h.values[name]; ok {
		name += "." + more
	}
	degrees := float64(thousandths) / 1000
	h.values[name] = degrees
	if !h.any || degrees > h.hottest {
		h.any, h.hottest = true, degrees
	}
}

func (d *Device) temperatures(v map[string]float64) error {
	h := &heat{values: v}
	err := errors.Join(d.zones(h), d.sensors(h))
	if h.any {
		v["temperature.max"] = h.hottest
	}
	return err
}

// zones are what the kernel itself keeps cool.
func (d *Device) zones(h *heat) error {
	zones, err := d.sys.ClassThermalZoneStats()
	if err != nil {
		return present(err)
	}
	for _, z := range zones[:min(len(zones), maxOf)] {
		if z.ReadErrors == nil { // a zone that is switched off cannot be read
			h.add(z.Type, z.Name, z.Temp)
		}
	}
	return nil
}

// sensors are those of chips and drives (hwmon/sysfs-interface.rst), but for the
// ones that show a zone once more.
func (d *Device) sensors(h *heat) error {
	inputs, err := filepath.Glob(filepath.Join(d.o.Sys, "class/hwmon/hwmon*/temp*_input"))
	if err != nil {
		return err
	}
	inputs = slices.DeleteFunc(inputs, func(path string) bool {
		parent, _ := os.Readlink(filepath.Join(filepath.Dir(path), "device"))
		return strings.HasPrefix(filepath.Base(parent), "thermal_zone")
	})
	for _, path := range inputs[:min(len(inputs), maxOf)] {
		sensor := strings.TrimSuffix(path, "_input")
		text := word(path)
		if t, err := strconv.ParseInt(text, 10, 64); err == nil && word(sensor+"_fault") != "1" {
			chip, which := word(filepath.Join(filepath.Dir(path), "name")), word(sensor+"_label")
			if which == "" {
				which = filepath.Base(sensor)
			}
			h.add(chip+"."+which, strings.TrimPrefix(filepath.Base(filepath.Dir(path)), "hwmon"), t)
		}
	}
	return nil
}

// word is what a file holds, empty where it cannot be read: a sensor that is
// asleep is no error.
func word(path string) string {
	data, err := readFile(path)
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(data))
}
