//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// verifier compares a tree with an index.
type verifier struct {
	f     *base
	tree  *at.Tree
	ix    *release.Index
	stop  bool // at the first difference
	light bool // without reading content
	found []ota.Damage
}

func (v *verifier) run(ctx context.Context) error {
	w := v.f.newWorker(ctx, v.tree)
	for i := range v.ix.Entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		e := &v.ix.Entries[i]
		if e.Type == release.Carry {
			continue
		}
		v.note(e.Path, v.look(w, e))
		if v.stop && len(v.found) > 0 {
			return nil
		}
	}
	return v.extra(ctx, ".")
}

// look says what is wrong with one entry. What cannot be read is damaged.
func (v *verifier) look(w *worker, e *release.Entry) string {
	var why string
	var err error
	if v.light {
		why, _, err = w.differs(v.tree, e.Path, e)
	} else {
		why, err = w.wrong(v.tree, e.Path, e)
	}
	if err != nil {
		return "it cannot be read: " + err.Error()
	}
	return why
}

func (v *verifier) note(path, why string) {
	if why != "" {
		v.found = append(v.found, ota.Damage{Component: v.f.opts.Name, Path: path, Reason: why})
	}
}

// extraReason is the reason of what no release lists: nothing that a repair
// may remove.
const extraReason = "the release does not list it"

// extra finds what the index does not list.
func (v *verifier) extra(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	names, err := v.tree.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, name := range names {
		p := path.Join(dir, name)
		e := v.ix.Find(p)
		switch {
		case e == nil && strings.HasPrefix(name, tempPrefix):
		case e == nil:
			v.note(p, extraReason)
		case e.Type == release.Dir:
			err = v.extra(ctx, p)
		}
		if err != nil || v.stop && len(v.found) > 0 {
			return err
		}
	}
	return nil
}

// Verify reads everything that c lists below the root and returns what is not
// as it should be, and what no release lists. Carried paths are the app's.
func (f *treeFiles) Verify(ctx context.Context, c release.Component, content ota.Content) ([]ota.Damage, error) {
	ix, err := f.index(ctx, c.Digest(), c.Index, content)
	if err != nil {
		return nil, err
	}
	tree, err := at.Open(f.opts.Root)
	if isGone(err) {
		return []ota.Damage{{Component: c.Name, Path: ".", Reason: "it is missing"}}, nil
	}
	if err != nil {
		return nil, err
	}
	v := verifier{f: &f.base, tree: tree, ix: ix}
	err = v.run(ctx)
	return v.found, errors.Join(err, tree.Close())
}

// Repair puts back what Verify finds, one entry after the other: each is made
// under a temporary name beside its place and then gets its name at once. The
// content comes from kept trees, from files with the same content, or from
// content. It returns what it could not mend, and what no release lists: that
// it leaves alone. A root that is gone is made anew; what was in its carried
// paths is lost. Where nothing is left to mend Active names c from then on.
func (f *treeFiles) Repair(ctx context.Context, c release.Component, content ota.Content) ([]ota.Damage, error) {
	if err := f.makeRoot(); err != nil {
		return nil, fmt.Errorf("cannot repair %s: %w", c.Name, explain(err))
	}
	found, err := f.Verify(ctx, c, content)
	if err == nil && len(found) > 0 {
		found, err = f.mendAll(ctx, c, content, found)
	}
	if err != nil || len(found) > 0 {
		return found, err
	}
	return nil, f.adopt(ctx, c, content)
}

// makeRoot makes the root where it is missing, closed to others until it gets
// what the release gives it.
func (f *treeFiles) makeRoot() error {
	root, err := f.root()
	if err != nil || root.there {
		return err
	}
	if err := f.step("mkdir", f.opts.Root); err != nil {
		return err
	}
	if err := durable.MkdirAll(filepath.Dir(f.opts.Root), 0o755); err != nil {
		return err
	}
	return durable.Mkdir(f.opts.Root, 0o700)
}

// adopt writes down that the root holds c, where something else or nothing is
// known of it.
func (f *treeFiles) adopt(ctx context.Context, c release.Component, content ota.Content) error {
	root, err := f.root()
	if err != nil {
		return err
	}
	plans, err := f.plans()
	if err != nil {
		return err
	}
	if k, ok := f.identify(root, plans); ok && k.Digest == c.Digest() {
		return nil
	}
	if err := f.makeSpool(f.path(), f.path(dirIndex)); err != nil {
		return err
	}
	if _, err := f.keepIndex(ctx, c, content); err != nil {
		return err
	}
	if err := durable.SyncTree(f.opts.Root); err != nil {
		return err
	}
	return f.remember(known{c.Digest(), c.Index, root.info.ID})
}

// mendAll mends what was found and returns what is left.
func (f *treeFiles) mendAll(ctx context.Context, c release.Component, content ota.Content, found []ota.Damage) ([]ota.Damage, error) {
	ix, err := f.index(ctx, c.Digest(), c.Index, content)
	if err != nil {
		return nil, err
	}
	tree, err := at.Open(f.opts.Root)
	if err != nil {
		return found, fmt.Errorf("cannot repair %s: %w", c.Name, err)
	}
	f.dropSeeds()
	w := f.newWorker(ctx, tree)
	sources := f.sources(ix)
	defer closeSources(sources)
	var left []ota.Damage
	for _, d := range found {
		if why := w.repair(ix.Find(d.Path), sources, content, d.Reason); why != "" {
			left = append(left, ota.Damage{Component: c.Name, Path: d.Path, Reason: why})
		}
		if err := ctx.Err(); err != nil {
			return left, errors.Join(err, tree.Close())
		}
	}
	err = w.sweepTree(".")
	return left, errors.Join(err, tree.Close())
}

// repair mends one entry and says why it could not.
func (w *worker) repair(e *release.Entry, sources []*source, content ota.Content, reason string) string {
	if e == nil {
		return reason
	}
	if why, err := w.wrong(w.tree, e.Path, e); err == nil && why == "" {
		return ""
	}
	err := w.mend(e, sources, func() (io.ReadCloser, error) {
		if content == nil {
			return nil, ota.ErrNotLocal
		}
		return content.Open(w.ctx, e.Blob)
	})
	if err != nil {
		return fmt.Sprintf("%s, and cannot be mended: %v", reason, err)
	}
	return ""
}

// tempBeside returns the name under which the entry p is made anew.
func tempBeside(p string) string {
	base := path.Base(p)
	return path.Join(path.Dir(p), tempPrefix+base[:min(len(base), release.MaxPathName-len(tempPrefix))])
}

// sweepTree removes what a repair left that was cut short.
func (w *worker) sweepTree(dir string) error {
	names, err := w.tree.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, name := range names {
		p := path.Join(dir, name)
		info, err := w.tree.Stat(p)
		switch {
		case err != nil:
		case strings.HasPrefix(name, tempPrefix):
			err = w.tree.RemoveAll(p)
		case info.IsDir():
			err = w.sweepTree(p)
		}
		if err != nil && !isGone(err) {
			return err
		}
	}
	return nil
}
