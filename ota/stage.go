package ota

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// Stage brings everything that the release needs onto the device, and touches
// nothing that runs. Before anything but the indexes is fetched the need is
// compared with the free space (ErrNoSpace).
//
// When Stage returns an error the transaction stays open: call it again to go
// on with what is there, or Rollback to drop it.
func (t *Tx) Stage(ctx context.Context) error {
	leave, err := t.u.enter()
	if err != nil {
		return err
	}
	defer leave()
	s, err := t.open(Staging, Staged)
	if err != nil {
		return err
	}
	if s.State == Staged {
		return nil
	}
	return t.u.stage(ctx, s, t.rel)
}

func (u *Updater) stage(ctx context.Context, t *txState, r *release.Release) error {
	err := u.stageAll(ctx, t, r)
	n := u.taken()
	t.Bytes += n
	t.Fetched.add(u.fetchedNow(n))
	if errors.Is(err, durable.ErrSync) { // a backend's, maybe, on the same file system
		err = errors.Join(err, u.dropPlaced())
	}
	if err != nil {
		err = fmt.Errorf("cannot stage %s: %w", t.To, err)
	}
	if errors.Is(err, ErrScript) || errors.Is(err, ErrRefused) {
		return u.takeBack(ctx, t, err.Error(), blameFor(err), err)
	}
	if err != nil {
		return err
	}
	t.State = Staged
	if err := u.save(); err != nil {
		return err
	}
	u.dropSpool()
	u.report(Progress{Step: "staged"})
	return nil
}

func (u *Updater) stageAll(ctx context.Context, t *txState, r *release.Release) error {
	c, err := u.contentOf(ctx, t, r)
	if err != nil {
		return err
	}
	c.again, u.fresh = u.fresh != t.ID, ""
	if err := u.fetchIndexes(ctx, c, r); err != nil {
		return err
	}
	if err := u.precheck(ctx, c, t, r); err != nil {
		return err
	}
	if err := u.fetchScripts(ctx, c, r); err != nil {
		return err
	}
	if err := u.runScripts(ctx, t, release.BeforeStage, ""); err != nil {
		return err
	}
	for i := range t.Parts {
		if err := u.stagePart(ctx, c, t, r, &t.Parts[i]); err != nil {
			return fmt.Errorf("%s: %w", t.Parts[i].Name, err)
		}
	}
	if err := u.syncPlaced(); err != nil {
		return err
	}
	if err := u.runScripts(ctx, t, release.AfterStage, ""); err != nil {
		return err
	}
	return ctx.Err()
}

// fetchScripts brings the programs of all scripts into the local copy, durable
// before the first one runs: the way back may need them without a network.
func (u *Updater) fetchScripts(ctx context.Context, c *content, r *release.Release) error {
	blobs := r.ScriptBlobs()
	if len(blobs) == 0 {
		return nil
	}
	if err := u.keepAll(ctx, c, blobs, nil); err != nil {
		return fmt.Errorf("a script: %w", err)
	}
	return u.syncPlaced()
}

// contentOf returns where the content of t comes from.
func (u *Updater) contentOf(ctx context.Context, t *txState, r *release.Release) (*content, error) {
	c := newContent(u)
	if t.Back {
		return c, nil
	}
	if u.opts.Source == nil {
		return nil, fmt.Errorf("cannot fetch %s: %w", t.To, ErrNoSource)
	}
	data, err := u.store().get(t.Locator, release.MaxLocator)
	if err != nil {
		if err := u.relocate(ctx, t, r); err != nil {
			return nil, err
		}
		if data, err = u.store().get(t.Locator, release.MaxLocator); err != nil {
			return nil, err
		}
	}
	if c.locator, err = release.ParseLocator(data); err != nil {
		return nil, err
	}
	c.source, c.spool = u.opts.Source, u.spooling()
	c.relocate = func(ctx context.Context) (*release.Locator, error) { return u.moved(ctx, t, r) }
	return c, nil
}

// moved asks the source where the content of an open transaction is now: nil
// where it was before.
func (u *Updater) moved(ctx context.Context, t *txState, r *release.Release) (*release.Locator, error) {
	before := t.Locator
	if err := u.relocate(ctx, t, r); err != nil || t.Locator == before {
		return nil, err
	}
	data, err := u.store().get(t.Locator, release.MaxLocator)
	if err != nil {
		return nil, err
	}
	return release.ParseLocator(data)
}

