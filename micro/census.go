//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// census compares what is there with what a release lists, and says what has
// to change. It changes nothing.
//
//	listed by the new release      right: nothing; a folder: its metadata; else exchanged
//	a folder above that is missing is made
//	to be absent                   taken away
//	only placed by the old one     taken away; a folder only when that empties it
//	anything else                  not looked at
type census struct {
	f         *inPlaceFiles
	ctx       context.Context
	w         *worker // on the root
	tree      *at.Tree
	opts      ComponentOptions
	old, next *release.Index
	was       map[string]placed
	own       map[string][]at.ID // put there by open transactions
	vols      *volumes

	wanted  map[string]*release.Entry
	as      map[string]string // how those of wanted are placed
	retain  map[string]bool   // placed paths that stay though nobody lists them
	holds   map[string]bool   // folders that will hold something wanted
	gone    map[string]bool
	folders map[string]int64

	merges map[string]*merging
	noted  map[string]localChange
	asOld  map[string]bool // what was looked at, and is as the old release listed it
	looks  bool            // only to say what would change

	removals, places, metas []entryChange
	entries                 []placed
	local                   LocalChangeError
	unmanaged               UnmanagedError
}

// localChange is what a census found out about a managed entry that was
// changed on the device.
type localChange struct {
	why     string
	refused string // why it stops the release; empty where it does not
}

// newCensus prepares a census of the root.
func (f *inPlaceFiles) newCensus(ctx context.Context, tree *at.Tree, opts ComponentOptions, was inPlace, plans map[ota.TxID]*changes, old, next *release.Index) (*census, error) {
	vols, err := f.newVolumes()
	c := &census{
		f: f, ctx: ctx, tree: tree, w: f.newWorker(ctx, tree), opts: opts, old: old, next: next, vols: vols,
		wanted: map[string]*release.Entry{}, as: map[string]string{}, retain: map[string]bool{},
		holds: map[string]bool{}, gone: map[string]bool{}, folders: map[string]int64{},
		merges: map[string]*merging{}, noted: map[string]localChange{}, asOld: map[string]bool{},
		local: LocalChangeError{Root: f.opts.Root}, unmanaged: UnmanagedError{Root: f.opts.Root},
	}
	c.was, c.own = placedBefore(was, plans, tree)
	return c, err
}

// run returns an error for what stops the release.
func (c *census) run() error {
	if err := c.count(); err != nil {
		return err
	}
	if len(c.local.Changes) > 0 {
		return &c.local
	}
	if len(c.unmanaged.Paths) > 0 {
		return &c.unmanaged
	}
	return nil
}

