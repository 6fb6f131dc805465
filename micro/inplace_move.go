//go:build linux

package micro

import (
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
)

// side is where an entry is. The spool says it: nobody else writes there.
type side int

const (
	sideOld  side = iota // nothing happened to it, or it was put back
	sideHalf             // the old entry has left and the new one has not come
	sideNew              // it was switched
	sideLost             // what was there is neither in its place nor in the spool
)

func (s *switcher) vol(ch *entryChange) volume { return s.vols[ch.Vol] }

// inSpool looks at a name in the entry's store.
func (s *switcher) inSpool(ch *entryChange, name string) (at.Info, bool, error) {
	st := s.stores[ch.Vol]
	if st == nil {
		return at.Info{}, false, nil
	}
	info, err := st.tree.Stat(name)
	if isGone(err) {
		return info, false, nil
	}
	return info, err == nil, err
}

func (s *switcher) side(ch *entryChange) (side, error) {
	if s.vol(ch).By != byExchange {
		return s.sideByNames(ch)
	}
	spare, there, err := s.inSpool(ch, nameInSpool(ch.Path))
	switch {
	case err != nil:
		return sideLost, err
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

// sideByNames is side where the old entry has a name of its own in the spool.
//
//	old  new   in the spool: new   old
//	 -    x          x        -         not switched
//	 -    x          -        -         switched
//	 x    -          -        -         not switched
//	 x    -          -        x         switched
//	 x    x          x        -         not switched, and not ready
//	 x    x          x        x         not switched, or half where it has to leave first
//	 x    x          -        x         switched
//	 x    x          -        -         put back
func (s *switcher) sideByNames(ch *entryChange) (side, error) {
	_, hasNew, err := s.inSpool(ch, nameInSpool(ch.Path))
	if err != nil {
		return sideLost, err
	}
	_, hasOld, err := s.inSpool(ch, s.vol(ch).oldName(ch.Path))
	switch {
	case err != nil:
		return sideLost, err
	case ch.Old == nil && !hasNew, hasOld && !hasNew:
		return sideNew, nil
	case hasOld && ch.Away:
		return sideHalf, nil
	case ch.Old == nil, ch.New == nil, hasNew:
		return sideOld, nil
	}
	_, err = s.tree.Stat(ch.Path)
	if isGone(err) {
		return sideLost, nil
	}
	return sideOld, err
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
	switch {
	case err != nil:
		return err
	case is == sideNew:
		return s.settle(ch)
	case is == sideLost:
		return fmt.Errorf("%w: %s", ErrForeign, s.tree.Name(ch.Path))
	}
	now, err := s.tree.Stat(ch.Path)
	there := err == nil
	switch {
	case err != nil && !isGone(err):
		return err
	case there != (ch.Old != nil && is == sideOld) || there && !ch.Old.is(now, s.vol(ch)):
		return fmt.Errorf("%w: it was changed while it was being replaced", ErrLocalChange)
	case there && now.IsDir() && !s.isEmpty(ch.Path):
		return fmt.Errorf("%w: something was put into the folder", ErrLocalChange)
	}
	if ch.New != nil && !s.hasNew(ch) {
		return fmt.Errorf("it is not staged any more: %w", ota.ErrState)
	}
	if s.vol(ch).By != byExchange {
		return s.replace(ch, there)
	}
	return s.rename(ch, ch.Old != nil, ch.New != nil)
}

func (s *switcher) hasNew(ch *entryChange) bool {
	info, there, err := s.inSpool(ch, nameInSpool(ch.Path))
	return err == nil && there && (s.vol(ch).Loose || info.Like(*ch.New))
}

func (s *switcher) isEmpty(p string) bool {
	names, err := s.tree.ReadDir(p)
	return err == nil && len(names) == 0
}

// between calls move with the folder of the entry and its last name, and the
// store.
func (s *switcher) between(ch *entryChange, move func(place *os.File, base string, spool *os.File) error) error {
	st := s.stores[ch.Vol]
	if st == nil {
		return fmt.Errorf("%w: %s has no folder of this transaction", ErrForeign, s.f.opts.Spool)
	}
	defer s.tree.Forget()
	dir, base, err := s.tree.Parent(ch.Path)
	if err != nil {
		return err
	}
	spool, _, err := st.tree.Parent("x")
	if err != nil {
		return err
	}
	return move(dir, base, spool)
}

// rename exchanges the entry with the one in the spool, or moves the only one
// of the two to the other place.
func (s *switcher) rename(ch *entryChange, atPlace, inSpool bool) error {
	name := nameInSpool(ch.Path)
	return s.between(ch, func(dir *os.File, base string, spool *os.File) error {
		switch {
		case atPlace && inSpool:
			return s.batch.Swap(dir, base, spool, name)
		case atPlace:
			return s.batch.Move(dir, base, spool, name)
		}
		return s.batch.Move(spool, name, dir, base)
	})
}

// replace is put where the old entry has a name of its own in the spool. It was
// looked at: a name that has to be free is.
func (s *switcher) replace(ch *entryChange, there bool) error {
	name, old := nameInSpool(ch.Path), s.vol(ch).oldName(ch.Path)
	return s.between(ch, func(dir *os.File, base string, spool *os.File) error {
		if there && (ch.New == nil || ch.Away) {
			if err := s.batch.Replace(dir, base, spool, old); err != nil || ch.New == nil {
				return err
			}
			if err := s.flush(); err != nil { // else the new one could come without the old one having left
				return err
			}
			if err := s.w.step("switch half", ch.Path); err != nil {
				return err
			}
		}
		return s.batch.Replace(spool, name, dir, base)
	})
}

// restore is back where the old entry has a name of its own in the spool. What
// is in its place is replaced, or leaves first where it cannot be.
func (s *switcher) restore(ch *entryChange, there bool) error {
	name, old := nameInSpool(ch.Path), s.vol(ch).oldName(ch.Path)
	over := false
	if there && ch.Old != nil && !ch.Old.Dir {
		now, err := s.tree.Stat(ch.Path)
		if err != nil {
			return err
		}
		over = !now.IsDir()
	}
	return s.between(ch, func(dir *os.File, base string, spool *os.File) error {
		if there && !over {
			if err := s.stores[ch.Vol].tree.RemoveAll(name); err != nil {
				return err
			}
			if err := s.batch.Replace(dir, base, spool, name); err != nil || ch.Old == nil {
				return err
			}
			if err := s.flush(); err != nil {
				return err
			}
			if err := s.w.step("back half", ch.Path); err != nil {
				return err
			}
		}
		return s.batch.Replace(spool, old, dir, base)
	})
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
	if isGone(err) || err == nil && (!info.IsDir() || !s.vol(ch).Loose && !info.Like(ch.Old.ID)) {
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
	switch {
	case err != nil:
		return err
	case is == sideOld:
		return s.settle(ch)
	case is == sideLost:
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
	if s.vol(ch).By != byExchange {
		return s.restore(ch, there)
	}
	return s.rename(ch, there, ch.Old != nil)
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
