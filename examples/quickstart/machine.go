package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pawl-ota/pawl/examples/bar"
	"github.com/pawl-ota/pawl/ota"
)

// machine is the device as the one who plugs it in sees it.
type machine struct {
	dir, url string
	maker    *maker
	screen   *screen
}

// build makes the device as it leaves the factory: it knows whom to trust.
func (d *machine) build(root string) error {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	data, err := os.ReadFile(root)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(d.dir, "root.json"), data, 0o600)
}

// run starts the device's process and returns its last event. When cut says so
// the process is killed; the event is nil then.
func (d *machine) run(ctx context.Context, cut func(ota.Progress) bool) (*event, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	var complaint strings.Builder
	cmd := exec.CommandContext(ctx, self, "device", d.dir, d.url)
	cmd.Stderr, cmd.ExtraFiles = &complaint, []*os.File{write}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	write.Close()
	if err != nil {
		return nil, err
	}
	last, killed, err := d.watch(read, cmd.Process, cut)
	ended := cmd.Wait()
	switch {
	case killed:
		return nil, nil
	case ended != nil:
		return nil, fmt.Errorf("the device's process: %w: %s", ended, complaint.String())
	}
	return last, err
}

// watch draws the device's steps until its process ends or is killed.
func (d *machine) watch(r io.Reader, p *os.Process, cut func(ota.Progress) bool) (last *event, killed bool, err error) {
	dec := json.NewDecoder(r)
	for {
		var e event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return last, false, nil
		} else if err != nil {
			return nil, false, err
		}
		if e.Step == nil {
			last = &e
			continue
		}
		d.screen.bar.Show(*e.Step)
		if cut != nil && cut(*e.Step) {
			return nil, true, p.Kill()
		}
	}
}

// update runs the device until it says how the update ended, which has to be
// with want.
func (d *machine) update(ctx context.Context, version string, want ota.State) error {
	e, err := d.run(ctx, nil)
	if err != nil {
		return err
	}
	r := e.Result
	if r.State != want {
		return fmt.Errorf("the device ended with %s: %s", r, e.Error)
	}
	how := fmt.Sprintf("%s over %s: %s fetched, %s", r.To, r.From, bar.Size(r.Bytes), bar.Seconds(r.Took))
	if want == ota.Reverted {
		d.screen.say("device", "tried and took back %s", how)
		d.screen.say("", "because it was %s", r.Reason)
	} else {
		d.screen.say("device", "%s %s", r.State, how)
	}
	return d.onDevice(version)
}

// heldBack runs the device again: it does not try the same release twice.
func (d *machine) heldBack(ctx context.Context) error {
	e, err := d.run(ctx, nil)
	if err != nil {
		return err
	}
	if !e.Held {
		return fmt.Errorf("the device did not hold the bad release back: %s", e.Error)
	}
	d.screen.say("device", "asked again, it holds that release back and changes nothing")
	return nil
}

// cut kills the device's process when the moment has come.
func (d *machine) cut(ctx context.Context, version, when string, moment func(ota.Progress) bool) error {
	e, err := d.run(ctx, moment)
	if err != nil {
		return err
	}
	if e != nil {
		return fmt.Errorf("the device was done before its power went: %s", e.Error)
	}
	d.screen.say("power", "gone: the device's process was killed when %s", when)
	return d.onDevice(version)
}

// onDevice looks at the app's folder, with nothing of pawl, and wants exactly
// what the maker released as version.
func (d *machine) onDevice(version string) error {
	files, bytes, sum, err := look(filepath.Join(d.dir, "app"))
	if err != nil {
		return err
	}
	_, _, want, err := look(d.maker.treeDir(version))
	if err != nil {
		return err
	}
	if sum != want {
		return fmt.Errorf("what is on the device is not %s", version)
	}
	d.screen.say("", "on the device: %d files, %s, each byte as released in %s", files, bar.Size(bytes), version)
	return nil
}
