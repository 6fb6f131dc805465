//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// Commit keeps the old tree, if c.Keep.Previous asks for one and a release put
// it there, and drops everything else of tx. What the root holds is written
// down first, so that it is known after the plan is gone.
func (f *treeFiles) Commit(ctx context.Context, tx ota.TxID, c release.Component) error {
	if err := f.check(tx, c); err != nil {
		return err
	}
	f.dropSeeds()
	root, err := look(f.opts.Root)
	if err != nil {
		return err
	}
	p, err := f.readPlan(tx)
	if err != nil {
		return err
	}
	if p == nil {
		return f.commitAgain(ctx, tx, c)
	}
	if !root.is(&p.New) || p.New.Digest != c.Digest() {
		return fmt.Errorf("cannot commit %s: %w: %s", c.Name, ErrForeign, f.opts.Root)
	}
	if err := f.moveForward(tx, p); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot commit %s: %w", c.Name, err)
	}
	if err := f.keep(tx, p, c.Keep.Previous > 0); err != nil {
		return fmt.Errorf("cannot commit %s: %w", c.Name, explain(err))
	}
	return f.dropTx(tx)
}

// commitAgain ends a Commit that was cut short after its plan was dropped, and
// that of a component which the root held before.
func (f *treeFiles) commitAgain(ctx context.Context, tx ota.TxID, c release.Component) error {
	a, err := f.Active(ctx, c.Name)
	if err == nil && !a.Is(c.Digest()) {
		err = fmt.Errorf("cannot commit %s: the root does not hold it: %w", c.Name, ota.ErrState)
	}
	if err != nil {
		return err
	}
	return f.dropTx(tx)
}

// keep writes down what the root and the kept trees hold, and moves the old
// tree to the kept ones.
func (f *treeFiles) keep(tx ota.TxID, p *plan, previous bool) error {
	old, err := look(f.treePath(tx))
	if err != nil {
		return err
	}
	previous = previous && old.is(p.Old) && !p.Old.Digest.IsZero() && p.Old.Digest != p.New.Digest
	trees := []known{p.New}
	if previous {
		trees = append(trees, *p.Old)
	}
	for _, k := range f.readState().Trees {
		if there, err := look(f.keptPath(k.Digest)); err == nil && there.is(&k) && !(previous && k.Digest == p.Old.Digest) && k != p.New {
			trees = append(trees, k)
		}
	}
	if err := f.writeReserved(tx, forState, f.path("state"), formatState, state{trees}); err != nil || !previous {
		return err
	}
	kept := f.keptPath(p.Old.Digest)
	if err := f.trash(kept, p.Old.Digest.String()); err != nil {
		return err
	}
	if err := f.step("keep", kept); err != nil {
		return err
	}
	return durable.RenameNew(f.treePath(tx), kept)
}

// dropTx drops what a transaction set aside. Its folder leaves the
// transactions with one rename: what is half removed is none.
func (f *base) dropTx(tx ota.TxID) error {
	f.parsed.letGo()
	return f.trash(f.txPath(tx), string(tx))
}

// trash removes a folder of the spool.
func (f *base) trash(path, name string) error {
	there, err := look(path)
	if err != nil {
		return err
	}
	if there.there {
		if err := f.wipe(dirTrash, name); err != nil {
			return err
		}
		// A Stage that the power cut short may have left a folder without it.
		if err := f.makeSpool(f.path(dirTrash)); err != nil {
			return err
		}
		if err := f.step("trash", path); err != nil {
			return err
		}
		if err := durable.Rename(path, f.path(dirTrash, name)); err != nil {
			return err
		}
	}
	return f.wipe(dirTrash, name)
}

