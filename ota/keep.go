package ota

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/ota/release"
)

// fetchIndexes brings the index of every component into the local copy, where
// a rollback, a verify and the next delta need it, and with them what says how
// the rest is brought.
func (u *Updater) fetchIndexes(ctx context.Context, c *content, r *release.Release) error {
	var blobs []release.Blob
	var also []release.Place
	c.indexes = map[release.Digest]bool{}
	for _, comp := range r.Components {
		c.indexes[comp.Index.Digest] = true
		blobs = append(blobs, comp.Index)
		also = append(also, c.deltaPlaces(comp)...)
	}
	if err := u.keepAll(ctx, c, blobs, also); err != nil {
		return fmt.Errorf("the indexes: %w", err)
	}
	return nil
}

// keepAll makes sure that blobs are in the local copy, durable after the next
// Sync of the state directory. Where something is fetched for it, the places in
// also come with it, into the spool.
func (u *Updater) keepAll(ctx context.Context, c *content, blobs []release.Blob, also []release.Place) error {
	var missing []release.Blob
	for _, b := range blobs {
		if r, ok, err := u.store().open(b); err != nil || !ok || !c.whole(r, b) {
			missing = append(missing, b)
		}
	}
	if len(missing) == 0 {
		return ctx.Err()
	}
	keeps := c.keeps
	c.keeps = false // put does
	defer func() { c.keeps = keeps }()
	return c.each(ctx, missing, u.keepFrom, also)
}

// keepFrom writes a blob to the local copy.
func (u *Updater) keepFrom(b release.Blob, r io.Reader) error {
	f, err := u.dir.Create(u.store().name(b.Digest))
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		return errors.Join(err, f.Abort())
	}
	return u.place(f, b)
}

// place gives a kept blob its name, to be made durable by syncPlaced.
func (u *Updater) place(f seam.File, b release.Blob) error {
	u.placed = append(u.placed, u.store().name(b.Digest))
	return f.Place()
}

// syncPlaced makes durable what was placed.
func (u *Updater) syncPlaced() error {
	if err := u.dir.Sync(); err != nil {
		return fmt.Errorf("cannot make the local copy durable: %w", errors.Join(err, u.dropPlaced()))
	}
	u.placed = nil
	return nil
}

// dropPlaced drops what was placed and is not durable, to be written anew, after a
// failed sync, whoever's: nobody knows what of it the disk holds, although it reads
// well, and the next sync would not say.
func (u *Updater) dropPlaced() error {
	placed := u.placed
	u.placed = nil
	var err error
	for _, name := range placed {
		err = errors.Join(err, u.dir.Remove(name))
	}
	return err
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
	var brought []release.Blob
	for _, blob := range blobs {
		if ok && !had[blob] {
			brought = append(brought, blob)
		}
	}
	if err := u.keepAll(ctx, c, brought, nil); err != nil {
		return fmt.Errorf("cannot keep a local copy: %w", err)
	}
	return nil
}

// spooling returns the spool of this process.
func (u *Updater) spooling() *spool {
	if u.spool == nil {
		u.spool = newSpool(u.dir)
	}
	return u.spool
}

// dropSpool drops what was kept of what came, once that is installed or not
// wanted any more. What stays for a failure goes the next time.
func (u *Updater) dropSpool() {
	if err := u.spooling().clear(); err != nil {
		u.report(Progress{Step: "prune", Err: err})
	}
}