// relocate asks the source again where the content of an open transaction is.
func (u *Updater) relocate(ctx context.Context, t *txState, r *release.Release) error {
	d, err := u.locate(ctx, r)
	if err != nil || d == t.Locator {
		return err
	}
	t.Locator = d
	return u.save()
}

// local returns content that uses nothing but the device.
func (u *Updater) local() *content { return newContent(u) }

// stagePart stages one component and keeps of it what its Keep asks for.
func (u *Updater) stagePart(ctx context.Context, c *content, t *txState, r *release.Release, p *txPart) error {
	b, comp, err := u.component(r, p.Name)
	if err != nil {
		return err
	}
	if p.Same {
		p.Effect = Live
	} else if err := u.stageChanged(ctx, c, t, b, comp, p); err != nil {
		return err
	}
	if comp.Keep.Repair != release.RepairFull {
		return nil
	}
	blobs, err := u.blobsOf(ctx, c, b, comp)
	if err != nil {
		return err
	}
	if err := u.keepAll(ctx, c, blobs, nil); err != nil {
		return fmt.Errorf("cannot keep a local copy: %w", err)
	}
	return nil
}

// stageChanged stages a component that changes, between its scripts.
func (u *Updater) stageChanged(ctx context.Context, c *content, t *txState, b Backend, comp release.Component, p *txPart) error {
	if err := u.runScripts(ctx, t, release.BeforeStage, p.Name); err != nil {
		return err
	}
	c.stages(comp, b)
	c.keeps = comp.Keep.Repair == release.RepairChanged || comp.Keep.Repair == release.RepairFull
	e, err := u.stageWith(ctx, c, t, b, comp)
	if err != nil {
		return err
	}
	p.Effect = e
	if c.again && !t.Back && comp.Keep.Repair == release.RepairChanged {
		if err := u.keepBrought(ctx, c, b, comp); err != nil {
			return err
		}
	}
	return u.runScripts(ctx, t, release.AfterStage, p.Name)
}

func (u *Updater) stageWith(ctx context.Context, c *content, t *txState, b Backend, comp release.Component) (e Effect, err error) {
	c.progress = func(done, total int64) {
		u.report(Progress{Step: "fetch", Component: comp.Name, Done: done, Total: total})
	}
	u.report(Progress{Step: "stage", Component: comp.Name})
	err = u.run(ctx, u.opts.StageLimit, func(ctx context.Context) error {
		e, err = b.Stage(ctx, t.ID, comp, &stagingContent{c, t, comp})
		return err
	})
	if err == nil && !knownEffect(e) {
		err = fmt.Errorf("its backend answered with the effect %.40q", e)
	}
	return cmp.Or(e, Live), err
}

// runningBlobs lists what the running release has of a component. It is not ok
// where that cannot be told.
func (u *Updater) runningBlobs(ctx context.Context, b Backend, name string) (blobs []release.Blob, ok bool) {
	if u.rec.Running == nil {
		return nil, true
	}
	for _, p := range u.rec.Running.Parts {
		if p.Name != name {
			continue
		}
		old, err := u.installedComponent(p)
		if err == nil {
			blobs, err = u.blobsOf(ctx, u.local(), b, old)
		}
		return blobs, err == nil
	}
	return nil, true
}

// blobsOf lists what a component consists of.
func (u *Updater) blobsOf(ctx context.Context, c *content, b Backend, comp release.Component) ([]release.Blob, error) {
	l, ok := b.(Lister)
	if !ok {
		return nil, fmt.Errorf("%w: the backend of %q cannot keep a full local copy", ErrComponent, comp.Name)
	}
	return l.Blobs(ctx, comp, c)
}

// counter is a Source that counts all that it fetches, metadata too.
type counter interface{ Bytes() int64 }

// readBytes is how many bytes were fetched in this process.
func (u *Updater) readBytes() int64 {
	if s, ok := u.opts.Source.(counter); ok {
		return s.Bytes()
	}
	return u.fetched
}

// taken returns what was fetched since the last look for a release, or since
// taken was called last.
func (u *Updater) taken() int64 {
	all := u.readBytes()
	n := all - u.counted
	u.counted = all
	return n
}
