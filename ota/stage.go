package ota

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"

	"github.com/pawl-ota/pawl/internal/seam"
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
	if errors.Is(err, fs.ErrNotExist) && !t.Back && u.relocate(ctx, t, r) == nil {
		err = u.stageAll(ctx, t, r) // the repository was packed anew meanwhile
	}
	t.Bytes += u.taken()
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
	for _, b := range blobs {
		if err := u.keepBlob(ctx, c, b); err != nil {
			return fmt.Errorf("a script: %w", err)
		}
	}
	return u.syncPlaced()
}

// contentOf returns where the content of t comes from.
func (u *Updater) contentOf(ctx context.Context, t *txState, r *release.Release) (*content, error) {
	c := &content{u: u}
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
	c.source = u.opts.Source
	return c, nil
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
func (u *Updater) local() *content { return &content{u: u} }

// fetchIndexes brings the index of every component into the local copy, where
// a rollback, a verify and the next delta need it.
func (u *Updater) fetchIndexes(ctx context.Context, c *content, r *release.Release) error {
	for _, comp := range r.Components {
		if err := u.keepBlob(ctx, c, comp.Index); err != nil {
			return fmt.Errorf("index of %s: %w", comp.Name, err)
		}
	}
	return nil
}

// keepBlob makes sure that b is in the local copy. It is durable after the
// next Sync of the state directory.
func (u *Updater) keepBlob(ctx context.Context, c *content, b release.Blob) (err error) {
	if r, ok, err := u.store().open(b); err == nil && ok && c.whole(r, b) {
		return nil
	}
	r, err := c.Open(ctx, b)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	f, err := u.dir.Create(u.store().name(b.Digest))
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		return errors.Join(err, f.Abort())
	}
	return u.place(f, b)
}

// keepData is keepBlob of what is in memory.
func (u *Updater) keepData(data []byte) error {
	b := release.Blob{Digest: release.Sum(data), Size: int64(len(data))}
	f, err := u.dir.Create(u.store().name(b.Digest))
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Abort())
	}
	return u.place(f, b)
}

// place gives a kept blob its name, to be made durable by syncPlaced.
func (u *Updater) place(f seam.File, b release.Blob) error {
	u.placed = append(u.placed, u.store().name(b.Digest))
	return f.Place()
}

// syncPlaced makes durable what was placed. When that fails nobody knows what
// of it the disk holds, although it reads well: it is dropped, to be written
// anew.
func (u *Updater) syncPlaced() error {
	placed := u.placed
	u.placed = nil
	err := u.dir.Sync()
	if err == nil {
		return nil
	}
	for _, name := range placed {
		err = errors.Join(err, u.dir.Remove(name))
	}
	return fmt.Errorf("cannot make the local copy durable: %w", err)
}

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
	for _, blob := range blobs {
		if err := u.keepBlob(ctx, c, blob); err != nil {
			return fmt.Errorf("cannot keep a local copy: %w", err)
		}
	}
	return nil
}

// stageChanged stages a component that changes, between its scripts.
func (u *Updater) stageChanged(ctx context.Context, c *content, t *txState, b Backend, comp release.Component, p *txPart) error {
	if err := u.runScripts(ctx, t, release.BeforeStage, p.Name); err != nil {
		return err
	}
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

// keepBrought completes the local copy of what a component brings, after a
// Stage that was cut short: what the backend has of that one is not brought
// again, and may have been cut off from the local copy.
func (u *Updater) keepBrought(ctx context.Context, c *content, b Backend, comp release.Component) error {
	if _, ok := b.(Lister); !ok {
		return nil
	}
	blobs, err := u.blobsOf(ctx, c, b, comp)
	if err != nil {
		return err
	}
	running, ok := u.runningBlobs(ctx, b, comp.Name)
	had := map[release.Blob]bool{}
	for _, blob := range running {
		had[blob] = true
	}
	for _, blob := range blobs {
		if !ok || had[blob] {
			continue
		}
		if err := u.keepBlob(ctx, c, blob); err != nil {
			return fmt.Errorf("cannot keep a local copy: %w", err)
		}
	}
	return nil
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

// precheck compares what staging takes with what is free.
func (u *Updater) precheck(ctx context.Context, c *content, t *txState, r *release.Release) error {
	needs := []Need{u.scriptNeed(r)}
	for _, p := range t.Parts {
		b, comp, err := u.component(r, p.Name)
		if err != nil {
			return err
		}
		if budgeter, ok := b.(Budgeter); ok && !p.Same {
			n, err := budgeter.Budget(ctx, comp, c)
			if err != nil {
				return fmt.Errorf("cannot tell what %s needs: %w", p.Name, err)
			}
			needs = append(needs, n...)
		}
		n, err := u.keepNeed(ctx, c, b, comp)
		if err != nil {
			return err
		}
		needs = append(needs, n)
	}
	if t.Back {
		return u.enough(needs, 0) // what the reserve is for
	}
	return u.enough(needs, u.opts.Reserve)
}

// blockSize is what a small file takes at least.
const blockSize = 4096

// keepNeed is what the local copy of one component will take.
func (u *Updater) keepNeed(ctx context.Context, c *content, b Backend, comp release.Component) (Need, error) {
	n := Need{Path: u.opts.Dir}
	_, lists := b.(Lister)
	if comp.Keep.Repair == release.RepairNone || comp.Keep.Repair == release.RepairChanged && !lists {
		return n, nil
	}
	blobs, err := u.blobsOf(ctx, c, b, comp)
	if err != nil {
		return n, err
	}
	for _, blob := range blobs {
		if u.store().has(blob) || comp.Keep.Repair == release.RepairChanged && c.isLocal(ctx, blob) {
			continue
		}
		n.add(blob)
	}
	return n, nil
}

// scriptNeed is what the scripts of r will take.
func (u *Updater) scriptNeed(r *release.Release) Need {
	n := Need{Path: u.opts.Dir}
	for _, b := range r.ScriptBlobs() {
		if !u.store().has(b) {
			n.add(b)
		}
	}
	return n
}

func (n *Need) add(b release.Blob) {
	n.Bytes += (b.Size + blockSize - 1) / blockSize * blockSize
	n.Inodes++
}

// enough adds up the needs per file system and compares.
func (u *Updater) enough(needs []Need, reserve int64) error {
	sums := map[string]*SpaceError{}
	for _, n := range needs {
		if n.Path == "" || n.Bytes == 0 && n.Inodes == 0 {
			continue
		}
		bytes, inodes, id, err := u.host.Space(n.Path)
		if err != nil {
			return err
		}
		s := sums[id]
		if s == nil {
			s = &SpaceError{Path: n.Path, FreeBytes: bytes, FreeInodes: inodes, Reserve: reserve}
			sums[id] = s
		}
		s.NeedBytes += n.Bytes
		s.NeedInodes += n.Inodes
	}
	for _, id := range slices.Sorted(maps.Keys(sums)) {
		s := sums[id]
		if s.NeedBytes+s.Reserve > s.FreeBytes || s.NeedInodes > s.FreeInodes {
			return s
		}
	}
	return nil
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
