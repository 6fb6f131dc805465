//go:build linux

package micro

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// Activate gives the staged tree the root's name. Before that it writes down
// what is there and what will be; that record is all that Revert needs. After
// the exchange the carried paths follow, one rename each.
//
// Where there was no root, the staged tree gets the name only if it is still
// free.
func (f *treeFiles) Activate(ctx context.Context, tx ota.TxID, c release.Component) error {
	if err := f.check(tx, c); err != nil {
		return err
	}
	f.dropSeeds()
	defer f.parsed.letGo()
	root, err := f.root()
	if err != nil {
		return err
	}
	p, err := f.readPlan(tx)
	if err != nil {
		return err
	}
	if p != nil && root.is(&p.New) {
		if err := f.settle(tx); err != nil {
			return notActivated(c.Name, explain(err))
		}
		return f.moveForward(tx, p)
	}
	s, err := f.readStaged(tx)
	switch {
	case err != nil:
		return err
	case s == nil || s.Tree.Digest != c.Digest() || s.Same:
		return f.stillSame(ctx, c)
	}
	if p, err = f.makePlan(ctx, tx, s, root); err != nil {
		return notActivated(c.Name, err)
	}
	if err := f.exchange(tx, p); err != nil {
		return notActivated(c.Name, explain(err))
	}
	return f.moveForward(tx, p)
}

// stillSame is Activate where nothing was staged, because the root held the
// component already.
func (f *treeFiles) stillSame(ctx context.Context, c release.Component) error {
	a, err := f.Active(ctx, c.Name)
	if err == nil && !a.Is(c.Digest()) {
		err = fmt.Errorf("cannot activate %s: it is not staged: %w", c.Name, ota.ErrState)
	}
	return err
}

// makePlan looks at everything once more, because the app ran on since Stage,
// and writes the plan.
func (f *treeFiles) makePlan(ctx context.Context, tx ota.TxID, s *staged, root place) (*plan, error) {
	tree, err := look(f.treePath(tx))
	if err != nil || !tree.is(&s.Tree) {
		return nil, errors.Join(err, fmt.Errorf("the staged tree is not the one that was staged: %w", ota.ErrState))
	}
	next, err := f.storedIndex(s.Tree.Digest, s.Tree.Index)
	if err != nil {
		return nil, err
	}
	if err := f.gather(tx, root); err != nil {
		return nil, err
	}
	p := &plan{New: s.Tree}
	var live *at.Tree
	if root.there {
		was, err := f.installed(ctx, root)
		if err != nil {
			return nil, err
		}
		was.ID = root.info.ID
		p.Old = &was
		if live, err = at.Open(f.opts.Root); err != nil {
			return nil, err
		}
		defer func() { _ = live.Close() }()
	}
	if p.Moves, err = f.planMoves(ctx, tx, live, p, next); err != nil {
		return nil, err
	}
	return p, f.writeReserved(tx, forPlan, f.txPath(tx, "plan"), formatPlan, p)
}

func (f *treeFiles) planMoves(ctx context.Context, tx ota.TxID, live *at.Tree, p *plan, next *release.Index) ([]move, error) {
	var old *release.Index
	if p.Old != nil {
		old = f.oldIndex(ctx, *p.Old, nil)
	}
	all, err := readInodes(f.txPath(tx, "shared"), next, func(s *shared) bool { return !s.Own })
	if err != nil {
		return nil, err
	}
	s := newSurvey(ctx, live, old, next)
	s.leave = func(_ *release.Entry, i int) bool { return all[i] != seenFile{} }
	if err := s.run(); err != nil {
		return nil, err
	}
	if err := f.checkShared(ctx, tx, live, next, all); err != nil {
		return nil, err
	}
	return s.moves, f.tick(ctx, tx)
}

