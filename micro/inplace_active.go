//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// readChanges returns a record of tx, or nil where there is none that can be
// used. A damaged plan is an error: without it nothing can be put back.
func (f *inPlaceFiles) readChanges(tx ota.TxID, name string) (*changes, error) {
	return readChangesAt(f.txPath(tx, name), name == "plan")
}

func readChangesAt(path string, needed bool) (*changes, error) {
	cs := &changes{}
	err := readRecord(path, formatChanges, cs)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errDamaged) && !needed {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return cs, nil
}

// current returns what should be in effect, as the mark says, and the plans of
// the transactions that are open.
func (f *inPlaceFiles) current() (inPlace, map[ota.TxID]*changes, error) {
	var was inPlace
	plans := map[ota.TxID]*changes{}
	mark, err := f.markID()
	if err != nil {
		return was, nil, err
	}
	if err := readRecord(f.path("placed"), formatPlaced, &was); err != nil || was.Mark == (at.ID{}) || !was.Mark.Like(mark) {
		was = inPlace{Mark: mark}
	}
	names, err := f.listDir(dirTx)
	if err != nil {
		return was, nil, err
	}
	for _, name := range names {
		p, err := f.readChanges(ota.TxID(name), "plan")
		if err != nil {
			return was, nil, err
		}
		if p == nil || p.New.Mark.Like(mark) && !was.Digest.IsZero() {
			continue
		}
		if plans[ota.TxID(name)] = p; p.New.Mark.Like(mark) {
			was = p.New
		}
	}
	return was, plans, nil
}

// Active says what is in effect. The mark, one inode, says which release it
// should be. While a transaction is open, each of its entries has to be on the
// mark's side, which is asked of the spools; else the answer is [ota.Mixed].
// Without one, an entry whose inode is the one that was installed is evidence
// enough: one that is not was changed on the device, which Verify tells.
func (f *inPlaceFiles) Active(ctx context.Context, name string) (ota.Active, error) {
	if name != f.opts.Name {
		return ota.Active{}, fmt.Errorf("component %.80q came to the backend of %q", name, f.opts.Name)
	}
	was, plans, err := f.current()
	if err != nil {
		return ota.Active{}, err
	}
	tree, err := at.Open(f.opts.Root)
	if isGone(err) {
		return ota.Active{State: ota.None}, nil
	}
	if err != nil {
		return ota.Active{}, err
	}
	a, err := f.active(ctx, tree, was, plans)
	return a, errors.Join(err, tree.Close())
}

func (f *inPlaceFiles) active(ctx context.Context, tree *at.Tree, was inPlace, plans map[ota.TxID]*changes) (ota.Active, error) {
	mixed := ota.Active{State: ota.Mixed}
	for tx, p := range plans {
		want := sideOld
		if p.New.Mark.Like(was.Mark) {
			want = sideNew
		} else if !p.Old.Mark.Like(was.Mark) {
			continue
		}
		all, err := f.allOn(ctx, tx, p, want)
		if err != nil || !all {
			return mixed, err
		}
	}
	switch {
	case was.Digest.IsZero() && was.Mark == at.ID{}:
		return ota.Active{State: ota.None}, nil
	case was.Digest.IsZero():
		return mixed, nil
	}
	return f.evidence(ctx, tree, was)
}

// allOn reports whether all entries of a transaction are on one side.
func (f *inPlaceFiles) allOn(ctx context.Context, tx ota.TxID, p *changes, want side) (bool, error) {
	s, err := f.switcher(ctx, tx, p)
	if errors.Is(err, ErrForeign) || isGone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for i := range p.Changes {
		if err = ctx.Err(); err != nil {
			break
		}
		var is side
		if is, err = s.sideOf(&p.Changes[i], want); err != nil || is != want {
			return false, errors.Join(err, s.close())
		}
	}
	return err == nil, errors.Join(err, s.close())
}

// sideOf is side for folders too, whose metadata alone changes: they are on the
// side that want is not only if they are exactly as that says.
func (s *switcher) sideOf(ch *entryChange, want side) (side, error) {
	if ch.NewMeta == nil {
		return s.side(ch)
	}
	other, m := sideNew, ch.NewMeta
	if want == sideNew {
		other, m = sideOld, ch.OldMeta
	}
	if why, _, err := s.w.differs(s.tree, ch.Path, m.entry(ch.Path)); err != nil || why != "" {
		return want, err
	}
	return other, nil
}

