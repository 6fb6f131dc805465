package ota

import (
	"context"
	"fmt"

	"github.com/pawl-ota/pawl/ota/release"
)

// Verify reads everything of the running release, and the local copy that is
// kept of it, and returns what is not as it should be. Components whose
// backend is no Verifier are asked for their Active only. It changes nothing,
// and is refused with ErrState while a transaction is open.
func (u *Updater) Verify(ctx context.Context) ([]Damage, error) {
	return u.inspect(ctx, u.verifyPart)
}

// Repair puts back what Verify finds, from what is on the device: no network
// is used. It returns what it could not mend. It may be called again after a
// power cut, and is refused with ErrState while a transaction is open.
func (u *Updater) Repair(ctx context.Context) ([]Damage, error) {
	return u.inspect(ctx, u.repairPart)
}

type inspector func(context.Context, Backend, release.Component) ([]Damage, error)

func (u *Updater) inspect(ctx context.Context, look inspector) ([]Damage, error) {
	leave, err := u.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	if u.rec.Tx != nil || !u.settled {
		return nil, fmt.Errorf("%w: a transaction is open, or Resume was not called", ErrState)
	}
	if u.rec.Running == nil {
		return nil, nil
	}
	var damage []Damage
	for _, p := range u.rec.Running.Parts {
		found, err := u.inspectPart(ctx, p, look)
		if err != nil {
			return damage, fmt.Errorf("%s: %w", p.Name, err)
		}
		damage = append(damage, found...)
	}
	return damage, nil
}

func (u *Updater) inspectPart(ctx context.Context, p part, look inspector) ([]Damage, error) {
	c, err := u.installedComponent(p)
	if err != nil {
		return []Damage{{p.Name, ".", err.Error()}}, nil
	}
	b, err := u.backend(p.Name)
	if err != nil {
		return nil, err
	}
	u.report(Progress{Step: "verify", Component: p.Name})
	var found []Damage
	err = u.run(ctx, u.opts.StageLimit, func(ctx context.Context) error {
		found, err = look(ctx, b, c)
		return err
	})
	return found, err
}

func (u *Updater) verifyPart(ctx context.Context, b Backend, c release.Component) ([]Damage, error) {
	found, err := u.installed(ctx, b, c)
	if err != nil {
		return nil, err
	}
	for _, blob := range u.copied(ctx, b, c) {
		r, ok, err := u.store().open(blob)
		if err != nil || !ok || !u.local().whole(r, blob) {
			found = append(found, Damage{c.Name, ".", "the local copy of " + blob.Digest.Short() + " is damaged or missing"})
		}
	}
	return found, nil
}

// installed compares what is in effect with c.
func (u *Updater) installed(ctx context.Context, b Backend, c release.Component) ([]Damage, error) {
	if v, ok := b.(Verifier); ok {
		return v.Verify(ctx, c, u.local())
	}
	a, err := b.Active(ctx, c.Name)
	if err != nil || a.Is(c.Digest()) {
		return nil, err
	}
	return []Damage{{c.Name, ".", "the device says " + describe(a)}}, nil
}

// copied lists what the local copy should hold of c.
func (u *Updater) copied(ctx context.Context, b Backend, c release.Component) []release.Blob {
	blobs := []release.Blob{c.Index}
	if l, ok := b.(Lister); ok && c.Keep.Repair == release.RepairFull {
		more, err := l.Blobs(ctx, c, u.local())
		if err == nil {
			blobs = append(blobs, more...)
		}
	}
	return blobs
}

func (u *Updater) repairPart(ctx context.Context, b Backend, c release.Component) ([]Damage, error) {
	a, err := b.Active(ctx, c.Name)
	if err != nil {
		return nil, err
	}
	if a.State == Whole && !a.Is(c.Digest()) {
		return []Damage{{c.Name, ".", "something else was put there: the device says " + describe(a)}}, nil
	}
	var left []Damage
	if r, ok := b.(Repairer); ok {
		left, err = r.Repair(ctx, c, u.local())
	} else {
		left, err = u.installed(ctx, b, c)
	}
	if err != nil {
		return left, err
	}
	for _, blob := range u.copied(ctx, b, c) {
		if err := u.keepAll(ctx, u.local(), []release.Blob{blob}, nil); err != nil {
			left = append(left, Damage{c.Name, ".", "the local copy: " + err.Error()})
		}
	}
	return left, u.syncPlaced()
}