// checkShared looks at the files that the new tree shares, and finds out whether
// one was written to since Stage has verified it. all says what they were, by
// their places in next.
func (f *treeFiles) checkShared(ctx context.Context, tx ota.TxID, live *at.Tree, next *release.Index, all []seenFile) error {
	return inLanes(ctx, lanesFor(len(all)), len(all), func(ctx context.Context, _, from, to int) error {
		tree, err := at.Open(f.treePath(tx))
		if err != nil {
			return err
		}
		c := sharedCheck{worker: f.newWorker(ctx, tree)}
		if live != nil {
			if c.live, err = live.Again(); err != nil {
				return errors.Join(err, tree.Close())
			}
			defer func() { _ = c.live.Close() }()
		}
		for i := from; i < to && err == nil; i++ {
			if err = ctx.Err(); err == nil && all[i] != (seenFile{}) {
				err = c.file(&next.Entries[i], all[i])
			}
		}
		return errors.Join(err, tree.Close())
	})
}

// sharedCheck looks at shared files.
type sharedCheck struct {
	*worker          // on the new tree
	live    *at.Tree // the root, nil for none
}

// file looks at one that was as it was written down: by its name in the root, if it
// has one there, because something may be mounted on it. Reading it again is only
// needed where the inode says that something happened to it.
func (c *sharedCheck) file(e *release.Entry, was seenFile) error {
	if c.live != nil {
		info, err := c.live.Stat(e.Path)
		if err == nil {
			err = rooted(c.live, e.Path, info)
		}
		if err != nil && !isGone(err) {
			return err
		}
		if err == nil && was.is(info) && info.Size == e.Size {
			return nil
		}
	}
	info, err := c.tree.Stat(e.Path)
	if err != nil || was.is(info) && info.Size == e.Size {
		return err
	}
	why, err := c.wrong(c.tree, e.Path, e)
	if err == nil && why != "" {
		err = fmt.Errorf("%w: %s, since it was staged: %s", ErrChanged, e.Path, why)
	}
	return err
}

// wrong says what of path is not as e says, content included.
func (w *worker) wrong(tree *at.Tree, path string, e *release.Entry) (string, error) {
	if e == nil {
		return "the release does not list it", nil
	}
	why, _, err := w.differs(tree, path, e)
	if err != nil || why != "" || e.Type != release.File {
		return why, err
	}
	same, err := w.hasContent(tree, path, e.Blob)
	if err == nil && !same {
		why = "its content differs"
	}
	return why, err
}

func (f *treeFiles) exchange(tx ota.TxID, p *plan) error {
	if p.Old == nil {
		if err := f.step("name", f.opts.Root); err != nil {
			return err
		}
		return durable.RenameNew(f.treePath(tx), f.opts.Root)
	}
	if err := f.step("exchange", f.opts.Root); err != nil {
		return err
	}
	return durable.Exchange(f.treePath(tx), f.opts.Root)
}

// settle makes the exchange durable where an earlier call made it: that one may
// have failed, or been cut short, before it could.
func (f *treeFiles) settle(tx ota.TxID) error {
	return cmp.Or(durable.SyncDir(filepath.Dir(f.opts.Root)), durable.SyncDir(f.txPath(tx)))
}

// moveForward moves the carried paths from the old tree to the new one. Those
// that are there already stay.
func (f *treeFiles) moveForward(tx ota.TxID, p *plan) error {
	if p.Old == nil {
		return nil
	}
	return f.moveAll(f.treePath(tx), f.opts.Root, p.Moves, f.forward)
}

// moveBack moves them from the new tree to the old one.
func (f *treeFiles) moveBack(newTree, oldTree string, p *plan) error {
	return f.moveAll(newTree, oldTree, p.Moves, f.backward)
}

// gather brings the carried paths of other transactions, which could not be
// finished, to where the root is now, so that they go on with it.
func (f *treeFiles) gather(tx ota.TxID, root place) error {
	plans, err := f.plans()
	if err != nil {
		return err
	}
	for other, p := range plans {
		switch {
		case other == tx || p.Old == nil:
		case root.is(&p.New):
			err = f.moveForward(other, p)
		case root.is(p.Old):
			err = f.moveBack(f.treePath(other), f.opts.Root, p)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("cannot bring what transaction %s left: %w", other, err)
		}
	}
	return nil
}