func (c *census) count() error {
	for _, step := range []func() error{c.list, c.judge, c.remove, c.placeAll} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// refuse notes a local change that stops the release.
func (c *census) refuse(p, why string) {
	c.noted[p] = localChange{why, why}
	c.local.add(p, why)
}

// hurdle is what Stage ends at. A census that only looks goes on.
func (c *census) hurdle(err error) error {
	if c.looks {
		return nil
	}
	return err
}

// list lists what is wanted, and the folders above it.
func (c *census) list() error {
	for i := range c.next.Entries {
		e := &c.next.Entries[i]
		if e.Type == release.Carry {
			continue
		}
		if c.f.isSpool(e.Path) {
			return fmt.Errorf("cannot install %s: it lies in the spool", e.Path)
		}
		if e.Type == release.Dir && os.Geteuid() != 0 && e.Mode&0o300 != 0o300 {
			return fmt.Errorf("%w: the release gives the folder %s mode %o, and only root can change what is in it", ErrReadOnly, e.Path, e.Mode)
		}
		c.wanted[e.Path] = e
	}
	for _, p := range slices.Sorted(maps.Keys(c.wanted)) {
		if c.wanted[p].Type == release.Absent {
			continue
		}
		if err := c.above(p); err != nil {
			return err
		}
	}
	return nil
}

// above sees to the folders above p: those that are missing are made.
func (c *census) above(p string) error {
	for p != "." {
		p = path.Dir(p)
		c.holds[p] = true
		if p == "." || c.wanted[p] != nil {
			continue
		}
		info, err := c.tree.Stat(p)
		w, placed := c.was[p]
		switch {
		case err == nil && info.IsDir() && w.As != asImplied:
			continue
		case err != nil && !isGone(err):
			return err
		case err == nil && !info.IsDir() && !placed:
			return fmt.Errorf("cannot install into %s: it is no folder; a symbolic link is not followed", c.tree.Name(p))
		}
		c.wanted[p], c.as[p] = impliedDir(p), asImplied
	}
	return nil
}

func impliedDir(p string) *release.Entry {
	return &release.Entry{Path: p, Type: release.Dir, Mode: 0o755, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
}

// changed says how the managed entry p was changed on the device.
func (c *census) changed(p string) (string, at.Info, error) {
	info, err := c.tree.Stat(p)
	there := err == nil
	if err != nil && !isGone(err) {
		return "", info, err
	}
	w, managed := c.was[p]
	e := find(c.old, p)
	switch {
	case !managed || e == nil || e.Type == release.Carry || w.As == asBeside || w.As == asImplied:
		return "", info, nil
	case there && slices.ContainsFunc(c.own[p], info.Like):
		return "", info, nil
	case e.Type == release.Absent && there:
		return "it should be absent", info, nil
	case e.Type == release.Absent:
		return "", info, nil
	}
	why, err := c.w.wrong(c.tree, p, e)
	c.asOld[p] = err == nil && why == ""
	return why, info, err
}

// judge finds the local changes among what is wanted.
func (c *census) judge() error {
	for _, p := range slices.Sorted(maps.Keys(c.wanted)) {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		why, info, err := c.changed(p)
		if err != nil {
			return err
		}
		if why == "" {
			continue
		}
		c.noted[p] = localChange{why: why}
		switch c.opts.of(p) {
		case Overwrite:
		case Keep:
			err = c.keep(p, why, info)
		case Merge:
			err = c.merge(p, why, info)
		default:
			c.refuse(p, why)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// keep has a local change stay.
func (c *census) keep(p, why string, info at.Info) error {
	e, old := c.wanted[p], find(c.old, p)
	folders := 0
	for _, is := range []bool{e.Type == release.Dir, old.Type == release.Dir, info.IsDir()} {
		if is {
			folders++
		}
	}
	if folders != 0 && folders != 3 {
		c.refuse(p, why+", and a folder cannot be kept in the place of something else")
		return nil
	}
	c.as[p] = asKept
	beside := p + suffixNew
	if folders == 3 || e.Type == release.Absent {
		return nil
	}
	if sameEntry(e, old) {
		c.retain[beside] = c.was[beside].As == asBeside
		return nil
	}
	if c.wanted[beside] != nil || release.CheckPath(beside) != nil {
		c.refuse(p, why+", and there is no name for the new one beside it")
		return nil
	}
	copied := *e
	copied.Path = beside
	c.wanted[beside], c.as[beside] = &copied, asBeside
	return nil
}

// remove takes away what is to be absent, and what only the old release
// placed: what lies in a folder before the folder.
func (c *census) remove() error {
	paths := map[string]bool{}
	for p := range c.was {
		if c.wanted[p] == nil {
			paths[p] = true
		}
	}
	for p, e := range c.wanted {
		if e.Type == release.Absent && c.as[p] != asKept {
			paths[p] = true
		}
	}
	sorted := slices.Sorted(maps.Keys(paths))
	for _, p := range slices.Backward(sorted) {
		if err := c.removeOne(p); err != nil {
			return fmt.Errorf("cannot remove %s: %w", c.tree.Name(p), err)
		}
	}
	return nil
}

func (c *census) removeOne(p string) error {
	why, info, err := c.changed(p)
	if err != nil {
		return err
	}
	now, err := c.tree.Stat(p)
	e := c.wanted[p]
	switch {
	case isGone(err) || p == ".":
		return nil
	case err != nil:
		return err
	case c.retain[p]:
		c.entries = append(c.entries, placed{p, info.ID, asBeside})
		return nil
	case e == nil && find(c.old, p) != nil && find(c.old, p).Type == release.Absent:
		return nil
	case e == nil && now.IsDir() && (c.holds[p] || !c.emptied(p, nil)):
		return nil
	case now.IsDir() && !c.emptied(p, &c.unmanaged):
		return nil
	}
	if e == nil && why != "" {
		c.noted[p] = localChange{why: why}
		switch c.opts.of(p) {
		case Keep, Merge:
			return nil
		case Refuse:
			c.refuse(p, why)
		}
	}
	ch, err := c.change(p, info, true)
	c.gone[p] = true
	ch.Over = c.opts.of(p) == Overwrite
	c.removals = append(c.removals, ch)
	return err
}

// emptied reports whether nothing will be left in the folder p, and lists in
// left what will be.
func (c *census) emptied(p string, left *UnmanagedError) bool {
	names, err := c.tree.ReadDir(p)
	if err != nil {
		return false
	}
	empty := true
	for _, name := range names {
		if q := path.Join(p, name); !c.gone[q] {
			if empty = false; left != nil {
				left.add(q)
			}
		}
	}
	return empty
}

// placeAll sees to what is wanted, parents first.
func (c *census) placeAll() error {
	for _, p := range slices.Sorted(maps.Keys(c.wanted)) {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.place(p, c.wanted[p]); err != nil {
			return fmt.Errorf("cannot install %s: %w", c.tree.Name(p), err)
		}
	}
	slices.SortFunc(c.entries, func(a, b placed) int { return strings.Compare(a.Path, b.Path) })
	return nil
}

func (c *census) place(p string, e *release.Entry) error {
	info, err := c.tree.Stat(p)
	there := err == nil
	if err != nil && !isGone(err) {
		return err
	}
	done := placed{Path: p, ID: info.ID, As: c.as[p]}
	switch {
	case e.Type == release.Absent && done.As != asKept:
		c.entries = append(c.entries, placed{Path: p})
		return nil
	case done.As == asKept:
		c.entries = append(c.entries, done)
		return nil
	case there && info.IsDir() && e.Type == release.Dir:
		c.entries = append(c.entries, done)
		return c.folder(p, e, info)
	}
	if c.asOld[p] && sameEntry(e, find(c.old, p)) {
		c.entries = append(c.entries, done)
		return nil
	}
	if c.merges[p] == nil {
		why, err := c.w.wrong(c.tree, p, e)
		if err != nil || why == "" {
			c.entries = append(c.entries, done)
			return err
		}
	}
	if there && info.IsDir() && !c.emptied(p, &c.unmanaged) {
		return nil
	}
	ch, err := c.change(p, info, there)
	ch.Over = c.opts.of(p) == Overwrite
	done.ID = at.ID{}
	c.places, c.entries = append(c.places, ch), append(c.entries, done)
	return err
}

// folder sees to the metadata of a folder that stays.
func (c *census) folder(p string, e *release.Entry, info at.Info) error {
	if c.as[p] == asImplied {
		return nil
	}
	why, _, err := c.w.differs(c.tree, p, e)
	if err != nil || why == "" {
		return err
	}
	list, err := c.tree.Xattrs(p, info, e.Xattrs)
	if err != nil {
		return err
	}
	err = c.tree.Writable(p)
	if info.Locked {
		err = errLocked
	}
	if err != nil && c.hurdle(err) != nil {
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	c.metas = append(c.metas, entryChange{
		Path: p, Old: stampOf(info), New: &info.ID,
		OldMeta: &meta{info.Perm(), info.UID, info.GID, list}, NewMeta: &meta{e.Mode, e.UID, e.GID, e.Xattrs},
	})
	return nil
}

// change looks at what stands against changing p, and begins the change.
func (c *census) change(p string, info at.Info, there bool) (entryChange, error) {
	ch := entryChange{Path: p}
	if there {
		ch.Old = stampOf(info)
	}
	dir := path.Dir(p)
	vol, err := c.vols.of(c.tree, dir)
	if err != nil {
		return ch, err
	}
	ch.Vol = vol
	if there && (info.MountRoot || !info.MountSaid && info.IsDir() && c.otherDevice(dir, info)) {
		return ch, c.hurdle(fmt.Errorf("%w: it is a mount point", ErrNoExchange))
	}
	if there && info.Locked {
		return ch, c.hurdle(fmt.Errorf("%w: %w", ErrReadOnly, errLocked))
	}
	return ch, c.hurdle(c.changeable(dir))
}

var errLocked = errors.New("it is immutable or append-only")

func (c *census) otherDevice(dir string, info at.Info) bool {
	above, err := c.tree.Stat(dir)
	return err == nil && above.Dev != info.Dev
}

// changeable checks that the entries of the folder dir can be changed, and
// notes its time. Of one that is to be made there is nothing to check.
func (c *census) changeable(dir string) error {
	if _, ok := c.folders[dir]; ok {
		return nil
	}
	info, err := c.tree.Stat(dir)
	if isGone(err) || err == nil && !info.IsDir() {
		return nil
	}
	if err == nil && info.Locked {
		err = errLocked
	}
	if err == nil {
		err = c.tree.Writable(dir)
	}
	if err != nil {
		return fmt.Errorf("%w: the folder %s: %w", ErrReadOnly, c.tree.Name(dir), err)
	}
	c.folders[dir] = info.Mtime
	return nil
}

// result puts together what the census found.
func (c *census) result() changes {
	cs := changes{Volumes: c.vols.all, Changes: slices.Concat(c.removals, c.places, c.metas)}
	cs.New.Entries = c.entries
	for _, p := range slices.Sorted(maps.Keys(c.folders)) {
		cs.Folders = append(cs.Folders, folderTime{p, c.folders[p]})
	}
	return cs
}
