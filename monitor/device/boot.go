package device

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pawl-ota/pawl/ota/durable"
)

// Boots finds out why the device booted.
//
//	boots := device.Boots{File: "/var/lib/device/boot"}
//	if first, why, err := boots.Begin(); first {
//		stream.Emit(monitor.Event{Kind: monitor.Boot, Reason: why})
//	}
//	…
//	err = boots.Ends("update to 1.4.0") // right before a reboot that is wanted
type Boots struct {
	// File keeps what is known, on a file system that survives a power cut.
	File string
	// Proc and Sys are where the kernel tells of itself; empty means /proc and
	// /sys.
	Proc, Sys string
}

const bootFormat = "pawl-boot/0"

// boot is what File holds.
type boot struct {
	Format string `json:"format"`
	Boot   string `json:"boot"`
	Why    string `json:"why,omitempty"` // it was wanted to end
	Began  string `json:"began,omitempty"`
}

// Begin reports whether this is the first call in this boot, and then why the
// device booted, as far as it can be known: what was said before the boot, a
// watchdog, a panic of the kernel, or else that power or a reset is likely. It
// makes durable that it was called; where that fails it returns an error
// besides.
func (b Boots) Begin() (first bool, why string, err error) {
	now, err := b.id()
	if err != nil {
		return true, b.traces(), err
	}
	var last boot
	data, err := readFile(b.File)
	if err == nil && (json.Unmarshal(data, &last) != nil || last.Format != bootFormat) {
		last = boot{} // it says nothing: as on a new device
	}
	if last.Boot == now {
		return false, "", nil
	}
	why = cmp.Or(last.Why, b.traces())
	switch {
	case why != "":
	case last.Boot == "":
		why = "not known: the first boot that is watched"
	default:
		why = "nothing said why: the power or a reset"
	}
	return true, why, b.write(boot{Boot: now, Began: why})
}

// Why returns why this boot began, as Begin found it; empty where Begin was not
// called in it yet. It changes nothing.
func (b Boots) Why() (string, error) {
	now, err := b.id()
	if err != nil {
		return "", err
	}
	return b.of(now).Began, nil
}

// of returns what is known of the boot that is now; nothing where the file is of
// another one, or is damaged.
func (b Boots) of(now string) boot {
	var is boot
	data, err := readFile(b.File)
	if err != nil || json.Unmarshal(data, &is) != nil || is.Format != bootFormat || is.Boot != now {
		return boot{}
	}
	return is
}

// Ends notes durably that this boot is to end now, and why.
func (b Boots) Ends(why string) error {
	now, err := b.id()
	if err != nil {
		return err
	}
	return b.write(boot{Boot: now, Why: why, Began: b.of(now).Began})
}

func (b Boots) write(is boot) error {
	is.Format = bootFormat
	data, err := json.Marshal(is)
	if err == nil {
		err = durable.WriteFile(b.File, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot note the boot: %w", err)
	}
	return nil
}

func (b Boots) id() (string, error) {
	id, err := readFile(filepath.Join(cmp.Or(b.Proc, "/proc"), "sys/kernel/random/boot_id"))
	if err != nil {
		return "", fmt.Errorf("cannot tell one boot from another: %w", err)
	}
	return string(bytes.TrimSpace(id)), nil
}

// traces looks for what the boot before left: the status of a watchdog
// (watchdog-api.rst), and records of a panic in /sys/fs/pstore, which stay until
// somebody removes them.
func (b Boots) traces() string {
	sys := cmp.Or(b.Sys, "/sys")
	var found []string
	status, _ := filepath.Glob(filepath.Join(sys, "class/watchdog/watchdog*/bootstatus")) // the pattern is right
	for _, path := range status {
		data, err := readFile(path)
		if err != nil {
			continue
		}
		flags, _ := strconv.ParseUint(string(bytes.TrimSpace(data)), 0, 32)
		for _, f := range []struct {
			bit  uint64
			says string
		}{{0x20, "a watchdog reset the device"}, {0x1, "it was too hot"}, {0x10, "its voltage was too low"}, {0x40, "its voltage was too high"}} {
			if flags&f.bit != 0 {
				found = append(found, f.says)
			}
		}
	}
	if records, _ := filepath.Glob(filepath.Join(sys, "fs/pstore/dmesg-*")); len(records) > 0 {
		found = append(found, fmt.Sprintf("the kernel panicked: %d records in /sys/fs/pstore", len(records)))
	}
	return strings.Join(found, "; ")
}
