//go:build linux

package micro

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// maxMerge bounds the files that are merged, and what becomes of them.
const maxMerge = 16 << 20

// asMerged is a local change that was merged with what the release changed.
const asMerged = "merged"

// dirBase holds, by digest, the release's own version of files whose policy is
// Merge: a local change may be all that is left of it elsewhere.
const dirBase = "base"

// merging is one file whose local change does not simply stay or go.
type merging struct {
	local  release.Blob // what is there
	script string       // empty where the release changes only the metadata
	entry  release.Entry
}

// merge has a local change be merged with what the release changes. What is
// not a file on all sides, or a very large one, is kept.
func (c *census) merge(p, why string, info at.Info) error {
	e, old := c.wanted[p], find(c.old, p)
	files := e.Type == release.File && old.Type == release.File && info.IsFile()
	if !files || sameEntry(e, old) || max(e.Size, info.Size) > maxMerge {
		return c.keep(p, why, info)
	}
	now, err := c.w.blobOf(c.tree, p)
	if err != nil || now == old.Blob || now == e.Blob {
		return err // there is nothing of its own in it
	}
	m := &merging{local: now}
	if e.Blob != old.Blob {
		m.script = c.opts.rule(p).Script
	}
	c.as[p], c.merges[p] = asMerged, m
	return nil
}

// checkScripts finds a script that the component does not have.
func (o *ComponentOptions) checkScripts(c release.Component) error {
	for i, p := range o.Paths {
		has := func(s release.Script) bool { return s.Name == p.Script && s.At == release.OnMerge }
		if p.LocalChanges == Merge && !slices.ContainsFunc(c.Scripts, has) {
			return fmt.Errorf("option paths[%d].script: the component has no script %.40q with the point %s", i, p.Script, release.OnMerge)
		}
	}
	return nil
}

// merges reports whether any rule asks for a merge.
func (o *ComponentOptions) merges() bool {
	return slices.ContainsFunc(o.Paths, func(p PathPolicy) bool { return p.LocalChanges == Merge })
}

// merger merges files in a folder of the transaction, one folder for each.
type merger struct {
	f       *inPlaceFiles
	c       *census
	dir     string
	w       *worker // on dir
	bases   *worker // on the release's own versions
	content ota.Content
}

// The names of a file in its folder.
const (
	mergeBase  = "base"
	mergeLocal = "local"
	mergeNew   = "new"
	mergeOut   = "merged"
)

// newMerger returns nil where nothing is ever merged.
func (f *inPlaceFiles) newMerger(ctx context.Context, tx ota.TxID, c *census, content ota.Content) (*merger, error) {
	if !c.opts.merges() {
		return nil, nil
	}
	dir := f.txPath(tx, "merge")
	if err := f.step("mkdir", dir); err != nil {
		return nil, err
	}
	if err := placeSpool(dir, f.path(dirBase)); err != nil {
		return nil, err
	}
	tree, err := at.Open(dir)
	if err != nil {
		return nil, err
	}
	bases, err := at.Open(f.path(dirBase))
	if err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	return &merger{f, c, dir, f.newWorker(ctx, tree), f.newWorker(ctx, bases), content}, nil
}

func (m *merger) close() error {
	if m == nil {
		return nil
	}
	return errors.Join(m.w.tree.Close(), m.bases.tree.Close())
}

// all merges what the census found. Afterwards the entry of each is what is to
// be installed, and its content lies in the transaction's folder.
func (m *merger) all() error {
	if m == nil {
		return nil
	}
	for i := range m.c.entries {
		p := &m.c.entries[i]
		task := m.c.merges[p.Path]
		if task == nil {
			continue
		}
		if err := m.one(p.Path, m.c.wanted[p.Path], task); err != nil {
			return err
		}
		if task.entry.Blob == m.c.wanted[p.Path].Blob {
			p.As = "" // nothing of its own is left in it
		}
	}
	m.f.dropSeeds() // there are more now
	return nil
}

func (m *merger) one(p string, e *release.Entry, task *merging) error {
	dir := nameInSpool(p)
	if err := m.w.step("merge", p); err != nil {
		return err
	}
	if err := m.w.tree.RemoveAll(dir); err != nil {
		return err
	}
	if err := m.w.tree.Mkdir(dir); err != nil {
		return explain(err)
	}
	in, err := m.c.tree.OpenFile(p)
	if err != nil {
		return err
	}
	same, err := m.w.copyFrom(filepath.Join(dir, mergeLocal), private(p, task.local), in)
	if err := errors.Join(err, in.Close()); err != nil {
		return fmt.Errorf("cannot merge %s: %w", p, err)
	}
	if !same {
		return m.refusal(p, "it was changed while it was staged", nil)
	}
	task.entry = *e
	if task.entry.Blob = task.local; task.script != "" {
		task.entry.Blob, err = m.run(p, dir, e.Blob, task.script)
	}
	return err
}