// Prune drops the kept trees that are not among keep, the transactions that
// are not among open, and the indexes that nothing needs any more. What runs
// stays, whatever the lists say.
func (f *treeFiles) Prune(ctx context.Context, name string, keep []release.Digest, open []ota.TxID) error {
	if name != f.opts.Name {
		return fmt.Errorf("component %.80q came to the backend of %q", name, f.opts.Name)
	}
	f.dropSeeds()
	if there, err := look(f.path()); err != nil || !there.there {
		return err
	}
	root, err := look(f.opts.Root)
	if err != nil {
		return err
	}
	plans, err := f.plans()
	if err != nil {
		return err
	}
	running, ok := f.identify(root, plans)
	if ok {
		if err := f.remember(running); err != nil {
			return err
		}
	}
	if err := f.pruneTx(ctx, plans, root, open); err != nil {
		return err
	}
	if err := f.pruneKept(ctx, keep, running.Digest); err != nil {
		return err
	}
	return errors.Join(f.pruneIndexes(running), f.sweep())
}

// pruneTx drops transactions. Carried paths that one of them still holds go to
// the root first.
func (f *treeFiles) pruneTx(ctx context.Context, plans map[ota.TxID]*plan, root place, open []ota.TxID) error {
	names, err := f.listDir(dirTx)
	if err != nil {
		return err
	}
	for _, n := range names {
		tx := ota.TxID(n)
		if err := ctx.Err(); err != nil {
			return err
		}
		if slices.Contains(open, tx) {
			continue
		}
		if p := plans[tx]; p != nil && root.is(&p.New) {
			if err := f.moveForward(tx, p); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		if err := f.dropTx(tx); err != nil {
			return err
		}
	}
	return nil
}

// pruneKept drops kept trees. One of what runs, which was gone back to, is
// needed only while an open transaction may leave it again.
func (f *treeFiles) pruneKept(ctx context.Context, keep []release.Digest, running release.Digest) error {
	names, err := f.listDir(dirKept)
	if err != nil {
		return err
	}
	txs, err := f.listDir(dirTx)
	if err != nil {
		return err
	}
	for _, n := range names {
		d, err := release.ParseDigest(n)
		if err == nil && slices.Contains(keep, d) && (d != running || len(txs) > 0) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f.trash(f.path(dirKept, n), n); err != nil {
			return err
		}
	}
	return nil
}

// dropIndexes drops, after a Revert, the indexes that nothing needs. Where it
// is not known what runs, that is only the reverted one.
func (f *treeFiles) dropIndexes(d release.Digest) error {
	root, err := look(f.opts.Root)
	if err != nil {
		return err
	}
	if running, ok := f.identify(root, nil); ok {
		return f.pruneIndexes(running)
	}
	there, err := look(f.indexPath(d))
	if err != nil || !there.there || root.there {
		return err
	}
	if err := f.step("remove", f.indexPath(d)); err != nil {
		return err
	}
	if err := os.Remove(f.seenPath(d)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return durable.Remove(f.indexPath(d))
}

// pruneIndexes drops the indexes of trees that are neither at the root, nor
// kept, nor part of a transaction.
func (f *base) pruneIndexes(running known) error {
	needed := map[string]bool{running.Digest.String(): true}
	kept, err := f.listDir(dirKept)
	if err != nil {
		return err
	}
	for _, n := range kept {
		needed[n] = true
	}
	txs, err := f.listDir(dirTx)
	if err != nil || len(txs) > 0 || running.Digest.IsZero() {
		return err
	}
	return f.dropNames(dirIndex, needed)
}

// dropNames removes the files of one of the spool's folders that are not
// needed.
func (f *base) dropNames(dir string, needed map[string]bool) error {
	names, err := f.listDir(dir)
	names = slices.DeleteFunc(names, func(n string) bool { return needed[strings.TrimSuffix(n, seenSuffix)] })
	if err != nil || len(names) == 0 {
		return err
	}
	for _, n := range names {
		if err := f.step("remove", f.path(dir, n)); err != nil {
			return err
		}
		if err := os.Remove(f.path(dir, n)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return durable.SyncDir(f.path(dir))
}
