//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// Stage makes what c changes in the spools, one on each file system, and makes
// it durable. What is installed is read, never changed: every managed entry by
// content, so that local changes are found ([ErrLocalChange]). It refuses what
// would stop Activate.
func (f *inPlaceFiles) Stage(ctx context.Context, tx ota.TxID, c release.Component, content ota.Content) (ota.Effect, error) {
	if err := f.check(tx, c); err != nil {
		return "", err
	}
	opts, err := ParseOptions(c.Options)
	if err == nil {
		err = opts.checkScripts(c)
	}
	if err != nil {
		return "", notStaged(c.Name, err)
	}
	f.dropSeeds()
	defer f.dropSeeds()
	tree, err := f.openRoot()
	if err != nil {
		return "", err
	}
	p, err := f.readChanges(tx, "plan")
	if err == nil && p != nil {
		if f.markIs(p.New.Mark) {
			return f.effect(), tree.Close()
		}
		err = f.takeBack(ctx, tx, p)
	}
	if err == nil {
		err = f.stage(ctx, tx, c, opts, tree, content)
	}
	if err := errors.Join(err, tree.Close()); err != nil {
		return "", explain(err)
	}
	return f.effect(), nil
}

func (f *inPlaceFiles) stage(ctx context.Context, tx ota.TxID, c release.Component, opts ComponentOptions, tree *at.Tree, content ota.Content) error {
	if err := f.prepareSpool(string(tx)); err != nil {
		return fmt.Errorf("cannot prepare the spool: %w", err)
	}
	if err := f.sweep(); err != nil {
		return err
	}
	was, plans, err := f.current()
	if err != nil {
		return err
	}
	next, err := f.keepIndex(ctx, c, content)
	if err != nil {
		return err
	}
	if a, err := f.Active(ctx, c.Name); err == nil && a.Is(c.Digest()) {
		return f.writeRecord(f.txPath(tx, "staged"), formatChanges, changes{New: inPlace{Digest: was.Digest}, Same: true})
	}
	old := f.oldIndex(ctx, known{Digest: was.Digest, Index: was.Index}, content)
	n, err := f.newCensus(ctx, tree, opts, was, plans, old, next)
	if err != nil {
		return err
	}
	if before, err := f.readChanges(tx, "volumes"); err == nil && before != nil {
		for _, v := range before.Volumes {
			n.vols.add(v.Top)
		}
	}
	if err := n.run(); err != nil {
		return err
	}
	m, err := f.newMerger(ctx, tx, n, content)
	if err != nil {
		return err
	}
	if err = m.all(); err == nil {
		cs := n.result()
		cs.Old = inPlace{Digest: was.Digest, Index: was.Index, Mark: was.Mark}
		cs.New.Digest, cs.New.Index = c.Digest(), c.Index
		err = f.stageAll(ctx, tx, tree, &cs, next, m, content)
	}
	return errors.Join(err, m.close())
}

// placedBefore returns what the release in effect placed, and what open transactions
// did besides.
func placedBefore(was inPlace, plans map[ota.TxID]*changes, tree *at.Tree) (map[string]placed, map[string][]at.ID) {
	all, own := map[string]placed{}, map[string][]at.ID{}
	for _, p := range was.Entries {
		all[p.Path] = p
	}
	for _, cs := range plans {
		for _, p := range cs.New.Entries {
			if p.ID == (at.ID{}) || p.local() {
				continue
			}
			own[p.Path] = append(own[p.Path], p.ID)
			if info, err := tree.Stat(p.Path); err == nil && info.Like(p.ID) && all[p.Path].Path == "" {
				all[p.Path] = placed{p.Path, p.ID, p.As}
			}
		}
	}
	return all, own
}

// maker makes the new entries in the spools.
type maker struct {
	f      *inPlaceFiles
	ctx    context.Context
	cs     *changes
	next   *release.Index
	stores []*store
	need   map[release.Digest][]*entryChange
	order  []release.Blob
	names  []map[string]bool // what each store is to hold
	wrote  map[*entryChange]bool
	merger *merger // nil where nothing is ever merged
}

