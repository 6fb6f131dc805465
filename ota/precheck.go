package ota

import (
	"context"
	"maps"
	"slices"

	"github.com/pawl-ota/pawl/ota/release"
)

// precheck compares what staging takes with what is free, and gives up the
// spool where there is no room for it.
func (u *Updater) precheck(ctx context.Context, c *content, t *txState, r *release.Release) error {
	m := u.newPlanMaker(c, t.To)
	if err := m.all(ctx, t.Parts, r); err != nil {
		return err
	}
	reserve := u.opts.Reserve
	if t.Back {
		reserve = 0 // what it is for
	}
	if err := m.finish(ctx, reserve); err != nil {
		return err
	}
	if m.plan.Spool == 0 && c.spool != nil && m.plan.Fetch > 0 {
		u.dropSpool()
		c.spool = nil
	}
	return m.plan.Check()
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
	here := u.here(ctx, c, b, comp.Name)
	for _, blob := range blobs {
		if u.store().has(blob) || comp.Keep.Repair == release.RepairChanged && here(blob) {
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

// here returns a func that reports whether a blob of the named component seems
// to be on the device. What the running release lists is: nobody looks.
func (u *Updater) here(ctx context.Context, c *content, b Backend, name string) func(release.Blob) bool {
	running, _ := u.runningBlobs(ctx, b, name)
	slices.SortFunc(running, func(x, y release.Blob) int { return compareDigests(x.Digest, y.Digest) })
	return func(blob release.Blob) bool {
		_, found := slices.BinarySearchFunc(running, blob.Digest, func(x release.Blob, d release.Digest) int {
			return compareDigests(x.Digest, d)
		})
		return found || c.isLocal(ctx, blob)
	}
}

// sums adds up the needs per file system, with what it has.
func (u *Updater) sums(needs []Need, reserve int64) ([]SpaceError, error) {
	found := map[string]*SpaceError{}
	for _, n := range needs {
		if n.Path == "" || n.Bytes == 0 && n.Inodes == 0 {
			continue
		}
		bytes, inodes, id, err := u.host.Space(n.Path)
		if err != nil {
			return nil, err
		}
		s := found[id]
		if s == nil {
			s = &SpaceError{Path: n.Path, FreeBytes: bytes, FreeInodes: inodes, Reserve: reserve}
			found[id] = s
		}
		s.NeedBytes += n.Bytes
		s.NeedInodes += n.Inodes
	}
	all := []SpaceError{}
	for _, id := range slices.Sorted(maps.Keys(found)) {
		all = append(all, *found[id])
	}
	return all, nil
}
