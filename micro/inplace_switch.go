//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// Activate writes down what is there and what will be, and then gives each
// staged entry its name, one after the other. What lasts of it is asked of the
// spool entry by entry, so that a power cut may come anywhere. The mark follows
// when all of it is durable.
func (f *inPlaceFiles) Activate(ctx context.Context, tx ota.TxID, c release.Component) error {
	if err := f.check(tx, c); err != nil {
		return err
	}
	f.dropSeeds()
	defer f.parsed.letGo()
	p, err := f.readChanges(tx, "plan")
	if err != nil {
		return err
	}
	if p == nil {
		p, err = f.makePlan(tx, c)
	} else {
		// The call that made the plan, or exchanged the mark, may have been cut
		// short before that was durable.
		err = errors.Join(durable.SyncDir(f.path()), durable.SyncDir(f.txPath(tx)))
	}
	if err != nil {
		return notActivated(c.Name, err)
	}
	if p == nil || f.markIs(p.New.Mark) {
		return f.isActive(ctx, c)
	}
	if err := f.forward(ctx, tx, p); err != nil {
		return notActivated(c.Name, explain(err))
	}
	return nil
}

func (f *inPlaceFiles) isActive(ctx context.Context, c release.Component) error {
	a, err := f.Active(ctx, c.Name)
	if err == nil && !a.Is(c.Digest()) {
		err = fmt.Errorf("cannot activate %s: it is not staged: %w", c.Name, ota.ErrState)
	}
	return err
}

// makePlan looks at everything once more, because the device ran on since
// Stage, and writes the plan. It is nil where nothing was staged.
func (f *inPlaceFiles) makePlan(tx ota.TxID, c release.Component) (*changes, error) {
	p, err := f.readChanges(tx, "staged")
	if err != nil || p == nil || p.Same || p.New.Digest != c.Digest() {
		return nil, err
	}
	now, _, err := f.current()
	if err != nil {
		return nil, err
	}
	if !now.Mark.Like(p.Old.Mark) {
		return nil, fmt.Errorf("something else was installed since it was staged: %w", ota.ErrState)
	}
	tree, err := f.openRoot()
	if err != nil {
		return nil, err
	}
	same, err := f.again(tree, p)
	if err := errors.Join(err, tree.Close()); err != nil {
		return nil, err
	}
	return p, f.writePlan(tx, p, same)
}

// writePlan writes the plan. Where it is what Stage recorded, that becomes the
// plan by a second name: it is durable already.
func (f *inPlaceFiles) writePlan(tx ota.TxID, p *changes, same bool) error {
	if !same {
		return f.writeReserved(tx, forPlan, f.txPath(tx, "plan"), formatChanges, p)
	}
	if err := f.step("write", f.txPath(tx, "plan")); err != nil {
		return err
	}
	dir, err := os.Open(f.txPath(tx))
	if err != nil {
		return err
	}
	err = durable.LinkAt(dir, "staged", dir, "plan")
	if err == nil {
		err = durable.SyncOpen(dir)
	} else {
		err = f.writeReserved(tx, forPlan, f.txPath(tx, "plan"), formatChanges, p)
	}
	return errors.Join(err, dir.Close())
}

// again finds out what changed since Stage, and reports whether the plan stayed
// what it was.
func (f *inPlaceFiles) again(tree *at.Tree, p *changes) (same bool, err error) {
	local := LocalChangeError{Root: f.opts.Root}
	same = true
	for i := range p.Changes {
		ch := &p.Changes[i]
		info, err := tree.Stat(ch.Path)
		switch {
		case err != nil && !isGone(err):
			return false, err
		case err != nil && ch.Old == nil || err == nil && ch.Old != nil && ch.Old.is(info, p.Volumes[ch.Vol]):
		case err == nil && ch.Over && !info.IsDir():
			ch.Old, same = stampOf(info), false
		default:
			local.add(ch.Path, "since it was staged")
		}
	}
	for i := range p.Folders {
		if info, err := tree.Stat(p.Folders[i].Path); err == nil && p.Folders[i].Mtime != info.Mtime {
			p.Folders[i].Mtime, same = info.Mtime, false
		}
	}
	if len(local.Changes) > 0 {
		return false, &local
	}
	return same, nil
}

// switcher switches the entries of one transaction, either way.
type switcher struct {
	f      *inPlaceFiles
	ctx    context.Context
	tree   *at.Tree
	w      *worker
	vols   []volume
	stores []*store
	batch  durable.Batch
}

func (f *inPlaceFiles) switcher(ctx context.Context, tx ota.TxID, p *changes) (*switcher, error) {
	stores, err := f.openStores(ctx, tx, p.Volumes)
	if err != nil {
		closeStores(stores)
		return nil, err
	}
	tree, err := f.openRoot()
	if err != nil {
		closeStores(stores)
		return nil, err
	}
	return &switcher{f: f, ctx: ctx, tree: tree, w: f.newWorker(ctx, tree), vols: p.Volumes, stores: stores}, nil
}

func (s *switcher) close() error {
	closeStores(s.stores)
	return errors.Join(s.batch.Close(), s.tree.Close())
}

