//go:build linux

package micro

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// differ gathers what a release would change.
type differ struct {
	f   *base
	all []ota.Change
}

func (d *differ) add(p string, what ota.ChangeKind, details ...string) {
	d.all = append(d.all, ota.Change{Component: d.f.opts.Name, Path: p, What: what, Detail: joined(details...)})
}

// addUnlisted adds what belongs to no release and is in the way.
func (d *differ) addUnlisted(e *UnmanagedError) {
	for _, p := range e.Paths {
		d.add(p, ota.LocallyChanged, isUnlisted)
	}
	if e.More > 0 {
		d.add(".", ota.LocallyChanged, fmt.Sprintf("%d more entries belong to no release", e.More))
	}
}

func (d *differ) sorted() []ota.Change {
	slices.SortStableFunc(d.all, func(a, b ota.Change) int { return strings.Compare(a.Path, b.Path) })
	return d.all
}

func joined(texts ...string) string {
	var some []string
	for _, t := range texts {
		if t != "" {
			some = append(some, t)
		}
	}
	return strings.Join(some, "; ")
}

// locally begins the detail of what was changed on the device.
func locally(why string) string { return "changed on this device: " + why }

// What becomes of things, in details.
const (
	andBack      = ", and comes back with a rollback"
	isReplaced   = "would be replaced" + andBack
	isRemoved    = "would be removed" + andBack
	isRefused    = "the release would be refused"
	isUnlisted   = "no release lists it; " + isRefused
	notByRelease = "no release put there what there is"
)

// compare says what one entry changes in another that has its path. The word
// is empty where that is nothing.
func (d *differ) compare(o, n *release.Entry) (ota.ChangeKind, string) {
	var what ota.ChangeKind
	var more []string
	switch {
	case o.Type != n.Type:
		return ota.Changed, noun(o) + " becomes " + noun(n)
	case o.Target != n.Target:
		what, more = ota.Changed, append(more, fmt.Sprintf("points to %.200q → %.200q", o.Target, n.Target))
	case o.Size != n.Size:
		what, more = ota.Changed, append(more, fmt.Sprintf("%s → %s bytes", grouped(o.Size), grouped(n.Size)))
	case o.Blob != n.Blob:
		what, more = ota.Changed, append(more, grouped(n.Size)+" bytes as before, with other content")
	}
	if o.Mode != n.Mode && n.Type != release.Symlink {
		more = append(more, fmt.Sprintf("mode %04o → %04o", o.Mode, n.Mode))
	}
	if !d.f.opts.IgnoreOwner && (o.UID != n.UID || o.GID != n.GID) {
		more = append(more, fmt.Sprintf("owner %d:%d → %d:%d", o.UID, o.GID, n.UID, n.GID))
	}
	if !at.SameXattrs(o.Xattrs, n.Xattrs) {
		more = append(more, "other extended attributes")
	}
	if what == "" && len(more) > 0 {
		what = ota.Metadata
	}
	return what, joined(more...)
}

// noun says what an entry is.
func noun(e *release.Entry) string {
	switch e.Type {
	case release.File:
		return fmt.Sprintf("a file of %s bytes", grouped(e.Size))
	case release.Dir:
		return "a folder"
	case release.Symlink:
		return fmt.Sprintf("a symbolic link to %.200q", e.Target)
	}
	return "something else"
}