// evidence looks for what the release put there.
func (f *inPlaceFiles) evidence(ctx context.Context, tree *at.Tree, was inPlace) (ota.Active, error) {
	whole := ota.Active{State: ota.Whole, Digest: was.Digest}
	some, wanted := false, false
	for _, p := range was.Entries {
		if err := ctx.Err(); err != nil {
			return ota.Active{}, err
		}
		if p.ID == (at.ID{}) || p.As != "" {
			continue
		}
		wanted = true
		info, err := tree.Stat(p.Path)
		if err != nil && !isGone(err) {
			return ota.Active{}, err
		}
		if err == nil && info.Like(p.ID) {
			return whole, nil
		}
		some = some || err == nil
	}
	switch {
	case !wanted:
		return whole, nil
	case !some:
		return ota.Active{State: ota.None}, nil
	}
	return f.compare(ctx, tree, was)
}

// compare is the slow way, for a root that was copied to another place: one
// entry with the content that was installed is evidence too.
func (f *inPlaceFiles) compare(ctx context.Context, tree *at.Tree, was inPlace) (ota.Active, error) {
	ix, err := f.storedIndex(was.Digest, was.Index)
	if err != nil {
		return ota.Active{State: ota.Mixed}, nil
	}
	w := f.newWorker(ctx, tree)
	for i := range ix.Entries {
		e := &ix.Entries[i]
		if e.Type != release.File && e.Type != release.Symlink {
			continue
		}
		if why, err := w.wrong(tree, e.Path, e); err == nil && why == "" {
			return ota.Active{State: ota.Whole, Digest: was.Digest}, nil
		}
		if err := ctx.Err(); err != nil {
			return ota.Active{}, err
		}
	}
	return ota.Active{State: ota.Mixed}, nil
}

// Commit writes down what the release put there, and keeps what was there
// before, if c.Keep.Previous asks for it and a release had put it there.
func (f *inPlaceFiles) Commit(ctx context.Context, tx ota.TxID, c release.Component) error {
	if err := f.check(tx, c); err != nil {
		return err
	}
	f.dropSeeds()
	p, err := f.readChanges(tx, "plan")
	if err != nil {
		return err
	}
	a, err := f.Active(ctx, c.Name)
	if err == nil && !a.Is(c.Digest()) {
		err = fmt.Errorf("cannot commit %s: it is not in effect: %w", c.Name, ota.ErrState)
	}
	if err != nil {
		return err
	}
	if p != nil && p.New.Digest == c.Digest() && f.markIs(p.New.Mark) {
		if err := f.writeReserved(tx, forState, f.path("placed"), formatPlaced, p.New); err != nil {
			return fmt.Errorf("cannot commit %s: %w", c.Name, err)
		}
		if c.Keep.Previous > 0 && !p.Old.Digest.IsZero() && p.Old.Digest != p.New.Digest {
			if err := f.keepOld(tx, p); err != nil {
				return fmt.Errorf("cannot commit %s: %w", c.Name, explain(err))
			}
		}
	}
	return f.dropAll(tx)
}

// keepOld moves what was there before to the kept sets: the spool of the
// records last, because they say which others there are.
func (f *inPlaceFiles) keepOld(tx ota.TxID, p *changes) error {
	d := p.Old.Digest
	if old, err := readChangesAt(f.path(dirKept, d.String(), "volumes"), false); err == nil && old != nil {
		others := slices.DeleteFunc(old.Volumes, func(v volume) bool {
			return slices.ContainsFunc(p.Volumes, func(w volume) bool { return w.Spool == v.Spool })
		})
		if err := f.dropVolumes(others, dirKept, d.String()); err != nil {
			return err
		}
	}
	for _, v := range slices.Backward(p.Volumes) {
		b := f.on(v)
		there, err := look(b.txPath(tx))
		if err != nil {
			return err
		}
		if !there.there {
			continue
		}
		if err := b.trash(b.keptPath(d), d.String()); err != nil {
			return err
		}
		if err := f.step("keep", b.keptPath(d)); err != nil {
			return err
		}
		if err := b.moveOwn(b.txPath(tx), b.keptPath(d)); err != nil {
			return err
		}
	}
	return nil
}

// dropAll drops what a transaction set aside, the records last.
func (f *inPlaceFiles) dropAll(tx ota.TxID) error { return f.dropSet(dirTx, string(tx)) }

func (f *inPlaceFiles) dropSet(dir, name string) error {
	cs, err := readChangesAt(f.path(dir, name, "volumes"), false)
	if err != nil {
		return err
	}
	if cs != nil && len(cs.Volumes) > 1 {
		if err := f.dropVolumes(cs.Volumes[1:], dir, name); err != nil {
			return err
		}
	}
	return f.trash(f.path(dir, name), name)
}

func (f *inPlaceFiles) dropVolumes(vols []volume, dir, name string) error {
	for _, v := range vols {
		b := f.on(v)
		if err := b.trash(b.path(dir, name), name); err != nil {
			return err
		}
	}
	return nil
}