func (f *inPlaceFiles) stageAll(ctx context.Context, tx ota.TxID, tree *at.Tree, cs *changes, next *release.Index, merger *merger, content ota.Content) error {
	stores, err := f.prepareStores(ctx, tx, cs.Volumes)
	defer func() { closeStores(stores) }()
	if err != nil {
		return err
	}
	m := maker{f: f, ctx: ctx, cs: cs, next: next, stores: stores, need: map[release.Digest][]*entryChange{}, wrote: map[*entryChange]bool{}, merger: merger}
	m.names = make([]map[string]bool, len(stores))
	for i := range m.names {
		m.names[i] = map[string]bool{}
	}
	if err := m.all(content); err != nil {
		return err
	}
	if err := m.stamp(); err != nil {
		return err
	}
	if err := merger.finish(&m); err != nil {
		return err
	}
	if err := m.prepareOld(tree); err != nil {
		return err
	}
	return f.finishStage(tx, cs, stores)
}

// prepareOld sees to what will leave its place.
func (m *maker) prepareOld(tree *at.Tree) error {
	s := switcher{f: m.f, ctx: m.ctx, tree: tree, w: m.f.newWorker(m.ctx, tree), vols: m.cs.Volumes, stores: m.stores}
	for i := range m.cs.Changes {
		ch := &m.cs.Changes[i]
		if err := s.prepareOld(ch); err != nil {
			return errors.Join(notStaged(ch.Path, err), s.batch.Close())
		}
	}
	return s.batch.Close()
}

// finishStage makes the mark, sets aside the room of the records, makes all of
// it durable and then says so.
func (f *inPlaceFiles) finishStage(tx ota.TxID, cs *changes, stores []*store) error {
	mark := f.txPath(tx, fileMark)
	if err := os.Remove(mark); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(mark, []byte(cs.New.Digest.String()+"\n"), 0o600); err != nil {
		return err
	}
	info, err := at.Lstat(mark)
	if err != nil {
		return err
	}
	cs.New.Mark = info.ID
	if err := f.reserve(tx, reserveBytes+400*(len(cs.Changes)+len(cs.New.Entries))); err != nil {
		return err
	}
	// The record lies beside its name while all else becomes durable, so that its
	// name is all that is left to do.
	staged, temp := f.txPath(tx, "staged"), f.txPath(tx, tempPrefix+"staged")
	data, err := encodeRecord(staged, formatChanges, cs)
	if err == nil {
		err = explain(os.WriteFile(temp, data, 0o600))
	}
	if err != nil {
		return err
	}
	settleForks()
	for _, s := range stores {
		if err := s.sync(); errors.Is(err, durable.ErrSync) {
			// What is on the disk is unknown now: the next Stage builds anew.
			return errors.Join(explain(err), f.forgetIndex(cs.New.Digest), f.dropAll(tx))
		} else if err != nil {
			return err
		}
	}
	if err := f.step("write", staged); err != nil {
		return err
	}
	return explain(durable.Rename(temp, staged))
}

func (m *maker) all(content ota.Content) error {
	for i := range m.cs.Changes {
		ch := &m.cs.Changes[i]
		if err := m.one(ch); err != nil {
			return notStaged(ch.Path, err)
		}
	}
	for i, s := range m.stores {
		if err := m.clean(s, m.names[i]); err != nil {
			return err
		}
	}
	if len(m.order) == 0 {
		return nil
	}
	if err := content.Each(m.ctx, m.order, m.put); err != nil {
		return notStaged(m.f.opts.Name, err)
	}
	return m.copies()
}

// entry returns what a change installs: nil where it only takes away.
func (m *maker) entry(ch *entryChange) *release.Entry {
	as := ""
	if p := m.placedAt(ch.Path); p != nil {
		as = p.As
	}
	switch {
	case ch.NewMeta != nil:
		return nil
	case as == asImplied:
		return impliedDir(ch.Path)
	case as == asMerged:
		return &m.merger.c.merges[ch.Path].entry
	case as == asBeside:
		e := *m.next.Find(ch.Path[:len(ch.Path)-len(suffixNew)])
		e.Path = ch.Path
		return &e
	}
	if e := m.next.Find(ch.Path); e != nil && e.Type != release.Absent && e.Type != release.Carry {
		return e
	}
	return nil
}

