//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"

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
	p, err := f.readChanges(tx, "plan")
	if err != nil {
		return err
	}
	if p == nil {
		if p, err = f.makePlan(tx, c); err != nil {
			return fmt.Errorf("cannot activate %s: %w", c.Name, err)
		}
	}
	if p == nil || f.markIs(p.New.Mark) {
		return f.isActive(ctx, c)
	}
	if err := f.forward(ctx, tx, p); err != nil {
		return fmt.Errorf("cannot activate %s: %w", c.Name, explain(err))
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
	err = f.again(tree, p)
	if err := errors.Join(err, tree.Close()); err != nil {
		return nil, err
	}
	return p, f.writeReserved(tx, forPlan, f.txPath(tx, "plan"), formatChanges, p)
}

// again finds out what changed since Stage.
func (f *inPlaceFiles) again(tree *at.Tree, p *changes) error {
	local := LocalChangeError{Root: f.opts.Root}
	for i := range p.Changes {
		ch := &p.Changes[i]
		info, err := tree.Stat(ch.Path)
		switch {
		case err != nil && !isGone(err):
			return err
		case err != nil && ch.Old == nil || err == nil && ch.Old != nil && ch.Old.is(info):
		case err == nil && ch.Over && !info.IsDir():
			ch.Old = stampOf(info)
		default:
			local.add(ch.Path, "since it was staged")
		}
	}
	for i := range p.Folders {
		if info, err := tree.Stat(p.Folders[i].Path); err == nil {
			p.Folders[i].Mtime = info.Mtime
		}
	}
	if len(local.Changes) > 0 {
		return &local
	}
	return nil
}

// switcher switches the entries of one transaction, either way.
type switcher struct {
	f      *inPlaceFiles
	ctx    context.Context
	tree   *at.Tree
	w      *worker
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
	return &switcher{f: f, ctx: ctx, tree: tree, w: f.newWorker(ctx, tree), stores: stores}, nil
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
	for i := range p.Changes {
		if err = s.put(&p.Changes[i]); err != nil {
			err = fmt.Errorf("%s: %w", p.Changes[i].Path, err)
			break
		}
	}
	if err == nil {
		err = s.flush()
	}
	if err := errors.Join(err, s.close()); err != nil {
		return err
	}
	return f.switchMark(tx, p.New.Mark)
}

// side is where an entry is. The spool alone says it: nobody else writes there.
type side int

const (
	sideOld  side = iota // nothing happened to it, or it was put back
	sideNew              // it was switched
	sideLost             // what was there is neither in its place nor in the spool
)

func (s *switcher) side(ch *entryChange) (side, error) {
	var spare at.Info
	err := os.ErrNotExist
	if st := s.stores[ch.Vol]; st != nil {
		spare, err = st.tree.Stat(nameInSpool(ch.Path))
	}
	if err != nil && !isGone(err) {
		return sideLost, err
	}
	there := err == nil
	switch {
	case there && ch.Old != nil && spare.Like(ch.Old.ID):
		return sideNew, nil
	case there && ch.New != nil && spare.Like(*ch.New):
		return sideOld, nil
	case ch.Old == nil:
		return sideNew, nil
	case ch.New == nil:
		return sideOld, nil
	}
	now, err := s.tree.Stat(ch.Path)
	if err == nil && now.Like(ch.Old.ID) {
		return sideOld, nil
	}
	if err != nil && !isGone(err) {
		return sideLost, err
	}
	return sideLost, nil
}

// put switches one entry to the new side.
func (s *switcher) put(ch *entryChange) error {
	if err := s.w.step("switch", ch.Path); err != nil {
		return err
	}
	if ch.NewMeta != nil {
		return s.setMeta(ch, ch.NewMeta)
	}
	is, err := s.side(ch)
	if err == nil && is == sideNew {
		return s.settle(ch)
	}
	if err != nil {
		return err
	}
	if is == sideLost {
		return fmt.Errorf("%w: %s", ErrForeign, s.tree.Name(ch.Path))
	}
	now, err := s.tree.Stat(ch.Path)
	switch {
	case err != nil && !isGone(err):
		return err
	case (err == nil) != (ch.Old != nil) || err == nil && !ch.Old.is(now):
		return fmt.Errorf("%w: it was changed while it was being replaced", ErrLocalChange)
	case err == nil && now.IsDir() && !s.isEmpty(ch.Path):
		return fmt.Errorf("%w: something was put into the folder", ErrLocalChange)
	}
	if ch.New != nil && !s.hasNew(ch) {
		return fmt.Errorf("it is not staged any more: %w", ota.ErrState)
	}
	return s.rename(ch, ch.Old != nil, ch.New != nil)
}

func (s *switcher) hasNew(ch *entryChange) bool {
	if s.stores[ch.Vol] == nil {
		return false
	}
	info, err := s.stores[ch.Vol].tree.Stat(nameInSpool(ch.Path))
	return err == nil && info.Like(*ch.New)
}