// dropIndexes drops the indexes that nothing needs.
func (f *inPlaceFiles) dropIndexes() error {
	was, _, err := f.current()
	if err != nil {
		return err
	}
	return errors.Join(f.pruneIndexes(known{Digest: was.Digest}), f.pruneBases())
}

// Prune drops the kept sets that are not among keep, the transactions that are
// not among open, and the indexes that nothing needs any more. A set that holds
// what a kept release consists of stays with it.
func (f *inPlaceFiles) Prune(_ context.Context, name string, keep []release.Digest, open []ota.TxID) error {
	if name != f.opts.Name {
		return fmt.Errorf("component %.80q came to the backend of %q", name, f.opts.Name)
	}
	f.dropSeeds()
	if there, err := look(f.path()); err != nil || !there.there {
		return err
	}
	was, plans, err := f.current()
	if err != nil {
		return err
	}
	for tx, p := range plans {
		if p.New.Mark.Like(was.Mark) && !slices.Contains(open, tx) {
			if err := f.writeRecord(f.path("placed"), formatPlaced, p.New); err != nil {
				return err
			}
		}
	}
	txs, err := f.listDir(dirTx)
	if err != nil {
		return err
	}
	for _, n := range txs {
		if slices.Contains(open, ota.TxID(n)) {
			continue
		}
		if err := f.endCommit(ota.TxID(n), keep); err != nil {
			return err
		}
		if err := f.dropAll(ota.TxID(n)); err != nil {
			return err
		}
	}
	if err := f.pruneKept(keep); err != nil {
		return err
	}
	return errors.Join(f.dropIndexes(), f.sweep())
}

// endCommit ends a Commit that was cut short, and that nobody calls again: what
// was there before is kept if keep asks for it, else it leaves the spools that
// keep it already.
func (f *inPlaceFiles) endCommit(tx ota.TxID, keep []release.Digest) error {
	p, err := f.readChanges(tx, "plan")
	if err != nil || p == nil || !f.markIs(p.New.Mark) || p.Old.Digest.IsZero() || p.Old.Digest == p.New.Digest {
		return err
	}
	if slices.Contains(keep, p.Old.Digest) {
		return f.keepOld(tx, p)
	}
	return f.dropVolumes(p.Volumes[1:], dirKept, p.Old.Digest.String())
}

func (f *inPlaceFiles) pruneKept(keep []release.Digest) error {
	names, err := f.listDir(dirKept)
	if err != nil {
		return err
	}
	needed := f.neededBy(keep)
	for _, n := range names {
		d, err := release.ParseDigest(n)
		if err == nil && (slices.Contains(keep, d) || f.keptHolds(d, needed)) {
			continue
		}
		if err := f.dropSet(dirKept, n); err != nil {
			return err
		}
	}
	return nil
}

// neededBy returns the content of the kept releases.
func (f *inPlaceFiles) neededBy(keep []release.Digest) map[release.Blob]bool {
	all := map[release.Blob]bool{}
	for _, d := range keep {
		if ix, _, err := readIndexFile(f.indexPath(d)); err == nil {
			for _, b := range ix.Blobs() {
				all[b] = true
			}
		}
	}
	return all
}

// keptHolds reports whether the kept set d holds any of blobs.
func (f *inPlaceFiles) keptHolds(d release.Digest, blobs map[release.Blob]bool) bool {
	cs, err := readChangesAt(f.path(dirKept, d.String(), "plan"), false)
	ix, _, ixErr := readIndexFile(f.indexPath(d))
	if err != nil || cs == nil || ixErr != nil {
		return false
	}
	return slices.ContainsFunc(cs.Changes, func(ch entryChange) bool {
		e := ix.Find(ch.Path)
		return ch.Old != nil && e != nil && blobs[e.Blob]
	})
}

// CanRevert reports whether Revert would find all it needs. Where c is a name
// alone, a transaction that left nothing may have been committed, and the
// answer is no.
func (f *inPlaceFiles) CanRevert(ctx context.Context, tx ota.TxID, c release.Component) (bool, error) {
	if err := f.checkName(tx, c); err != nil {
		return false, err
	}
	was, plans, err := f.current()
	if err != nil {
		return false, err
	}
	p := plans[tx]
	if p == nil {
		s, err := f.readChanges(tx, "staged")
		return s != nil || c.Kind != "" && was.Digest != c.Digest(), err
	}
	sw, err := f.switcher(ctx, tx, p)
	if err != nil {
		return false, nil
	}
	for i := range p.Changes {
		var is side
		if is, err = sw.sideOf(&p.Changes[i], sideOld); err != nil || is == sideLost {
			return false, errors.Join(err, sw.close())
		}
	}
	return true, sw.close()
}
