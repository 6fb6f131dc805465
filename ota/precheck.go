package ota

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/pawl-ota/pawl/ota/release"
)

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