// one makes what a change installs, except content that is not here.
func (m *maker) one(ch *entryChange) error {
	e := m.entry(ch)
	if e == nil {
		return nil
	}
	s, name := m.stores[ch.Vol], nameInSpool(ch.Path)
	m.names[ch.Vol][name] = true
	if s.vol.Loose {
		if err := s.tryKeep(e); err != nil {
			return err
		}
	}
	if why, err := s.wrong(s.tree, name, e); err != nil || why == "" {
		return err
	}
	if err := s.step("remove", name); err != nil {
		return err
	}
	if err := s.tree.RemoveAll(name); err != nil {
		return err
	}
	switch {
	case e.Type == release.Symlink:
		return s.symlink(name, e)
	case m.isMerged(ch):
		return m.fromMerge(ch)
	case e.Type == release.Dir:
		if err := s.step("mkdir", name); err != nil {
			return err
		}
		if err := s.tree.Mkdir(name); err != nil {
			return err
		}
		return s.setDir(name, e)
	}
	if m.need[e.Digest] == nil {
		m.order = append(m.order, e.Blob)
	}
	m.need[e.Digest] = append(m.need[e.Digest], ch)
	return nil
}

// clean removes what an earlier try left in a store and nobody needs.
func (m *maker) clean(s *store, names map[string]bool) error {
	there, err := s.tree.ReadDir(".")
	for _, name := range there {
		if !names[name] && err == nil {
			err = s.tree.RemoveAll(name)
		}
	}
	return err
}

// put writes the first entry that has the content b.
func (m *maker) put(b release.Blob, r io.Reader) error {
	if len(m.need[b.Digest]) == 0 {
		return fmt.Errorf("got %s, which was not asked for", b.Digest.Short())
	}
	ch := m.need[b.Digest][0]
	if m.wrote[ch] {
		return nil
	}
	if err := m.stores[ch.Vol].write(nameInSpool(ch.Path), m.entry(ch), r); err != nil {
		return err
	}
	m.wrote[ch] = true
	return nil
}

// copies makes the further entries with the same content.
func (m *maker) copies() error {
	for _, b := range m.order {
		first := m.need[b.Digest][0]
		if !m.wrote[first] {
			return fmt.Errorf("cannot stage %s: its content %s did not come", first.Path, b.Digest.Short())
		}
		for _, ch := range m.need[b.Digest][1:] {
			if err := m.copyOne(first, ch); err != nil {
				return notStaged(ch.Path, err)
			}
		}
	}
	return nil
}

func (m *maker) copyOne(from, to *entryChange) error {
	in, err := m.stores[from.Vol].tree.OpenFile(nameInSpool(from.Path))
	if err != nil {
		return err
	}
	done, err := m.stores[to.Vol].copyFrom(nameInSpool(to.Path), m.entry(to), in)
	if err = errors.Join(err, in.Close()); err == nil && !done {
		err = ota.ErrDigest
	}
	return err
}

// stamp notes which inodes were made.
func (m *maker) stamp() error {
	for i := range m.cs.Changes {
		ch := &m.cs.Changes[i]
		if m.entry(ch) == nil {
			continue
		}
		info, err := m.stores[ch.Vol].tree.Stat(nameInSpool(ch.Path))
		if err != nil {
			return err
		}
		ch.New = &info.ID
		ch.Away = m.stores[ch.Vol].vol.By != byExchange && ch.Old != nil && (ch.Old.Dir || info.IsDir())
		if p := m.placedAt(ch.Path); p != nil {
			p.ID = info.ID
		}
	}
	return nil
}

// placedAt returns the placed path p, or nil.
func (m *maker) placedAt(p string) *placed {
	all := m.cs.New.Entries
	i, ok := slices.BinarySearchFunc(all, p, func(e placed, p string) int { return strings.Compare(e.Path, p) })
	if !ok {
		return nil
	}
	return &all[i]
}