func (f *treeFiles) moveAll(fromPath, toPath string, moves []move, one func(from, to *at.Tree, m *move) error) error {
	if len(moves) == 0 {
		return nil
	}
	from, err := at.Open(fromPath)
	if err != nil {
		return err
	}
	to, err := at.Open(toPath)
	if err != nil {
		return errors.Join(err, from.Close())
	}
	for i := range moves {
		if err = one(from, to, &moves[i]); err != nil {
			err = fmt.Errorf("cannot move the carried path %s: %w", moves[i].Path, explain(err))
			break
		}
	}
	return errors.Join(err, from.Close(), to.Close())
}

// forward moves one path to the new tree. Where both trees have it: the new
// one has what was moved, and an old process has made another in the old one;
// or a process has made one in the new tree before this could move the real
// one, which is an error.
func (f *treeFiles) forward(from, to *at.Tree, m *move) error {
	src, err := from.Stat(m.Path)
	if isGone(err) {
		return settleMove(from, to, m.Path)
	}
	if err != nil {
		return err
	}
	_, err = to.Stat(m.Path)
	switch {
	case err == nil && m.ID != nil && src.Like(*m.ID):
		return fmt.Errorf("something made %s while it was being switched; the app has to rest then", to.Name(m.Path))
	case err == nil:
		return nil
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	return f.moveOne(from, to, m.Path)
}

// backward moves one path to the old tree, with all that was done to it in the
// trial. Where both trees have it, what was there when the plan was made never
// left the old one; anything else there is what an old process made since.
func (f *treeFiles) backward(from, to *at.Tree, m *move) error {
	src, err := from.Stat(m.Path)
	if isGone(err) {
		return settleMove(from, to, m.Path)
	}
	if !m.Back {
		return nil
	}
	if err != nil {
		return err
	}
	dst, err := to.Stat(m.Path)
	switch {
	case err == nil && neverLeft(m, src, dst):
		return nil
	case err == nil:
		if err := f.step("remove", to.Name(m.Path)); err != nil {
			return err
		}
		if err := to.RemoveAll(m.Path); err != nil {
			return err
		}
	case errors.Is(err, os.ErrNotExist):
		if err := makeParents(to, m.Path); err != nil {
			return err
		}
	default:
		return err
	}
	return f.moveOne(from, to, m.Path)
}

// neverLeft reports that the old tree's own is the real one of two.
func neverLeft(m *move, src, dst at.Info) bool {
	if m.ID != nil {
		return dst.Like(*m.ID)
	}
	return dst.Birth != 0 && dst.Birth < src.Birth
}

// makeParents makes the folders above p that are missing, because somebody
// removed them: what the app wrote has to go somewhere.
func makeParents(t *at.Tree, p string) error {
	dir := path.Dir(p)
	if _, err := t.Stat(dir); dir == "." || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := makeParents(t, dir); err != nil {
		return err
	}
	return t.Mkdir(dir)
}

// settleMove makes a move durable that an earlier call made.
func settleMove(from, to *at.Tree, p string) error {
	if _, err := to.Stat(p); isGone(err) {
		return nil // nothing has the path
	}
	for _, tree := range []*at.Tree{to, from} {
		dir, _, err := tree.Parent(p)
		if err == nil {
			err = durable.SyncOpen(dir)
		}
		if err != nil && !isGone(err) {
			return err
		}
	}
	return nil
}

func (f *treeFiles) moveOne(from, to *at.Tree, p string) error {
	if err := f.step("move", to.Name(p)); err != nil {
		return err
	}
	a, base, err := from.Parent(p)
	if err != nil {
		return err
	}
	b, _, err := to.Parent(p)
	if err != nil {
		return err
	}
	err = durable.RenameNewAt(a, base, b, base)
	from.Forget()
	to.Forget()
	return err
}
