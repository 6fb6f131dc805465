package ota

import (
	"context"
	"fmt"
	"slices"

	"github.com/pawl-ota/pawl/ota/release"
)

// maxAdopt is how many releases Adopt compares a device with.
const maxAdopt = 32

// Adopt takes over a device that got its files without pawl, such as in a
// factory: where what is on it is exactly the release with that seq, in all of
// its components, this is recorded as what runs. Nothing of the content is
// fetched or changed, and from then on updates, deltas and rollbacks work as if
// the release had been installed here. With seq 0 the releases of the repository
// are tried from the newest down, some 30 of them.
//
// Otherwise nothing is recorded, and it returns what differs: from the release
// asked for, or with seq 0 from the one with the fewest differences.
//
// It needs a source that is a [Catalog], and backends that are a [Verifier] and
// an [Adopter] (ErrComponent). It is refused with ErrState where a release runs
// or a transaction is open, and returns ErrNoRelease and ErrHardware as Check
// does.
func (u *Updater) Adopt(ctx context.Context, seq uint64) (Installed, []Damage, error) {
	leave, err := u.enter()
	if err != nil {
		return Installed{}, nil, err
	}
	defer leave()
	seqs, err := u.adoptable(ctx, seq)
	if err != nil {
		return Installed{}, nil, fmt.Errorf("cannot adopt what is installed: %w", err)
	}
	var best Installed
	var least []Damage
	for _, seq := range seqs {
		to, found, err := u.adopt(ctx, seq)
		if err != nil {
			return to, nil, fmt.Errorf("cannot adopt seq %d: %w", seq, err)
		}
		if best.Seq == 0 || len(found) < len(least) {
			best, least = to, found
		}
		if len(found) == 0 {
			return to, nil, nil
		}
	}
	if best.Seq == 0 {
		return best, nil, fmt.Errorf("cannot adopt what is installed: %w", ErrNoRelease)
	}
	return best, least, nil
}

// adoptable returns the seqs to be compared with.
func (u *Updater) adoptable(ctx context.Context, seq uint64) ([]uint64, error) {
	if u.rec.Tx != nil || u.rec.Running != nil || !u.settled {
		return nil, fmt.Errorf("%w: a release runs or a transaction is open, or Resume was not called", ErrState)
	}
	if u.opts.Source == nil {
		return nil, ErrNoSource
	}
	catalog, ok := u.opts.Source.(Catalog)
	if !ok {
		return nil, fmt.Errorf("%w: the source has no earlier releases", ErrNoSource)
	}
	if seq != 0 {
		return []uint64{seq}, nil
	}
	seqs, err := catalog.Releases(ctx, u.opts.Device)
	return seqs[:min(len(seqs), maxAdopt)], err
}

// adopt compares the device with one release, and takes it over when nothing
// differs.
func (u *Updater) adopt(ctx context.Context, seq uint64) (Installed, []Damage, error) {
	r, err := u.opts.Source.(Catalog).Release(ctx, u.opts.Device, seq)
	if err != nil {
		return Installed{}, nil, err
	}
	to := Installed{ID: r.ID, Version: r.Version, Digest: r.Digest()}
	if err := u.fits(r); err != nil {
		return to, nil, err
	}
	c, err := u.looking(ctx, r)
	if err != nil {
		return to, nil, err
	}
	var found []Damage
	for _, comp := range r.Components {
		differs, err := u.compare(ctx, c, comp)
		if err != nil {
			return to, nil, fmt.Errorf("%s: %w", comp.Name, err)
		}
		found = append(found, differs...)
	}
	if len(found) > 0 {
		return to, found, nil
	}
	return to, nil, u.takeOverAll(ctx, c, r)
}

// compare returns what differs from one component.
func (u *Updater) compare(ctx context.Context, c *content, comp release.Component) (found []Damage, err error) {
	b, err := u.backend(comp.Name)
	if err != nil {
		return nil, err
	}
	v, ok := b.(Verifier)
	if _, adopts := b.(Adopter); !ok || !adopts {
		return nil, fmt.Errorf("%w that can adopt what it did not install", ErrComponent)
	}
	u.report(Progress{Step: "verify", Component: comp.Name})
	err = u.run(ctx, u.opts.StageLimit, func(ctx context.Context) error {
		found, err = v.Verify(ctx, comp, c)
		return err
	})
	return found, err
}

// takeOverAll records r as what runs. Before that record nothing counts that
// came before it.
func (u *Updater) takeOverAll(ctx context.Context, c *content, r *release.Release) error {
	doc, err := r.Encode()
	if err != nil {
		return err
	}
	digest, err := u.store().putDocument(doc)
	if err != nil {
		return err
	}
	if err := u.fetchIndexes(ctx, c, r); err != nil {
		return err
	}
	if err := u.fetchScripts(ctx, c, r); err != nil {
		return err
	}
	for _, comp := range r.Components {
		if err := u.takeOverPart(ctx, c, comp); err != nil {
			return fmt.Errorf("%s: %w", comp.Name, err)
		}
	}
	if err := u.syncPlaced(); err != nil {
		return err
	}
	u.rec.Running = newRunning(nil, r, digest)
	u.rec.SecurityFloor = max(u.rec.SecurityFloor, r.SecurityFloor)
	u.rec.releaseHolds(r.ID)
	return u.save()
}

// takeOverPart has a backend take over one component, and keeps of it what its
// Keep asks for.
func (u *Updater) takeOverPart(ctx context.Context, c *content, comp release.Component) error {
	b := u.opts.Backends[comp.Name]
	err := u.run(ctx, u.opts.StageLimit, func(ctx context.Context) error {
		return b.(Adopter).Adopt(ctx, comp, c)
	})
	if err != nil {
		return err
	}
	a, err := u.active(ctx, comp.Name)
	if err == nil && !a.Is(comp.Digest()) {
		err = fmt.Errorf("the device says %s", describe(a))
	}
	if err != nil || comp.Keep.Repair != release.RepairFull {
		return err
	}
	need, err := u.keepNeed(ctx, c, b, comp)
	if err != nil {
		return err
	}
	space, err := u.sums([]Need{need}, u.opts.Reserve)
	if err == nil {
		err = (&Plan{Space: space}).fits()
	}
	if err != nil {
		return err
	}
	blobs, err := u.blobsOf(ctx, c, b, comp)
	if err != nil {
		return err
	}
	return u.keepAll(ctx, c, slices.Clone(blobs), nil)
}