// grouped writes a number of bytes with its thousands apart.
func grouped(n int64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// entryOf describes what has the path p as an index would.
func (w *worker) entryOf(tree *at.Tree, p string, listed []release.Xattr) (*release.Entry, error) {
	info, err := tree.Stat(p)
	if err != nil {
		return nil, err
	}
	e := &release.Entry{Path: p, Mode: info.Perm(), UID: info.UID, GID: info.GID}
	switch {
	case info.IsDir():
		e.Type = release.Dir
	case info.IsSymlink():
		e.Type = release.Symlink
		e.Target, err = tree.Readlink(p)
	case info.IsFile():
		e.Type = release.File
		e.Blob, err = w.blobOf(tree, p)
	default:
		return e, nil
	}
	if err == nil {
		e.Xattrs, err = tree.Xattrs(p, info, listed)
	}
	return e, err
}

// blobOf reads the file p of tree.
func (w *worker) blobOf(tree *at.Tree, p string) (release.Blob, error) {
	file, err := tree.OpenFile(p)
	if err != nil {
		return release.Blob{}, err
	}
	w.hash.Reset()
	h := &hashing{h: w.hash, r: file}
	_, err = at.CopyTo(io.Discard, h, w.buf)
	return h.blob(), errors.Join(err, file.Close())
}

// Diff compares what is in the root with what c lists, and writes nothing. What
// was changed on the device since the installed release is found by content,
// which is read as Verify reads it. Carried paths are the app's and not part of
// the answer. Entries that no release lists, for which Stage fails with
// [ErrUnmanaged], are part of it, as [ota.LocallyChanged].
func (f *treeFiles) Diff(ctx context.Context, c release.Component, content ota.Content) ([]ota.Change, error) {
	if err := f.check("diff", c); err != nil {
		return nil, err
	}
	d := treeDiffer{differ: differ{f: &f.base}, ctx: ctx, w: f.newWorker(ctx, nil)}
	root, err := f.root()
	if err != nil {
		return nil, err
	}
	was, err := f.find(ctx, root, f.search)
	if err != nil || !was.Digest.IsZero() && was.Digest == c.Digest() {
		return nil, err
	}
	if d.next, err = f.index(ctx, c.Digest(), c.Index, content); err != nil {
		return nil, err
	}
	if d.old = f.oldIndex(ctx, was, content); root.there {
		if d.live, err = at.Open(f.opts.Root); err != nil {
			return nil, err
		}
		defer func() { _ = d.live.Close() }()
	}
	err = d.run()
	return d.sorted(), err
}

// treeDiffer says what the exchange of a tree would change.
type treeDiffer struct {
	differ
	ctx       context.Context
	w         *worker
	live      *at.Tree // nil where there is no root
	old, next *release.Index
}

func (d *treeDiffer) run() error {
	for i := range d.next.Entries {
		if err := d.one(&d.next.Entries[i], find(d.old, d.next.Entries[i].Path)); err != nil {
			return err
		}
	}
	for i := 0; d.old != nil && i < len(d.old.Entries); i++ {
		if o := &d.old.Entries[i]; d.next.Find(o.Path) == nil {
			if err := d.one(nil, o); err != nil {
				return err
			}
		}
	}
	return d.unlisted()
}

// one compares what the new release lists at a path with what the old one
// does; one of them is nil where that does not list it.
func (d *treeDiffer) one(n, o *release.Entry) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	p := cmp.Or(n, o).Path
	carried := n == nil && carries(d.next, p) || n != nil && n.Type == release.Carry
	there, err := d.isThere(p)
	switch {
	case err != nil || carried || !there && n == nil:
		return err
	case !there && (o == nil || o.Type == release.Carry):
		d.add(p, ota.Added, noun(n))
		return nil
	case n == nil && o.Type == release.Carry:
		d.add(p, ota.Removed, "it is the app's, and stays with the old release")
		return nil
	case o == nil || o.Type == release.Carry:
		return d.notManaged(n)
	}
	return d.managed(n, o)
}

func (d *treeDiffer) isThere(p string) (bool, error) {
	if d.live == nil {
		return false, nil
	}
	_, err := d.live.Stat(p)
	if isGone(err) {
		return false, nil
	}
	return err == nil, err
}

// carries reports whether the index carries a folder above p.
func carries(ix *release.Index, p string) bool {
	for ; p != "."; p = path.Dir(p) {
		if e := ix.Find(p); e != nil {
			return e.Type == release.Carry
		}
	}
	return false
}

// notManaged is for what is there and no release put there: the app's, or of a
// release whose index is lost.
func (d *treeDiffer) notManaged(n *release.Entry) error {
	o, err := d.w.entryOf(d.live, n.Path, n.Xattrs)
	if err != nil {
		return err
	}
	if what, text := d.compare(o, n); what != "" {
		d.add(n.Path, what, text, notByRelease)
	}
	return nil
}

// managed is for what the installed release put there.
func (d *treeDiffer) managed(n, o *release.Entry) error {
	why, err := d.w.wrong(d.live, o.Path, o)
	if err != nil {
		return err
	}
	switch {
	case why != "" && n == nil:
		d.add(o.Path, ota.LocallyChanged, locally(why), isRemoved)
	case n == nil:
		d.add(o.Path, ota.Removed, noun(o))
	case why != "":
		_, text := d.compare(o, n)
		d.add(o.Path, ota.LocallyChanged, locally(why), isReplaced, text)
	default:
		if what, text := d.compare(o, n); what != "" {
			d.add(o.Path, what, text)
		}
	}
	return nil
}

// unlisted adds what Stage would refuse.
func (d *treeDiffer) unlisted() error {
	s := newSurvey(d.ctx, d.live, d.old, d.next)
	err := s.take()
	if err == nil {
		d.addUnlisted(&s.unmanaged)
	}
	return err
}
