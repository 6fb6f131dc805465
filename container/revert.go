package container

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// Revert implements [ota.Backend]. The containers that were in effect before are
// started again, those very ones; one that somebody has removed meanwhile is made
// anew from its document. Where its image is gone too the error wraps
// [ota.ErrDigest]: a Repair brings it from the local copy.
func (c *Compose) Revert(ctx context.Context, tx ota.TxID, comp release.Component) error {
	c.downtime, c.revived = 0, false
	if err := c.checkName(tx, comp); err != nil {
		return err
	}
	rec, err := c.load(ctx)
	if err != nil {
		return err
	}
	s := rec.Sets[tx]
	if s == nil {
		return nil // nothing was begun
	}
	if s.final() {
		return fmt.Errorf("cannot take %s back: %w: %s is %s", comp.Name, ota.ErrState, tx, s.State)
	}
	if s.State != reverting {
		s.State = reverting
		if rec.Current == tx {
			rec.Current = s.Prev
		}
		if err := c.save(rec); err != nil {
			return err
		}
	}
	if s.Switched {
		err = c.takeBack(ctx, rec, s)
	} else {
		err = c.clear(ctx, tx)
	}
	if err != nil {
		return err
	}
	if err := c.dropVolumes(ctx, s); err != nil {
		return err
	}
	delete(rec.Sets, tx)
	return c.collect(ctx, rec)
}

// takeBack stops the containers of s and starts what was in effect before it.
func (c *Compose) takeBack(ctx context.Context, rec *record, s *set) error {
	w, err := c.look(ctx)
	if err != nil {
		return err
	}
	others := w.others(rec.Current)
	if err := c.bind(ctx, others); err != nil {
		return err
	}
	old := rec.current()
	later, now := c.splitBack(old, others)
	if err := c.stop(ctx, rec, now); err != nil {
		return err
	}
	if old != nil {
		err = c.bringBack(ctx, rec, old, w)
	}
	if errors.Is(err, ota.ErrDigest) {
		old.Lacks = true
		return errors.Join(err, c.stop(ctx, rec, later), c.save(rec))
	}
	if err != nil {
		return err
	}
	c.up()
	if err := c.stop(ctx, rec, later); err != nil {
		return err
	}
	c.began = time.Time{}
	if err := c.clear(ctx, s.Tx); err != nil {
		return err
	}
	if old == nil {
		return nil
	}
	old.Lacks = false
	return c.restore(ctx, old)
}

// splitBack is split for the way back: a service that was handed over is handed
// back.
func (c *Compose) splitBack(old *set, others world) (later, now world) {
	if old == nil {
		return nil, others
	}
	app, err := c.app(old)
	if err != nil {
		return nil, others // bringBack says so
	}
	return split(app, others)
}

// bringBack starts the containers of a set, and makes those again that are gone.
func (c *Compose) bringBack(ctx context.Context, rec *record, old *set, w world) error {
	app, err := c.app(old)
	if err != nil {
		return err
	}
	if err := c.remake(ctx, rec, old, app, w); err != nil {
		return err
	}
	err = c.start(ctx, app, old, lenient)
	if err == nil {
		return nil
	}
	// That the old app does not come up by itself is no reason to stay with the
	// new one: what could be started was.
	if ctx.Err() != nil || errors.Is(err, ErrEngine) || !c.started(ctx, old) {
		return err
	}
	c.warn(fmt.Errorf("the app that was there before is back, but: %w", err))
	return nil
}

// started reports whether every container of s has been started.
func (c *Compose) started(ctx context.Context, s *set) bool {
	w, err := c.look(ctx)
	return err == nil && s.whole(w, true)
}

// remake makes the containers of a set that are not there. The new ids are
// recorded before anything is started.
func (c *Compose) remake(ctx context.Context, rec *record, s *set, app *compose.App, w world) error {
	gone := func(v compose.Service) bool {
		_, ok := w.box(s.Boxes[v.Name])
		return !ok
	}
	if !slices.ContainsFunc(app.Services, gone) {
		return nil
	}
	for _, id := range s.Images {
		_, err := c.engine.Image(ctx, id)
		if errors.Is(err, errMissing) {
			return fmt.Errorf("%w: the engine has lost image %s", ota.ErrDigest, id)
		}
		if err != nil {
			return err
		}
	}
	made, err := c.surround(ctx, rec, s, app)
	if err != nil {
		return err
	}
	for _, v := range app.Services {
		if !gone(v) {
			continue
		}
		for _, b := range w.of(s.Tx) { // what an earlier try made and did not record
			if b.Labels[labelService] == v.Name {
				if err := c.engine.Remove(ctx, b.ID); err != nil {
					return err
				}
			}
		}
		if err := c.make(ctx, s, app, v, made); err != nil {
			return err
		}
	}
	return c.save(rec)
}

// restore gives a set that is in effect again its names and, when it was
// committed, its restart policies; the caller makes that durable.
func (c *Compose) restore(ctx context.Context, s *set) error {
	app, err := c.app(s)
	if err != nil {
		return err
	}
	if err := c.rename(ctx, app, s, nil); err != nil || s.State != committed {
		return err
	}
	w, err := c.look(ctx)
	if err != nil {
		return err
	}
	for _, v := range app.Services {
		if err := c.policy(ctx, w, s.Boxes[v.Name], v.Restart); err != nil {
			return err
		}
	}
	return nil
}

// dropVolumes removes the volumes that a transaction made and that no container
// of it ever ran with.
func (c *Compose) dropVolumes(ctx context.Context, s *set) error {
	if s.Switched || len(s.Volumes) == 0 {
		return nil
	}
	there, err := c.engine.Volumes(ctx)
	if err != nil {
		return err
	}
	for _, v := range there {
		ours := v.Labels[labelComponent] == c.opts.Name && v.Labels[labelTx] == string(s.Tx)
		if !ours || !slices.Contains(s.Volumes, v.Name) {
			continue
		}
		if err := c.engine.RemoveVolume(ctx, v.Name); err != nil && !errors.Is(err, errTaken) {
			return err
		}
	}
	return nil
}

// CanRevert implements [ota.Reverter].
func (c *Compose) CanRevert(ctx context.Context, tx ota.TxID, comp release.Component) (bool, error) {
	if err := c.checkName(tx, comp); err != nil {
		return false, err
	}
	rec, err := c.load(ctx)
	if err != nil {
		return false, err
	}
	s := rec.Sets[tx]
	return s != nil && !s.final(), nil
}
