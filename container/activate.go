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

// Activate implements [ota.Backend]. It stops what runs and starts the new
// containers, in the order of their dependencies. What is in effect already and
// does not run is started: that is how a release on trial comes up after a boot.
func (c *Compose) Activate(ctx context.Context, tx ota.TxID, comp release.Component) error {
	c.downtime, c.revived = 0, false
	if err := c.check(tx, comp); err != nil {
		return err
	}
	rec, err := c.load(ctx)
	if err != nil {
		return err
	}
	s := rec.Sets[tx]
	if s == nil || s.Component != comp.Digest() || s.State == staging || s.State == kept {
		if now := rec.current(); now != nil && now.Component == comp.Digest() {
			return c.settle(ctx, rec, now)
		}
		return fmt.Errorf("cannot activate %s: %w: it was not staged for %s", comp.Name, ota.ErrState, tx)
	}
	switch s.State {
	case reverting:
		return fmt.Errorf("cannot activate %s: %w: %s is being taken back", comp.Name, ota.ErrState, tx)
	case committing, committed:
		return c.settle(ctx, rec, s)
	}
	if there, err := c.allThere(ctx, s); err != nil || !there {
		return errors.Join(err, lost(there))
	}
	if rec.Current != tx {
		s.Prev, s.State, s.Switched = rec.Current, activating, true
		rec.Current = tx
		if err := c.save(rec); err != nil {
			return err
		}
	}
	if err := c.switchTo(ctx, rec, s); err != nil {
		return err
	}
	if err := c.sync(ctx); err != nil || s.State == trial {
		return err
	}
	s.State = trial
	return c.save(rec)
}

func lost(there bool) error {
	if there {
		return nil
	}
	return ErrLost
}

// settle has the containers of a set run that is in effect.
func (c *Compose) settle(ctx context.Context, rec *record, s *set) error {
	return c.switchTo(ctx, rec, s)
}

// switchTo has the containers of s run and no others of this component. It asks
// what is there and does what is left to do.
func (c *Compose) switchTo(ctx context.Context, rec *record, s *set) error {
	app, err := c.app(s)
	if err != nil {
		return err
	}
	w, err := c.look(ctx)
	if err != nil {
		return err
	}
	others := w.others(s.Tx)
	if err := c.bind(ctx, others); err != nil {
		return err
	}
	later, now := split(app, others)
	if err := c.stop(ctx, rec, now); err != nil {
		return err
	}
	if err := c.start(ctx, app, s, strict); err != nil {
		return err
	}
	c.up()
	if err := c.stop(ctx, rec, later); err != nil {
		return err
	}
	c.began = time.Time{}
	return c.rename(ctx, app, s, others)
}

// up ends what stop began: everything runs again.
func (c *Compose) up() {
	if !c.began.IsZero() {
		c.downtime += time.Since(c.began)
		c.began = time.Time{}
	}
}

// split tells the containers that a handover leaves running until the new ones
// are healthy from those that have to stop first.
func split(app *compose.App, old world) (later, now world) {
	for _, b := range old {
		if v, ok := app.Service(b.Labels[labelService]); ok && v.Strategy == compose.Handover {
			later = append(later, b)
		} else {
			now = append(now, b)
		}
	}
	return later, now
}

// bind takes the restart policy from containers, so that no boot starts them.
func (c *Compose) bind(ctx context.Context, w world) error {
	for _, b := range w {
		if b.Restart.Policy == compose.RestartNo || b.Restart.Policy == "" {
			continue
		}
		if err := c.engine.SetRestart(ctx, b.ID, compose.Restart{Policy: compose.RestartNo}); err != nil && !errors.Is(err, errMissing) {
			return err
		}
	}
	return nil
}

// stop stops containers, those that others depend on last.
func (c *Compose) stop(ctx context.Context, rec *record, w world) error {
	w = slices.DeleteFunc(slices.Clone(w), func(b box) bool { return !b.up() })
	if len(w) == 0 {
		return nil
	}
	graces := c.graces(rec, w)
	if c.began.IsZero() {
		c.began = time.Now()
	}
	for _, b := range slices.Backward(graces) {
		if err := c.engine.Stop(ctx, b.ID, b.grace); err != nil && !errors.Is(err, errMissing) {
			return err
		}
	}
	return nil
}

type stopping struct {
	box
	grace time.Duration
	order int
}

// graces orders containers as they were started, and says how long each has to
// end. A document that cannot be read any more is no reason not to stop them.
func (c *Compose) graces(rec *record, w world) []stopping {
	apps := map[string]*compose.App{}
	var all []stopping
	for _, b := range w {
		tx := b.Labels[labelTx]
		if _, ok := apps[tx]; !ok {
			apps[tx] = nil
			if s := rec.Sets[ota.TxID(tx)]; s != nil {
				app, err := c.app(s)
				c.warn(err)
				apps[tx] = app
			}
		}
		one := stopping{box: b, grace: 10 * time.Second}
		if app := apps[tx]; app != nil {
			one.order = slices.IndexFunc(app.Services, func(v compose.Service) bool { return v.Name == b.Labels[labelService] })
			if one.order >= 0 {
				one.grace = app.Services[one.order].StopGrace
			}
		}
		all = append(all, one)
	}
	slices.SortStableFunc(all, func(a, b stopping) int { return a.order - b.order })
	return all
}

// rename gives the containers of s the names of the document, and takes them from
// the others. Nothing is found by its name, so that one which a stranger has is
// no failure.
func (c *Compose) rename(ctx context.Context, app *compose.App, s *set, others world) error {
	for _, b := range others {
		aside := b.Labels[labelTx]
		for _, v := range app.Services {
			if b.Name == v.Container {
				if err := c.name(ctx, b, v.Container+"."+aside); err != nil {
					return err
				}
			}
		}
	}
	w, err := c.look(ctx)
	if err != nil {
		return err
	}
	for _, v := range app.Services {
		b, ok := w.box(s.Boxes[v.Name])
		if !ok {
			continue // it is noticed elsewhere
		}
		if err := c.name(ctx, b, v.Container); err != nil {
			return err
		}
	}
	return nil
}

func (c *Compose) name(ctx context.Context, b box, name string) error {
	if b.Name == name {
		return nil
	}
	err := c.engine.SetName(ctx, b.ID, name)
	if errors.Is(err, errTaken) || errors.Is(err, errMissing) {
		c.warn(err)
		return nil
	}
	return err
}