// private is a file of ours with the content b.
func private(p string, b release.Blob) *release.Entry {
	return &release.Entry{Path: p, Type: release.File, Mode: 0o600, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Blob: b}
}

func (m *merger) refusal(p, why string, cause error) error {
	return &LocalChangeError{Root: m.f.opts.Root, Changes: []LocalChange{{p, why}}, cause: cause}
}

// run runs the script and returns what it made. Nothing of it is believed but
// its exit code: what it made is data of the device, as the local change is.
func (m *merger) run(p, dir string, b release.Blob, script string) (release.Blob, error) {
	scripter, ok := m.content.(ota.Scripter)
	if !ok {
		return release.Blob{}, fmt.Errorf("cannot merge %s: no script can be run here", p)
	}
	if err := m.bring(filepath.Join(dir, mergeNew), p, b); err != nil {
		return release.Blob{}, fmt.Errorf("cannot merge %s: %w", p, err)
	}
	full := func(name string) string { return filepath.Join(m.dir, dir, name) }
	base := full(mergeBase)
	if err := m.bring(filepath.Join(dir, mergeBase), p, find(m.c.old, p).Blob); err != nil {
		if errors.Is(err, ota.ErrNoSpace) || m.w.ctx.Err() != nil {
			return release.Blob{}, err
		}
		base = ""
	}
	err := scripter.Script(m.w.ctx, script, "PAWL_MERGE_PATH="+p, "PAWL_MERGE_BASE="+base,
		"PAWL_MERGE_LOCAL="+full(mergeLocal), "PAWL_MERGE_NEW="+full(mergeNew), "PAWL_MERGE_OUT="+full(mergeOut))
	switch {
	case err != nil && (errors.Is(err, ota.ErrLater) || m.w.ctx.Err() != nil):
		return release.Blob{}, fmt.Errorf("cannot merge %s: %w", p, err)
	case err != nil:
		return release.Blob{}, m.refusal(p, fmt.Sprintf("the script %s did not merge it: %v", script, err), err)
	}
	out, err := m.made(filepath.Join(dir, mergeOut))
	if err != nil {
		return out, m.refusal(p, fmt.Sprintf("the script %s made nothing of it that can be used: %v", script, err), nil)
	}
	return out, nil
}

// made looks at what a script made.
func (m *merger) made(name string) (release.Blob, error) {
	info, err := m.w.tree.Stat(name)
	switch {
	case isGone(err):
		return release.Blob{}, errors.New("there is no file PAWL_MERGE_OUT")
	case err != nil:
		return release.Blob{}, err
	case !info.IsFile():
		return release.Blob{}, errors.New("PAWL_MERGE_OUT is not a regular file")
	case info.Size > maxMerge:
		return release.Blob{}, fmt.Errorf("PAWL_MERGE_OUT has %d bytes, more than %d", info.Size, maxMerge)
	}
	return m.w.blobOf(m.w.tree, name)
}

// bring makes the file name with the content b, which a release has at the
// path p.
func (m *merger) bring(name, p string, b release.Blob) error {
	if err := m.keep(p, b); err != nil {
		return err
	}
	in, err := m.bases.tree.OpenFile(b.Digest.String())
	if err != nil {
		return err
	}
	return mustCopy(m.w, name, private(p, b), in)
}

// mustCopy makes the file name out of in, which it closes.
func mustCopy(w *worker, name string, e *release.Entry, in *os.File) error {
	done, err := w.copyFrom(name, e, in)
	if err = errors.Join(err, in.Close()); err == nil && !done {
		err = ota.ErrDigest
	}
	return err
}

// keep keeps the content b of the path p as a release's own version: out of one
// of the files from, or else as it comes.
func (m *merger) keep(p string, b release.Blob, from ...func() (*os.File, error)) error {
	name := b.Digest.String()
	if same, err := m.bases.hasContent(m.bases.tree, name, b); err == nil && same {
		return nil
	}
	if err := m.bases.tree.RemoveAll(name); err != nil {
		return err
	}
	for _, open := range from {
		in, err := open()
		if err != nil {
			continue
		}
		done, err := m.bases.copyFrom(name, private(p, b), in)
		if err = errors.Join(err, in.Close()); err != nil || done {
			return err
		}
	}
	r, err := m.content.Open(m.bases.ctx, b)
	if err != nil {
		return err
	}
	return errors.Join(m.bases.write(name, private(p, b), r), r.Close())
}

