//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// lender is a folder that lends content: the root, or one volume of a kept set.
type lender struct {
	*source
	// names are the names in the spool of what the folder holds, by path; nil
	// where it holds the whole index under the paths themselves.
	names map[string]string
}

// name returns the name of the path p in the lender's folder.
func (l *lender) name(p string) (string, bool) {
	if l.names == nil {
		return p, true
	}
	name, ok := l.names[p]
	return name, ok
}

// open opens a file that should hold b.
func (l *lender) open(b release.Blob) (io.ReadCloser, bool) {
	for _, i := range withBlob(l.ix, l.byBlob, b) {
		p, ok := l.name(l.ix.Entries[i].Path)
		if !ok {
			continue
		}
		if r, ok := openSeed(l.source, p, b); ok {
			return r, true
		}
	}
	return nil, false
}

// lenders opens everything that lends content. What cannot be read is left
// out: it only saves work.
func (f *inPlaceFiles) lenders() ([]*lender, error) {
	was, _, err := f.current()
	if err != nil {
		return nil, err
	}
	var all []*lender
	if ix, err := f.storedIndex(was.Digest, was.Index); err == nil {
		if s, err := newSource(f.opts.Root, ix, true); err == nil {
			all = append(all, &lender{source: s})
		}
	}
	names, err := f.listDir(dirKept)
	for _, n := range names {
		if d, err := release.ParseDigest(n); err == nil {
			all = append(all, f.keptLenders(d)...)
		}
	}
	if l := f.baseLender(); l != nil {
		all = append(all, l)
	}
	return all, err
}

func (f *inPlaceFiles) keptLenders(d release.Digest) []*lender {
	cs, err := readChangesAt(f.path(dirKept, d.String(), "plan"), false)
	ix, _, ixErr := readIndexFile(f.indexPath(d))
	if err != nil || cs == nil || ixErr != nil {
		return nil
	}
	var all []*lender
	for i, v := range cs.Volumes {
		names := map[string]string{}
		for _, ch := range cs.Changes {
			if ch.Vol == i && ch.Old != nil {
				names[ch.Path] = v.oldName(ch.Path)
			}
		}
		if s, err := newSource(f.on(v).path(dirKept, d.String(), dirContent), ix, false); err == nil {
			all = append(all, &lender{s, names})
		}
	}
	return all
}

func closeLenders(all []*lender) {
	for _, l := range all {
		_ = l.tree.Close()
	}
}

// dropSeeds closes what Seed reads from.
func (f *inPlaceFiles) dropSeeds() {
	f.mu.Lock()
	defer f.mu.Unlock()
	closeLenders(f.seeds)
	f.seeds, f.like = nil, nil
}

// Seed opens a file of the root or of a kept set that should hold b.
func (f *inPlaceFiles) Seed(_ context.Context, name string, b release.Blob) (io.ReadCloser, bool, error) {
	if name != f.opts.Name {
		return nil, false, fmt.Errorf("component %.80q came to the backend of %q", name, f.opts.Name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seeds == nil {
		all, err := f.lenders()
		if err != nil {
			return nil, false, err
		}
		if f.seeds = all; all == nil {
			f.seeds = []*lender{}
		}
	}
	for _, l := range f.seeds {
		if r, ok := l.open(b); ok {
			return r, true, nil
		}
	}
	return nil, false, nil
}

// Verify reads everything that c lists and returns what is not as it should
// be. Entries that were kept when c was installed are the device's.
func (f *inPlaceFiles) Verify(ctx context.Context, c release.Component, content ota.Content) ([]ota.Damage, error) {
	ix, err := f.index(ctx, c.Digest(), c.Index, content)
	if err != nil {
		return nil, err
	}
	kept, err := f.keptLocally(c)
	if err != nil {
		return nil, err
	}
	tree, err := f.openRoot()
	if err != nil {
		return nil, err
	}
	w := f.newWorker(ctx, tree)
	var found []ota.Damage
	for i := range ix.Entries {
		e := &ix.Entries[i]
		if err = ctx.Err(); err != nil {
			break
		}
		if why := w.damage(e); why != "" && !kept[e.Path] {
			found = append(found, ota.Damage{Component: c.Name, Path: e.Path, Reason: why})
		}
	}
	return found, errors.Join(err, tree.Close())
}

// damage says what is wrong with one entry. What cannot be read is damaged.
func (w *worker) damage(e *release.Entry) string {
	switch e.Type {
	case release.Carry:
		return ""
	case release.Absent:
		if _, err := w.tree.Stat(e.Path); !isGone(err) {
			return "it should be absent"
		}
		return ""
	}
	why, err := w.wrong(w.tree, e.Path, e)
	if err != nil {
		return "it cannot be read: " + err.Error()
	}
	return why
}

// keptLocally returns the paths whose local change stayed.
func (f *inPlaceFiles) keptLocally(c release.Component) (map[string]bool, error) {
	was, _, err := f.current()
	kept := map[string]bool{}
	for _, p := range was.Entries {
		kept[p.Path] = p.local() && was.Digest == c.Digest()
	}
	return kept, err
}

// Repair puts back what Verify finds, one entry after the other: each is made
// under a temporary name beside its place and then gets its name at once. It
// returns what it could not mend. What is there in the place of an absent
// entry, and a folder in the place of something else, it leaves alone.
func (f *inPlaceFiles) Repair(ctx context.Context, c release.Component, content ota.Content) ([]ota.Damage, error) {
	found, err := f.Verify(ctx, c, content)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	ix, err := f.index(ctx, c.Digest(), c.Index, content)
	if err != nil {
		return nil, err
	}
	f.dropSeeds()
	lenders, err := f.lenders()
	defer closeLenders(lenders)
	if err != nil {
		return found, err
	}
	tree, err := f.openRoot()
	if err != nil {
		return found, fmt.Errorf("cannot repair %s: %w", c.Name, err)
	}
	w := f.newWorker(ctx, tree)
	var left []ota.Damage
	for _, d := range found {
		if why := w.repairInPlace(ix.Find(d.Path), lenders, content, d.Reason); why != "" {
			left = append(left, ota.Damage{Component: c.Name, Path: d.Path, Reason: why})
		}
		if err = ctx.Err(); err != nil {
			break
		}
	}
	return left, errors.Join(err, tree.Close())
}

func (w *worker) repairInPlace(e *release.Entry, lenders []*lender, content ota.Content, reason string) string {
	if e.Type == release.Absent {
		return reason
	}
	if info, err := w.tree.Stat(e.Path); err == nil && info.IsDir() && e.Type != release.Dir {
		return reason + ", and what is in the folder would be lost"
	}
	if err := w.impliedParents(e.Path); err != nil {
		return fmt.Sprintf("%s, and cannot be mended: %v", reason, err)
	}
	var local []*source
	for _, l := range lenders {
		if e.Type == release.File {
			local = append(local, l.holding(e)...)
		}
	}
	return w.repair(e, local, content, reason)
}

// holding returns a source of which places gives the file with e's content.
func (l *lender) holding(e *release.Entry) []*source {
	var all []*source
	for _, i := range withBlob(l.ix, l.byBlob, e.Blob) {
		p, ok := l.name(l.ix.Entries[i].Path)
		if !ok {
			continue
		}
		one := &release.Index{Entries: []release.Entry{{Path: p, Type: release.File, Blob: e.Blob}}}
		all = append(all, &source{tree: l.tree, ix: one, byBlob: []int32{0}})
	}
	return all
}
