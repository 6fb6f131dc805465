//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// Revert gives the old tree the root's name again and drops what tx staged.
// The carried paths go back first, with what the app wrote to them: when the
// old tree has the name, it is complete.
//
// A file that both trees shared and that was written to in place is put back
// from another place on the device. Where there is none Revert returns
// [ErrChanged], which names the file, and keeps everything; a Repair with the
// local copy mends it.
//
// Of c the name is enough: what there is to do says the transaction's own
// record.
func (f *treeFiles) Revert(ctx context.Context, tx ota.TxID, c release.Component) error {
	if err := f.checkName(tx, c); err != nil {
		return err
	}
	f.dropSeeds()
	p, err := f.readPlan(tx)
	if err != nil {
		return err
	}
	d := c.Digest()
	if p != nil {
		d = p.New.Digest
		if err := f.undo(ctx, tx, p); err != nil {
			return fmt.Errorf("cannot revert %s: %w", c.Name, explain(err))
		}
	}
	if err := f.dropTx(tx); err != nil {
		return err
	}
	return f.dropIndexes(d)
}

// undo brings the old tree back. It asks what is at the root and at the
// transaction's place, of which the plan knows two inodes.
func (f *treeFiles) undo(ctx context.Context, tx ota.TxID, p *plan) error {
	root, err := look(f.opts.Root)
	if err != nil {
		return err
	}
	other, err := look(f.treePath(tx))
	if err != nil {
		return err
	}
	switch {
	case p.Old == nil && root.is(&p.New):
		return f.renameNew(f.opts.Root, f.treePath(tx))
	case p.Old == nil && (!root.there || other.is(&p.New)):
		return f.settle(tx)
	case root.is(p.Old) && other.is(&p.New):
		if err = f.settle(tx); err == nil {
			err = f.moveBack(f.treePath(tx), f.opts.Root, p)
		}
	case root.is(p.Old):
		err = f.settle(tx)
	case root.is(&p.New) && other.is(p.Old):
		err = f.undoExchange(tx, p)
	case !root.there && other.is(p.Old):
		err = f.renameNew(f.treePath(tx), f.opts.Root)
	case other.is(&p.New):
		return nil
	default:
		return fmt.Errorf("%w: %s", ErrForeign, f.opts.Root)
	}
	if err != nil {
		return err
	}
	return f.mendShared(ctx, tx, p)
}

func (f *treeFiles) undoExchange(tx ota.TxID, p *plan) error {
	if err := f.moveBack(f.opts.Root, f.treePath(tx), p); err != nil {
		return err
	}
	if err := f.step("exchange", f.opts.Root); err != nil {
		return err
	}
	return durable.Exchange(f.treePath(tx), f.opts.Root)
}

func (f *treeFiles) renameNew(from, to string) error {
	if err := f.step("name", to); err != nil {
		return err
	}
	return durable.RenameNew(from, to)
}

// mendShared looks at every file of the root that the dropped tree shared.
func (f *treeFiles) mendShared(ctx context.Context, tx ota.TxID, p *plan) error {
	next, err := f.storedIndex(p.New.Digest, p.New.Index)
	if err != nil {
		return err
	}
	tree, err := at.Open(f.opts.Root)
	if err != nil {
		return err
	}
	w := f.newWorker(ctx, tree)
	var lost []error
	err = eachShared(f.txPath(tx, "shared"), next, func(s *shared) error {
		if err := ctx.Err(); err != nil || s.Old == "" {
			return err
		}
		info, err := tree.Stat(s.Old)
		if err == nil && s.is(info) {
			return nil
		}
		if err := f.mendOne(w, s, p, next.Find(s.New)); err != nil {
			lost = append(lost, err)
		}
		return nil
	})
	return errors.Join(append(lost, err, tree.Close())...)
}

// mendOne puts one shared file back.
func (f *treeFiles) mendOne(w *worker, s *shared, p *plan, e *release.Entry) error {
	why, err := w.wrong(w.tree, s.Old, e)
	if err != nil || why == "" {
		return err
	}
	old := *e
	old.Path = s.Old
	ix := f.oldIndex(w.ctx, *p.Old, nil)
	sources := f.sources(ix)
	defer closeSources(sources)
	if err := w.mend(&old, sources, nil); err != nil {
		return fmt.Errorf("%w: %s: %s: %w: %w", ErrChanged, w.tree.Name(s.Old), why, ota.ErrDigest, err)
	}
	return nil
}

