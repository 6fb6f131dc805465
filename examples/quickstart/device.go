package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// event is one line that the device's process writes: a step, or in the end
// what became of it.
type event struct {
	Step   *ota.Progress `json:"step,omitempty"`
	Result *ota.Result   `json:"result,omitempty"`
	Held   bool          `json:"held,omitempty"` // the newest release is held back
	Error  string        `json:"error,omitempty"`
}

// device is the child process: one update of the device in dir. It writes
// events to descriptor 3.
func device(ctx context.Context, dir, url string) error {
	out := os.NewFile(3, "events")
	if out == nil {
		return errors.New("device is for quickstart itself")
	}
	defer out.Close()
	lines := json.NewEncoder(out)
	u, err := open(ctx, dir, url, func(p ota.Progress) {
		p.Err = nil // of no use as JSON
		_ = lines.Encode(event{Step: &p})
	})
	if err != nil {
		return err
	}
	defer u.Close()
	result, err := u.Update(ctx)
	last := event{Result: &result, Held: errors.Is(err, ota.ErrHeld)}
	if err != nil {
		last.Error = err.Error()
	}
	return lines.Encode(last)
}

// open puts the device together.
func open(ctx context.Context, dir, url string, progress func(ota.Progress)) (*ota.Updater, error) {
	root, err := os.ReadFile(filepath.Join(dir, "root.json"))
	if err != nil {
		return nil, err
	}
	source, err := tuf.New(tuf.Options{URL: url, Root: root, Dir: filepath.Join(dir, "trust")})
	if err != nil {
		return nil, err
	}
	app := filepath.Join(dir, "app")
	files, err := micro.New(micro.Options{Name: "app", Root: app, Layout: micro.Tree})
	if err != nil {
		return nil, err
	}
	return ota.Open(ctx, ota.Options{
		Dir:      filepath.Join(dir, "updates"),
		Device:   ota.Device{ID: "quickstart", Product: "radio", Variant: "any"},
		Source:   source,
		Backends: map[string]ota.Backend{"app": files},
		Health:   selftest(app),
		Trial:    ota.Trial{Soak: time.Second, Interval: 50 * time.Millisecond, Deadline: 1500 * time.Millisecond},
		Progress: progress,
	})
}

// selftest asks the app itself.
func selftest(app string) ota.Check {
	return func(ctx context.Context) error {
		out, err := exec.CommandContext(ctx, "/bin/sh", filepath.Join(app, "selftest")).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s (%w)", strings.TrimSpace(string(out)), err)
		}
		return nil
	}
}
