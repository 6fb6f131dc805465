//go:build linux

package micro

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// Stage builds the whole tree of c in the spool and makes it durable. What is
// installed is read, never changed. It refuses what would stop Activate: paths
// that belong to nobody ([ErrUnmanaged]), a root that cannot be exchanged
// ([ErrLayout]) or not be changed ([ErrReadOnly]).
//
// Every file is verified by content before Stage returns. One that is shared with
// the installed tree or a kept one is read for it, unless its inode is untouched
// since an earlier Stage verified it.
func (f *treeFiles) Stage(ctx context.Context, tx ota.TxID, c release.Component, content ota.Content) (ota.Effect, error) {
	if err := f.check(tx, c); err != nil {
		return "", err
	}
	f.dropSeeds()
	defer f.dropSeeds()
	root, err := f.root()
	if err != nil {
		return "", err
	}
	if root.there {
		if err := f.probeRoot(root); err != nil {
			return "", err
		}
	}
	if err := f.prepare(string(tx)); err != nil {
		return "", fmt.Errorf("cannot prepare the spool: %w", err)
	}
	if p, err := f.readPlan(tx); err != nil || p != nil && root.is(&p.New) {
		return f.effect(), err
	}
	if err := f.stage(ctx, tx, c, content, root); err != nil {
		return "", err
	}
	return f.effect(), nil
}

func (f *base) effect() ota.Effect {
	if f.opts.Effect == "" {
		return ota.Live
	}
	return f.opts.Effect
}

func (f *treeFiles) stage(ctx context.Context, tx ota.TxID, c release.Component, content ota.Content, root place) error {
	if err := f.sweep(); err != nil {
		return err
	}
	if err := f.probe(root); err != nil {
		return err
	}
	was, err := f.installed(ctx, root)
	if err != nil {
		return err
	}
	next, err := f.keepIndex(ctx, c, content)
	if err != nil {
		return err
	}
	if err := next.Whole(); err != nil {
		return fmt.Errorf("%w: %w", ErrLayout, err)
	}
	if !was.Digest.IsZero() && was.Digest == c.Digest() {
		return f.writeRecord(f.txPath(tx, "staged"), formatStaged, staged{Tree: was, Same: true})
	}
	tree, err := f.buildTree(ctx, tx, c.Digest(), next, f.lenders(was, f.oldIndex(ctx, was, content)), content, root)
	if err != nil {
		return err
	}
	return f.writeRecord(f.txPath(tx, "staged"), formatStaged, staged{Tree: known{c.Digest(), c.Index, tree}})
}

// buildTree builds the tree of a transaction and returns which inode it is.
func (f *treeFiles) buildTree(ctx context.Context, tx ota.TxID, of release.Digest, next *release.Index, from []*source, content ota.Content, root place) (at.ID, error) {
	b := &builder{of: of, next: next, sources: from}
	defer closeSources(b.sources)
	var live *at.Tree
	var old *release.Index
	if root.there {
		if len(b.sources) == 0 || !b.sources[0].live {
			return at.ID{}, fmt.Errorf("%w: %s cannot be read", ErrReadOnly, f.opts.Root)
		}
		live, old = b.sources[0].tree, b.sources[0].ix
	}
	there, err := look(f.treePath(tx))
	if err != nil {
		return at.ID{}, err
	}
	s := newSurvey(ctx, live, old, next)
	if !there.there { // the builder looks at what it shares
		s.leave = func(o *release.Entry, i int) bool { return o.Blob == next.Entries[i].Blob }
	}
	if err = s.run(); err == nil {
		err = s.movable(os.Geteuid())
	}
	if err != nil {
		return at.ID{}, err
	}
	tree, fresh, err := f.openTree(ctx, f.treePath(tx))
	if err != nil {
		return at.ID{}, err
	}
	b.worker, b.fresh = f.newWorker(ctx, tree), fresh
	id, err := b.all(tx, content, s)
	return id, errors.Join(err, tree.Close())
}

// all builds, and makes everything durable with one call.
func (b *builder) all(tx ota.TxID, content ota.Content, s *survey) (at.ID, error) {
	log, err := createSharedLog(b.f.txPath(tx, "shared"))
	if err != nil {
		return at.ID{}, explain(err)
	}
	b.log = log
	if err = b.f.reserve(tx, reserveBytes); err == nil {
		err = b.build(content, s)
	}
	if err = errors.Join(err, log.close()); err == nil {
		err = b.f.keepSeen(tx, b.of)
	}
	if err != nil {
		return at.ID{}, explain(err)
	}
	settleForks()
	if err := b.step("sync", "."); err != nil {
		return at.ID{}, err
	}
	if err := durable.SyncTree(b.f.path()); err != nil {
		// What is on the disk is unknown now, and reading it again would only
		// show what is in memory: the next Stage builds anew.
		return at.ID{}, errors.Join(explain(err), b.f.forgetIndex(b.of), b.f.trash(b.f.txPath(tx, "tree"), string(tx)))
	}
	b.f.synced = true
	info, err := b.tree.Stat(".")
	return info.ID, err
}

// sweep removes what interrupted work of earlier calls left in the spool.
func (f *base) sweep() error {
	if err := f.step("sweep", f.path()); err != nil {
		return err
	}
	if err := f.sweepTemp(".", dirIndex); err != nil {
		return err
	}
	names, err := f.listDir(dirTrash)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := f.wipe(dirTrash, name); err != nil {
			return err
		}
	}
	return nil
}

// wipe removes a tree or a transaction's folder from one of the spool's
// folders. That lasts when it returns: what came back after a power cut, when
// the engine has noted that nothing is left to do, would stay until the next
// release is staged.
func (f *base) wipe(dir, name string) error {
	if err := f.step("wipe", f.path(dir, name)); err != nil {
		return err
	}
	if there, err := look(f.path(dir, name)); err != nil || !there.there {
		return err
	}
	tree, err := at.Open(f.path(dir))
	if err != nil {
		return err
	}
	d := f.dropping(name)
	err = errors.Join(tree.RemoveEach(name, d.gone), tree.Close())
	if err = cmp.Or(err, d.end()); err != nil {
		return err
	}
	return durable.SyncDir(f.path(dir))
}