// mend puts the entry e back in its place as the release says: first under a
// temporary name beside it, then with one rename. The content comes from one
// of sources, or else from open, which may be nil.
func (w *worker) mend(e *release.Entry, sources []*source, open func() (io.ReadCloser, error)) error {
	if e.Type == release.Dir {
		return w.mendDir(e)
	}
	temp := tempBeside(e.Path)
	if err := w.step("mend", temp); err != nil {
		return err
	}
	if err := w.tree.RemoveAll(temp); err != nil {
		return err
	}
	var err error
	if e.Type == release.Symlink {
		err = w.symlink(temp, e)
	} else {
		err = w.mendFile(temp, e, sources, open)
	}
	if err != nil {
		return err
	}
	return w.place(temp, e.Path)
}

// mendFile makes the file temp and makes it durable.
func (w *worker) mendFile(temp string, e *release.Entry, sources []*source, open func() (io.ReadCloser, error)) error {
	done, err := w.fromSources(temp, e, sources)
	if err == nil && !done {
		if open == nil {
			return ota.ErrNotLocal
		}
		err = w.fromContent(temp, e, open)
	}
	if err != nil {
		return err
	}
	settleForks()
	file, err := w.tree.OpenFile(temp)
	if errors.Is(err, os.ErrPermission) {
		return durable.SyncTree(w.tree.Name("."))
	}
	if err != nil {
		return err
	}
	return errors.Join(durable.SyncOpen(file), file.Close())
}

func (w *worker) fromSources(temp string, e *release.Entry, sources []*source) (bool, error) {
	for _, src := range sources {
		for p := range src.places(e.Path, e.Blob) {
			in, err := src.tree.OpenFile(p)
			if err != nil {
				continue
			}
			done, err := w.copyFrom(temp, e, in)
			if err = errors.Join(err, in.Close()); done || errors.Is(err, ota.ErrNoSpace) {
				return done, err
			}
		}
	}
	return false, nil
}

func (w *worker) fromContent(temp string, e *release.Entry, open func() (io.ReadCloser, error)) error {
	r, err := open()
	if err != nil {
		return err
	}
	return errors.Join(w.write(temp, e, r), r.Close())
}

// mendDir makes a folder if it is missing and gives it its metadata.
func (w *worker) mendDir(e *release.Entry) error {
	if info, err := w.tree.Stat(e.Path); err == nil && info.IsDir() {
		return w.setDir(e.Path, e)
	}
	temp := tempBeside(e.Path)
	if err := w.step("mend", temp); err != nil {
		return err
	}
	if err := w.tree.RemoveAll(temp); err != nil {
		return err
	}
	if err := w.tree.Mkdir(temp); err != nil {
		return err
	}
	if err := w.setDir(temp, e); err != nil {
		return err
	}
	return w.place(temp, e.Path)
}

// place gives temp the name p, in whose place may be anything.
func (w *worker) place(temp, p string) error {
	if err := w.step("place", p); err != nil {
		return err
	}
	dir, base, err := w.tree.Parent(p)
	if err != nil {
		return err
	}
	_, from, err := w.tree.Parent(temp)
	if err != nil {
		return err
	}
	err = durable.RenameAt(dir, from, dir, base)
	if !isErrno(err, unix.EISDIR, unix.ENOTDIR, unix.ENOTEMPTY, unix.EEXIST) {
		return explain(err)
	}
	if err := durable.ExchangeAt(dir, from, dir, base); err != nil {
		return explain(err)
	}
	return w.tree.RemoveAll(temp)
}

// CanRevert reports whether Revert would find all it needs: the transaction's
// own record and the old tree. Where c is a name alone, a transaction that
// left nothing may have been committed, and the answer is no.
func (f *treeFiles) CanRevert(_ context.Context, tx ota.TxID, c release.Component) (bool, error) {
	if err := f.checkName(tx, c); err != nil {
		return false, err
	}
	root, err := look(f.opts.Root)
	if err != nil {
		return false, err
	}
	p, err := f.readPlan(tx)
	if err != nil {
		return false, err
	}
	if p == nil {
		begun, err := look(f.txPath(tx))
		k, ok := f.identify(root, nil)
		return begun.there || c.Kind != "" && (!ok || k.Digest != c.Digest()), err
	}
	other, err := look(f.treePath(tx))
	if err != nil {
		return false, err
	}
	if p.Old == nil {
		return !root.there || root.is(&p.New) || other.is(&p.New), nil
	}
	return root.is(p.Old) || other.is(p.Old) && (root.is(&p.New) || !root.there), nil
}
