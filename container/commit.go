package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// Commit implements [ota.Backend]. The new containers get their restart policies
// before the old ones are removed, which have had none since Activate.
func (c *Compose) Commit(ctx context.Context, tx ota.TxID, comp release.Component) error {
	if err := c.check(tx, comp); err != nil {
		return err
	}
	rec, err := c.load(ctx)
	if err != nil {
		return err
	}
	s := rec.Sets[tx]
	if s == nil || s.Component != comp.Digest() {
		s = rec.current()
	}
	if s == nil || s.Component != comp.Digest() || rec.Current != s.Tx {
		return fmt.Errorf("cannot commit %s: %w: it is not in effect", comp.Name, ota.ErrState)
	}
	if !s.final() {
		s.State = committing
		if err := c.save(rec); err != nil {
			return err
		}
	}
	if err := c.makePermanent(ctx, rec, s); err != nil {
		return err
	}
	for old := range rec.line() {
		if old != s.Tx {
			rec.Sets[old].State, rec.Sets[old].Boxes = kept, nil
		}
	}
	s.State, s.Prev, s.Lacks = committed, "", false
	return c.collect(ctx, rec)
}

// makePermanent has the engine itself keep the containers of s running; collect
// makes that durable.
func (c *Compose) makePermanent(ctx context.Context, rec *record, s *set) error {
	app, err := c.app(s)
	if err != nil {
		return err
	}
	w, err := c.look(ctx)
	if err != nil {
		return err
	}
	if err := c.bind(ctx, w.others(s.Tx)); err != nil {
		return err
	}
	if err := c.stop(ctx, rec, w.others(s.Tx)); err != nil {
		return err
	}
	c.began = time.Time{}
	for _, v := range app.Services {
		if err := c.startOne(ctx, s, v, lenient); err != nil {
			return fmt.Errorf("service %s: %w", v.Name, err)
		}
		if err := c.policy(ctx, w, s.Boxes[v.Name], v.Restart); err != nil {
			return err
		}
	}
	return c.rename(ctx, app, s, w.others(s.Tx))
}

// policy gives a container a restart policy, unless it had that one already.
func (c *Compose) policy(ctx context.Context, was world, id string, want compose.Restart) error {
	if b, ok := was.box(id); ok && b.Restart == normal(want) {
		return nil
	}
	return c.engine.SetRestart(ctx, id, want)
}

// collect removes what no set of the record refers to: containers of sets that
// are kept for their images alone or are gone, networks, images, documents.
// Volumes stay. The record is saved when that is done: until then the verb is not
// at its end, and is called again.
func (c *Compose) collect(ctx context.Context, rec *record) error {
	w, err := c.look(ctx)
	if err != nil {
		return err
	}
	for _, b := range w {
		s := rec.Sets[ota.TxID(b.Labels[labelTx])]
		if s == nil || s.State == kept {
			if err := c.engine.Remove(ctx, b.ID); err != nil {
				return err
			}
		}
	}
	apps := map[*set]*compose.App{}
	for _, s := range rec.Sets {
		app, err := c.app(s)
		if err != nil {
			// What it refers to is not known: all of that stays.
			c.warn(err)
			return c.keep(ctx, rec)
		}
		apps[s] = app
	}
	if err := c.collectNetworks(ctx, apps); err != nil {
		return err
	}
	if err := c.collectImages(ctx, rec, apps); err != nil {
		return err
	}
	if err := c.collectFiles(apps); err != nil {
		return err
	}
	return c.keep(ctx, rec)
}

// keep makes durable what a verb did, and then the record that says so. Without
// the first a power cut would bring back what was removed.
func (c *Compose) keep(ctx context.Context, rec *record) error {
	if err := c.sync(ctx); err != nil {
		return err
	}
	return c.save(rec)
}

func (c *Compose) collectNetworks(ctx context.Context, apps map[*set]*compose.App) error {
	used := map[string]bool{}
	for s, app := range apps {
		for _, n := range app.Networks {
			d, err := digestOf(n)
			if err != nil {
				return err
			}
			used[d.String()] = used[d.String()] || s.State != kept
		}
	}
	there, err := c.engine.Networks(ctx)
	if err != nil {
		return err
	}
	for _, n := range there {
		if n.Labels[labelComponent] != c.opts.Name || used[n.Labels[labelNetwork]] {
			continue
		}
		if err := c.engine.RemoveNetwork(ctx, n.ID); err != nil && !errors.Is(err, errTaken) {
			return err
		}
	}
	return nil
}

func (c *Compose) collectImages(ctx context.Context, rec *record, apps map[*set]*compose.App) error {
	used := map[release.Digest]bool{}
	for _, app := range apps {
		for _, i := range app.Images {
			used[i.Config.Digest] = true
		}
	}
	there, err := c.engine.Tagged(ctx, c.repository())
	if err != nil {
		return err
	}
	for _, i := range there {
		for _, tag := range i.Tags {
			d, ours := c.untag(tag)
			if !ours || used[d] {
				continue
			}
			if err := c.engine.Untag(ctx, tag, false); err != nil && !errors.Is(err, errTaken) {
				return err
			}
		}
	}
	maps.DeleteFunc(rec.Images, func(d release.Digest, _ string) bool { return !used[d] })
	return nil
}

// untag returns the digest that one of our tags holds.
func (c *Compose) untag(tag string) (release.Digest, bool) {
	n := len(c.repository())
	if len(tag) <= n || tag[:n+1] != c.repository()+":" {
		return release.Digest{}, false
	}
	d, err := release.ParseDigest(tag[n+1:])
	return d, err == nil
}

// collectFiles removes documents and mounted files that no set refers to.
func (c *Compose) collectFiles(apps map[*set]*compose.App) error {
	used := map[string]bool{}
	for s, app := range apps {
		used[appName(s.App)] = true
		for _, v := range app.Services {
			for _, m := range v.Files {
				used[filesFolder+"/"+fileName(app, m)] = used[filesFolder+"/"+fileName(app, m)] || s.State != kept
			}
		}
	}
	for _, folder := range []string{"apps", filesFolder} {
		names, err := c.dir.List(folder)
		if err != nil {
			return err
		}
		for _, name := range names {
			if used[folder+"/"+name] {
				continue
			}
			if err := c.dir.Remove(folder + "/" + name); err != nil {
				return err
			}
		}
	}
	return nil
}