// flush makes durable what was switched.
func (s *switcher) flush() error {
	if err := s.w.step("flush", "."); err != nil {
		return err
	}
	return s.batch.Flush()
}

func (f *inPlaceFiles) forward(ctx context.Context, tx ota.TxID, p *changes) error {
	s, err := f.switcher(ctx, tx, p)
	if err != nil {
		return err
	}
	err = s.secureAll(p)
	for i := 0; i < len(p.Changes) && err == nil; i++ {
		if err = s.put(&p.Changes[i]); err != nil {
			err = fmt.Errorf("%s: %w", p.Changes[i].Path, err)
		}
	}
	if err == nil {
		err = s.flush()
	}
	if err := errors.Join(err, s.close()); err != nil {
		return err
	}
	return f.switchMark(tx, p.Volumes[0].By, p.New.Mark)
}

// Revert puts back every entry that was switched, the last one first, with what
// it was: its content, mode, owner, attributes and times, because it is the
// same inode. It asks the spool for each, so that it can begin anywhere. Of c
// the name is enough.
func (f *inPlaceFiles) Revert(ctx context.Context, tx ota.TxID, c release.Component) error {
	if err := f.checkName(tx, c); err != nil {
		return err
	}
	f.dropSeeds()
	p, err := f.readChanges(tx, "plan")
	if err != nil {
		return err
	}
	if p != nil {
		if err := f.takeBack(ctx, tx, p); err != nil {
			return fmt.Errorf("cannot revert %s: %w", c.Name, explain(err))
		}
	}
	if err := f.dropAll(tx); err != nil {
		return err
	}
	return f.dropIndexes()
}

func (f *inPlaceFiles) takeBack(ctx context.Context, tx ota.TxID, p *changes) error {
	s, err := f.switcher(ctx, tx, p)
	if err != nil {
		return err
	}
	for i := len(p.Changes) - 1; i >= 0 && err == nil; i-- {
		if err = s.back(&p.Changes[i]); err != nil {
			err = fmt.Errorf("%s: %w", p.Changes[i].Path, err)
		}
	}
	if err == nil {
		err = s.times(p)
	}
	if err == nil {
		err = s.flush()
	}
	if err := errors.Join(err, s.close()); err != nil {
		return err
	}
	if err := f.switchMark(tx, p.Volumes[0].By, p.Old.Mark); err != nil {
		return err
	}
	// From here on there is nothing to take back: what has a path now is not
	// this transaction's. What is in the spool may not be what was staged.
	for _, name := range []string{"staged", "plan"} {
		if err := f.step("remove", f.txPath(tx, name)); err != nil {
			return err
		}
		if err := durable.Remove(f.txPath(tx, name)); err != nil {
			return err
		}
	}
	return nil
}

// markID returns which inode the mark is; zero for none.
func (f *inPlaceFiles) markID() (at.ID, error) {
	p, err := look(f.path(fileMark))
	if err != nil || !p.there {
		return at.ID{}, err
	}
	return p.info.ID, nil
}

func (f *inPlaceFiles) markIs(id at.ID) bool {
	now, err := f.markID()
	return err == nil && id != at.ID{} && now.Like(id)
}

// switchMark gives the mark's name to the inode want, zero for none. The other
// one is in the transaction's folder then.
func (f *inPlaceFiles) switchMark(tx ota.TxID, by way, want at.ID) error {
	now, err := f.markID()
	if err != nil {
		return err
	}
	if now.Like(want) { // perhaps since a call that was cut short
		return errors.Join(durable.SyncDir(f.path()), durable.SyncDir(f.txPath(tx)))
	}
	mark, spare := f.path(fileMark), f.txPath(tx, fileMark)
	if err := f.step("mark", mark); err != nil {
		return err
	}
	switch {
	case want == at.ID{}:
		return f.moveOwn(mark, spare)
	case now == at.ID{}:
		return f.moveOwn(spare, mark)
	case by == byExchange:
		return durable.Exchange(spare, mark)
	}
	return f.replaceMark(tx, want)
}

// replaceMark is switchMark where names cannot be exchanged: the mark that goes
// gets a second name in the transaction's folder first.
func (f *inPlaceFiles) replaceMark(tx ota.TxID, want at.ID) error {
	from, to := fileMark, fileMark+suffixOld
	if p, err := look(f.txPath(tx, from)); err != nil || !p.there || !p.info.Like(want) {
		from, to = to, from
	}
	spool, err := os.Open(f.path())
	if err != nil {
		return err
	}
	dir, err := os.Open(f.txPath(tx))
	if err != nil {
		return errors.Join(err, spool.Close())
	}
	err = durable.Remove(f.txPath(tx, to))
	if err == nil {
		err = durable.LinkAt(spool, fileMark, dir, to)
	}
	if err == nil {
		err = durable.SyncOpen(dir)
	}
	if err := errors.Join(err, dir.Close(), spool.Close()); err != nil {
		return err
	}
	if err := f.step("mark", f.path(fileMark)); err != nil {
		return err
	}
	return durable.Rename(f.txPath(tx, from), f.path(fileMark))
}