// local reports whether what is placed is a local change, as it was or merged.
func (p placed) local() bool { return p.As == asKept || p.As == asMerged }

func (m *maker) isMerged(ch *entryChange) bool {
	p := m.placedAt(ch.Path)
	return p != nil && p.As == asMerged
}

// fromMerge makes the entry of a change out of what was merged.
func (m *maker) fromMerge(ch *entryChange) error {
	task := m.merger.c.merges[ch.Path]
	name := mergeLocal
	if task.script != "" {
		name = mergeOut
	}
	in, err := m.merger.w.tree.OpenFile(filepath.Join(nameInSpool(ch.Path), name))
	if err != nil {
		return err
	}
	return mustCopy(m.stores[ch.Vol].worker, nameInSpool(ch.Path), &task.entry, in)
}

// finish keeps the release's own version of every file that may have to be
// merged with a later one, and drops what only the scripts needed. A version
// that cannot be had is a base less for a later merge, no reason to fail.
func (m *merger) finish(made *maker) error {
	if m == nil {
		return nil
	}
	staged := map[string]*entryChange{}
	for i := range made.cs.Changes {
		staged[made.cs.Changes[i].Path] = &made.cs.Changes[i]
	}
	for e := range mergeable(m.c.next, &m.c.opts) {
		err := m.keep(e.Path, e.Blob, func() (*os.File, error) { return made.open(staged[e.Path]) },
			func() (*os.File, error) { return m.c.tree.OpenFile(e.Path) })
		if ctxErr := m.w.ctx.Err(); ctxErr != nil || errors.Is(err, ota.ErrNoSpace) {
			return cmp.Or(ctxErr, err)
		}
	}
	if err := m.f.step("remove", m.dir); err != nil {
		return err
	}
	names, err := m.w.tree.ReadDir(".")
	for _, name := range names {
		err = errors.Join(err, m.w.tree.RemoveAll(name))
	}
	return err
}

// open opens what a change installs.
func (m *maker) open(ch *entryChange) (*os.File, error) {
	if ch == nil || m.entry(ch) == nil {
		return nil, os.ErrNotExist
	}
	return m.stores[ch.Vol].tree.OpenFile(nameInSpool(ch.Path))
}

// mergeable are the files of a release that may have to be merged.
func mergeable(ix *release.Index, o *ComponentOptions) iter.Seq[*release.Entry] {
	return func(yield func(*release.Entry) bool) {
		for i := range ix.Entries {
			e := &ix.Entries[i]
			if e.Type == release.File && e.Size <= maxMerge && o.rule(e.Path).LocalChanges == Merge && !yield(e) {
				return
			}
		}
	}
}

// baseLender lends the releases' own versions; nil where there are none.
func (f *inPlaceFiles) baseLender() *lender {
	names, err := f.listDir(dirBase)
	if err != nil || len(names) == 0 {
		return nil
	}
	ix := &release.Index{}
	for _, n := range names {
		d, err := release.ParseDigest(n)
		info, statErr := at.Lstat(f.path(dirBase, n))
		if err == nil && statErr == nil {
			ix.Entries = append(ix.Entries, release.Entry{Path: n, Type: release.File, Blob: release.Blob{Digest: d, Size: info.Size}})
		}
	}
	s, err := newSource(f.path(dirBase), ix, false)
	if err != nil {
		return nil
	}
	return &lender{source: s}
}

// pruneBases drops the versions of releases that are not known any more.
func (f *inPlaceFiles) pruneBases() error {
	names, err := f.listDir(dirBase)
	if err != nil || len(names) == 0 {
		return err
	}
	indexes, err := f.listDir(dirIndex)
	if err != nil {
		return err
	}
	needed := map[string]bool{}
	for _, n := range indexes {
		ix, _, err := readIndexFile(f.path(dirIndex, n))
		if err != nil {
			return nil // which ones it needs is not known
		}
		for _, b := range ix.Blobs() {
			needed[b.Digest.String()] = true
		}
	}
	return f.dropNames(dirBase, needed)
}

// countMerges adds what merges take: the release's own versions, and for each
// file that a release changes the four that the script works on.
func (n *counter) countMerges(o ComponentOptions, old *release.Index) {
	for e := range mergeable(n.next, &o) {
		if there, err := look(n.f.path(dirBase, e.Digest.String())); err == nil && !there.there {
			n.add(e.Size)
		}
		if was := find(old, e.Path); was != nil && was.Blob != e.Blob {
			for range 4 {
				n.add(max(e.Size, was.Size))
			}
		}
	}
}
