//go:build linux

package micro

import (
	"context"
	"errors"
	"path"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// Diff compares what is in the root with what c lists, as Stage does, and
// writes nothing. Local changes are part of the answer, with what the policy of
// the entry does about them, and so is what Stage would refuse.
func (f *inPlaceFiles) Diff(ctx context.Context, c release.Component, content ota.Content) ([]ota.Change, error) {
	if err := f.check("diff", c); err != nil {
		return nil, err
	}
	opts, err := ParseOptions(c.Options)
	if err != nil {
		return nil, err
	}
	if a, err := f.Active(ctx, c.Name); err != nil || a.Is(c.Digest()) {
		return nil, err
	}
	was, plans, err := f.current()
	if err != nil {
		return nil, err
	}
	next, err := f.index(ctx, c.Digest(), c.Index, content)
	if err != nil {
		return nil, err
	}
	tree, err := f.openRoot()
	if err != nil {
		return nil, err
	}
	old := f.oldIndex(ctx, known{Digest: was.Digest, Index: was.Index}, content)
	n, err := f.newCensus(ctx, tree, opts, was, plans, old, next)
	d := placeDiffer{differ: differ{f: &f.base}, census: n}
	if err == nil {
		n.looks = true
		err = n.count()
	}
	if err == nil {
		err = d.run()
	}
	return d.sorted(), errors.Join(err, tree.Close())
}

// placeDiffer says what a census found.
type placeDiffer struct {
	differ
	census *census
}

func (d *placeDiffer) run() error {
	c := d.census
	for p, l := range c.noted {
		d.local(p, l)
	}
	for i := range c.removals {
		if p := c.removals[i].Path; c.noted[p].why == "" {
			d.removed(p, &c.removals[i])
		}
	}
	for i := range c.places {
		if c.noted[c.places[i].Path].why != "" {
			continue
		}
		if err := d.placed(&c.places[i]); err != nil {
			return err
		}
	}
	for i := range c.metas {
		p := c.metas[i].Path
		if what, text := d.compare(c.metas[i].OldMeta.entry(p), c.metas[i].NewMeta.entry(p)); what != "" && c.noted[p].why == "" {
			d.add(p, what, text)
		}
	}
	d.addUnlisted(&c.unmanaged)
	return nil
}

func (d *placeDiffer) removed(p string, ch *entryChange) {
	switch e := find(d.census.old, p); {
	case e != nil && e.Type != release.Absent:
		d.add(p, ota.Removed, noun(e))
	case ch.Old.Dir:
		d.add(p, ota.Removed, "a folder that nothing is left in")
	default:
		d.add(p, ota.Removed, notByRelease+andBack)
	}
}

func (d *placeDiffer) placed(ch *entryChange) error {
	c := d.census
	e := c.wanted[ch.Path]
	switch {
	case ch.Old == nil && c.as[ch.Path] == asBeside:
		d.add(ch.Path, ota.Added, noun(e), "the release's version of what stays as it was changed")
		return nil
	case ch.Old == nil:
		d.add(ch.Path, ota.Added, noun(e))
		return nil
	}
	_, managed := c.was[ch.Path]
	if o := find(c.old, ch.Path); managed && o != nil && o.Type != release.Absent {
		what, text := d.compare(o, e)
		d.add(ch.Path, what, text)
		return nil
	}
	o, err := c.w.entryOf(c.tree, ch.Path, e.Xattrs)
	if err != nil {
		return err
	}
	what, text := d.compare(o, e)
	if managed {
		d.add(ch.Path, what, text)
		return nil
	}
	d.add(ch.Path, what, text, notByRelease+andBack)
	return nil
}

// local adds a local change, and what becomes of it.
func (d *placeDiffer) local(p string, l localChange) {
	c := d.census
	e, old := c.wanted[p], find(c.old, p)
	rule := c.opts.rule(p)
	fate := isReplaced
	switch {
	case l.refused != "":
		fate = isRefused
		l.why = l.refused
	case e == nil && rule.LocalChanges == Overwrite:
		fate = isRemoved
	case e == nil:
		fate = "the release does not list it any more; would stay"
	case c.as[p] == asKept && c.as[p+suffixNew] == asBeside:
		fate = "would stay, with the release's version beside it as " + path.Base(p) + suffixNew
	case c.as[p] == asKept:
		fate = "would stay"
	case c.as[p] == asMerged && c.merges[p].script == "":
		fate = "its content would stay"
	case c.as[p] == asMerged:
		fate = "would be merged by the script " + c.merges[p].script
	}
	text := ""
	if e != nil && e.Type != release.Absent && old.Type != release.Absent {
		_, text = d.compare(old, e)
	}
	d.add(p, ota.LocallyChanged, locally(l.why), fate, text)
}
