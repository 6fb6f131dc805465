package container

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
)

// resetting is a word for what a Reset that was begun removes.
type resetting string

const (
	resetBoxes   resetting = "containers"
	resetVolumes resetting = "volumes" // and the containers
	resetStart   resetting = "start"   // nothing any more: what was made is to start
)

// Reset makes all containers of what is in effect anew, as the app document has
// them: what they wrote outside of their volumes is gone. With volumes, those of
// the app begin empty too, but for external ones and for what somebody else made.
// Images stay; Repair is for those, and best called before.
//
// It uses no network. Where it was cut short, or a service could not be started,
// Settle goes on, and removes nothing that was made anew. It
// is refused with [ota.ErrState] while nothing is in effect and during a trial. As
// for every verb, the caller holds the lock of the state folder, by an open
// Updater.
func (c *Compose) Reset(ctx context.Context, volumes bool) error {
	rec, err := c.load(ctx)
	if err != nil {
		return err
	}
	s := rec.current()
	if s == nil || s.State != committed || rec.underway() {
		return fmt.Errorf("cannot reset %s: %w: no release of it was committed, or one is on trial", c.opts.Name, ota.ErrState)
	}
	s.Reset = resetBoxes
	if volumes {
		s.Reset = resetVolumes
	}
	if err := c.save(rec); err != nil {
		return err
	}
	return c.reset(ctx, rec, s)
}

// Settle ends a Reset that was cut short, and starts the app where the engine is one
// that starts nothing by itself after a boot, as Podman; else it does nothing. It is
// called after [ota.Updater.Resume].
func (c *Compose) Settle(ctx context.Context) error {
	rec, err := c.load(ctx)
	if err != nil {
		return err
	}
	s := rec.current()
	switch {
	case s == nil || s.State != committed:
		return nil
	case s.Reset != "":
		return c.reset(ctx, rec, s)
	}
	return c.afterBoot(ctx, s)
}

func (c *Compose) reset(ctx context.Context, rec *record, s *set) error {
	app, err := c.app(s)
	if err != nil {
		return err
	}
	if s.Reset != resetStart {
		if err := c.remove(ctx, rec, s, app); err != nil {
			return err
		}
		if err := c.remake(ctx, rec, s, app, nil); err != nil {
			return err
		}
		// From here on there may be new data.
		s.Reset = resetStart
		if err := c.save(rec); err != nil {
			return err
		}
	}
	c.revived = false
	problems := c.start(ctx, app, s, lenient)
	if ctx.Err() != nil || errors.Is(problems, ErrEngine) {
		return problems
	}
	c.began = time.Time{}
	if err := c.restore(ctx, s); err != nil {
		return errors.Join(problems, err)
	}
	if problems == nil {
		s.Reset = ""
	}
	return errors.Join(problems, c.keep(ctx, rec))
}

// remove removes what a reset makes anew.
func (c *Compose) remove(ctx context.Context, rec *record, s *set, app *compose.App) error {
	for _, id := range s.Images {
		if _, err := c.engine.Image(ctx, id); err != nil {
			return fmt.Errorf("cannot make the containers of %s anew: %w", c.opts.Name, err)
		}
	}
	w, err := c.look(ctx)
	if err != nil {
		return err
	}
	if err := c.stop(ctx, rec, w.of(s.Tx)); err != nil {
		return err
	}
	for _, b := range w.of(s.Tx) {
		if err := c.engine.Remove(ctx, b.ID); err != nil {
			return err
		}
	}
	if s.Reset == resetVolumes {
		return c.emptyVolumes(ctx, app)
	}
	return nil
}

// emptyVolumes removes the volumes of an app that this component made.
func (c *Compose) emptyVolumes(ctx context.Context, app *compose.App) error {
	there, err := c.engine.Volumes(ctx)
	if err != nil {
		return err
	}
	for _, v := range there {
		ours := slices.ContainsFunc(app.Volumes, func(a compose.Volume) bool { return a.Engine == v.Name && !a.External })
		if !ours || v.Labels[labelComponent] != c.opts.Name {
			continue
		}
		err := c.engine.RemoveVolume(ctx, v.Name)
		if errors.Is(err, errTaken) {
			return fmt.Errorf("cannot empty volume %.80q: a container that is not ours uses it: %w", v.Name, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