// impliedParents makes the folders above p that are missing, because somebody
// removed them.
func (w *worker) impliedParents(p string) error {
	dir := path.Dir(p)
	if _, err := w.tree.Stat(dir); dir == "." || !isGone(err) {
		return err
	}
	if err := w.impliedParents(dir); err != nil {
		return err
	}
	return w.mendDir(impliedDir(dir))
}

func (s *switcher) isEmpty(p string) bool {
	names, err := s.tree.ReadDir(p)
	return err == nil && len(names) == 0
}

// rename exchanges the entry with the one in the spool, or moves the only one
// of the two to the other place.
func (s *switcher) rename(ch *entryChange, atPlace, inSpool bool) error {
	st, name := s.stores[ch.Vol], nameInSpool(ch.Path)
	if st == nil {
		return fmt.Errorf("%w: %s has no folder of this transaction", ErrForeign, s.f.opts.Spool)
	}
	defer s.tree.Forget()
	dir, base, err := s.tree.Parent(ch.Path)
	if err != nil {
		return err
	}
	spool, _, err := st.tree.Parent(name)
	if err != nil {
		return err
	}
	switch {
	case atPlace && inSpool:
		return s.batch.Swap(dir, base, spool, name)
	case atPlace:
		return s.batch.Move(dir, base, spool, name)
	}
	return s.batch.Move(spool, name, dir, base)
}

// settle has the next flush make durable what an earlier call switched: that
// one may have failed, or been cut short, before it could.
func (s *switcher) settle(ch *entryChange) error {
	trees, paths := []*at.Tree{s.tree}, []string{ch.Path}
	if st := s.stores[ch.Vol]; st != nil {
		trees, paths = append(trees, st.tree), append(paths, nameInSpool(ch.Path))
	}
	for i, tree := range trees {
		dir, _, err := tree.Parent(paths[i])
		if err == nil {
			err = s.batch.Note(dir)
		}
		if err != nil && !isGone(err) {
			return err
		}
	}
	return nil
}

func (s *switcher) setMeta(ch *entryChange, m *meta) error {
	info, err := s.tree.Stat(ch.Path)
	if isGone(err) || err == nil && !info.Like(ch.Old.ID) {
		return fmt.Errorf("%w: %s", ErrForeign, s.tree.Name(ch.Path))
	}
	if err != nil {
		return err
	}
	why, _, err := s.w.differs(s.tree, ch.Path, m.entry(ch.Path))
	if err != nil {
		return err
	}
	dir, err := s.tree.OpenDir(ch.Path)
	if err != nil {
		return err
	}
	if why != "" {
		err = s.w.setFile(dir, m.entry(ch.Path))
	}
	return errors.Join(err, s.batch.Note(dir), dir.Close())
}

// back takes one entry to the old side, whatever was done to the new one.
func (s *switcher) back(ch *entryChange) error {
	if err := s.w.step("back", ch.Path); err != nil {
		return err
	}
	if ch.NewMeta != nil {
		return s.setMeta(ch, ch.OldMeta)
	}
	is, err := s.side(ch)
	if err == nil && is == sideOld {
		return s.settle(ch)
	}
	if err != nil {
		return err
	}
	if is == sideLost {
		return fmt.Errorf("%w: what %s was before is gone", ErrForeign, s.tree.Name(ch.Path))
	}
	_, err = s.tree.Stat(ch.Path)
	there := err == nil
	switch {
	case err != nil && !isGone(err):
		return err
	case !there && ch.Old == nil:
		return nil
	case !there:
		if err := s.w.impliedParents(ch.Path); err != nil {
			return err
		}
	}
	return s.rename(ch, there, ch.Old != nil)
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
	if err := f.switchMark(tx, p.Old.Mark); err != nil {
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

// times gives the folders their times back.
func (s *switcher) times(p *changes) error {
	for _, folder := range p.Folders {
		info, err := s.tree.Stat(folder.Path)
		if isGone(err) || err == nil && info.Mtime == folder.Mtime {
			continue
		}
		if err == nil {
			err = s.tree.SetMtime(folder.Path, folder.Mtime)
		}
		if err != nil && !errors.Is(err, os.ErrPermission) {
			return err
		}
		dir, base, err := s.tree.Parent(path.Join(folder.Path, "x"))
		if err != nil || base != "x" {
			return err
		}
		if err := s.batch.Note(dir); err != nil {
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
func (f *inPlaceFiles) switchMark(tx ota.TxID, want at.ID) error {
	now, err := f.markID()
	if err != nil {
		return err
	}
	if now.Like(want) {
		return durable.SyncDir(f.path())
	}
	mark, spare := f.path(fileMark), f.txPath(tx, fileMark)
	if err := f.step("mark", mark); err != nil {
		return err
	}
	switch {
	case want == at.ID{}:
		return durable.RenameNew(mark, spare)
	case now == at.ID{}:
		return durable.RenameNew(spare, mark)
	}
	return durable.Exchange(spare, mark)
}
