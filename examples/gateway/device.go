package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/pawl-ota/pawl/container"
	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// device is the gateway: its updater, and the backends of its two components.
type device struct {
	updater *ota.Updater
	host    *micro.Files
	app     *container.Compose
	look    time.Duration
	say     func(format string, args ...any)
}

// open puts the device together, and settles what the last run left half done.
// Until it has returned nothing should rely on the host's files; the app's
// containers the engine starts by itself, unless they are on trial.
func open(ctx context.Context, s settings, say func(string, ...any)) (d *device, err error) {
	d = &device{look: s.look, say: say}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	root, err := os.ReadFile(s.root)
	if err != nil {
		return d, err
	}
	source, err := tuf.New(tuf.Options{URL: s.source, Root: root, Dir: filepath.Join(s.dir, "trust")})
	if err != nil {
		return d, err
	}
	id, err := os.Hostname()
	if err != nil {
		return d, err
	}
	warn := func(err error) { say("warning: %v", err) }
	files := filepath.Join(s.dir, "host")
	if d.host, err = micro.New(micro.Options{Name: "host", Root: files, Layout: micro.Tree, Warn: warn}); err != nil {
		return d, err
	}
	app := container.Options{
		Name: "app", Dir: filepath.Join(s.dir, "apps", "app"), Host: s.engine, Values: compose.Values{DeviceID: id, Hostname: id}, Warn: warn,
	}
	if s.revive != "" {
		app.Restart = func(ctx context.Context) error { return exec.CommandContext(ctx, "sh", "-c", s.revive).Run() }
	}
	d.app, err = container.New(app)
	if err != nil {
		return d, err
	}
	d.updater, err = ota.Open(ctx, ota.Options{
		Dir:      filepath.Join(s.dir, "updates"),
		Device:   ota.Device{ID: id, Product: "gateway", Variant: "default"},
		Source:   source,
		Backends: map[string]ota.Backend{"host": d.host, "app": d.app},
		Health:   d.healthy(filepath.Join(files, "bin", "selftest")),
		Trial:    ota.Trial{Soak: s.soak, Deadline: s.deadline + s.soak, Interval: min(time.Second, max(s.soak/5, 10*time.Millisecond))},
	})
	if err != nil {
		return d, err
	}
	result, err := d.updater.Resume(ctx)
	if err != nil {
		return d, err
	}
	if result.Tx != "" {
		say("settled: %s", result)
	}
	return d, d.app.Settle(ctx)
}

func (d *device) close() {
	if d.updater != nil {
		d.updater.Close()
	}
	if d.app != nil {
		d.app.Close()
	}
}

// healthy is what a new release has to pass: every service of the app as its
// document says, and the host's own test of itself.
func (d *device) healthy(selftest string) ota.Check {
	return func(ctx context.Context) error {
		if err := d.app.Healthy(ctx); err != nil {
			return err
		}
		if out, err := exec.CommandContext(ctx, selftest).CombinedOutput(); err != nil {
			return fmt.Errorf("the host's selftest: %w: %.200s", err, out)
		}
		return nil
	}
}

// verbs are the words of the command line.
var verbs = map[string]func(context.Context, *device) error{
	"run": func(ctx context.Context, d *device) error {
		if err := d.mend(ctx); err != nil && ctx.Err() == nil {
			d.say("cannot mend: %v", err)
		}
		for {
			if err := d.update(ctx); err != nil {
				d.say("not now: %v", err) // the next look tries again
			}
			select {
			case <-time.After(d.look):
			case <-ctx.Done():
				return nil
			}
		}
	},
	"update": func(ctx context.Context, d *device) error { return d.update(ctx) },
	"rollback": func(ctx context.Context, d *device) error {
		result, err := d.updater.Rollback(ctx, 0)
		d.say("%s", result)
		return err
	},
	"verify": func(ctx context.Context, d *device) error { return d.inspect(ctx, d.updater.Verify) },
	"repair": func(ctx context.Context, d *device) error { return d.inspect(ctx, d.updater.Repair) },
	"reset": func(ctx context.Context, d *device) error {
		if err := d.inspect(ctx, d.updater.Repair); err != nil {
			return err
		}
		return d.app.Reset(ctx, true)
	},
	"status": func(ctx context.Context, d *device) error {
		d.say("runs %s", d.updater.Status().Running)
		services, err := d.app.Services(ctx)
		for _, s := range services {
			d.say("%s", s)
		}
		return err
	},
}

// update takes the newest release all the way, or back.
func (d *device) update(ctx context.Context) error {
	result, err := d.updater.Update(ctx)
	if result.Tx != "" {
		d.say("%s", result)
	}
	if result.State == ota.Committed {
		d.say("fetched %d bytes in %v, down for %v", result.Bytes, result.Took.Round(time.Millisecond), result.Downtime.Round(time.Millisecond))
	}
	return err
}

// mend compares everything with the release, byte by byte, and puts back what is
// not as it should be. It needs no network, and leaves a trial alone.
func (d *device) mend(ctx context.Context) error {
	if d.updater.Status().Tx != nil {
		return nil
	}
	if err := d.inspect(ctx, d.updater.Verify); !errors.Is(err, errDamaged) {
		return err
	}
	if err := d.inspect(ctx, d.updater.Repair); err != nil {
		return err
	}
	d.say("mended")
	return nil
}

var errDamaged = errors.New("not everything is as the release says")

// inspect says what verify and repair found.
func (d *device) inspect(ctx context.Context, look func(context.Context) ([]ota.Damage, error)) error {
	found, err := look(ctx)
	for _, one := range found {
		d.say("%s", one)
	}
	if err == nil && len(found) > 0 {
		err = errDamaged
	}
	return err
}
