//go:build linux

package micro

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// Seed opens a file of the root or of a kept tree that should hold b.
func (f *treeFiles) Seed(_ context.Context, name string, b release.Blob) (io.ReadCloser, bool, error) {
	if name != f.opts.Name {
		return nil, false, fmt.Errorf("component %.80q came to the backend of %q", name, f.opts.Name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seeds == nil {
		if err := f.openSeeds(); err != nil {
			return nil, false, err
		}
	}
	for _, s := range f.seeds {
		for p := range s.places("", b) {
			if r, ok := openSeed(s, p, b); ok {
				return r, true, nil
			}
		}
	}
	return nil, false, nil
}

func openSeed(s *source, p string, b release.Blob) (io.ReadCloser, bool) {
	file, err := s.tree.OpenFile(p)
	if err != nil {
		return nil, false
	}
	if info, err := at.StatFile(file); err != nil || info.Size != b.Size {
		_ = file.Close()
		return nil, false
	}
	return file, true
}

// openSeeds opens the trees; a root that nothing is known of lends nothing.
func (f *treeFiles) openSeeds() error {
	root, err := look(f.opts.Root)
	if err != nil {
		return err
	}
	plans, err := f.plans()
	if err != nil {
		return err
	}
	var old *release.Index
	if k, ok := f.identify(root, plans); ok {
		old, _ = f.storedIndex(k.Digest, k.Index)
	}
	f.seeds = []*source{}
	for _, s := range f.sources(old) {
		if s.ix == nil {
			_ = s.tree.Close()
			continue
		}
		f.seeds = append(f.seeds, s)
	}
	return nil
}

// dropSeeds closes the trees that Seed reads from.
func (f *treeFiles) dropSeeds() {
	f.mu.Lock()
	defer f.mu.Unlock()
	closeSources(f.seeds)
	f.seeds, f.like = nil, nil
}

// Blobs returns the content of all files of c.
func (f *base) Blobs(ctx context.Context, c release.Component, content ota.Content) ([]release.Blob, error) {
	ix, err := f.index(ctx, c.Digest(), c.Index, content)
	if err != nil {
		return nil, err
	}
	return ix.Blobs(), nil
}

// Budget returns what Stage of c takes on the root's file system: the files
// that cannot be shared, in whole blocks, every folder, and the records. What
// an interrupted Stage has left counts as there, by type and size.
func (f *treeFiles) Budget(ctx context.Context, c release.Component, content ota.Content) ([]ota.Need, error) {
	root, err := f.root()
	if err != nil {
		return nil, err
	}
	was, err := f.installed(ctx, root)
	if err != nil {
		return nil, err
	}
	next, err := f.index(ctx, c.Digest(), c.Index, content)
	if err != nil {
		return nil, err
	}
	n := counter{f: &f.base, ctx: ctx, next: next, block: f.blockSize()}
	if was.Digest.IsZero() || was.Digest != c.Digest() {
		n.sources, n.begun = f.lenders(was, f.oldIndex(ctx, was, content)), f.begun()
		err = n.tree()
		closeSources(n.sources)
		closeTrees(n.begun)
	}
	n.records(c)
	return []ota.Need{{Path: f.opts.Spool, Bytes: n.bytes, Inodes: n.inodes}}, err
}

// begun opens the trees of transactions that Activate has not come to. Those
// that cannot be read are left out: they only save space.
func (f *treeFiles) begun() []*at.Tree {
	names, err := f.listDir(dirTx)
	if err != nil {
		return nil
	}
	var all []*at.Tree
	for _, n := range names {
		if p, err := f.readPlan(ota.TxID(n)); err != nil || p != nil {
			continue
		}
		if tree, err := at.Open(f.treePath(ota.TxID(n))); err == nil {
			all = append(all, tree)
		}
	}
	return all
}

func closeTrees(all []*at.Tree) {
	for _, t := range all {
		_ = t.Close()
	}
}

// blockSize returns the unit in which the file system gives out space.
func (f *base) blockSize() int64 {
	var fs unix.Statfs_t
	for dir := f.opts.Root; ; {
		if unix.Statfs(dir, &fs) == nil && fs.Bsize > 0 {
			return int64(fs.Bsize)
		}
		up := filepath.Dir(dir)
		if up == dir {
			return 4096
		}
		dir = up
	}
}

// counter adds up what a tree takes.
type counter struct {
	f       *base
	ctx     context.Context
	next    *release.Index
	sources []*source
	begun   []*at.Tree
	block   int64
	bytes   int64
	inodes  int64
	names   map[string]int64 // bytes of the names in each folder
	copies  bool             // what is replaced is copied first
}

func (n *counter) add(bytes int64) {
	n.inodes++
	n.bytes += (bytes + n.block - 1) / n.block * n.block
}

func (n *counter) tree() error {
	all := len(n.next.Entries)
	lanes := lanesFor(all)
	if len(n.begun) > 0 {
		lanes = 1
	}
	parts := make([]counter, lanes)
	err := inLanes(n.ctx, lanes, all, func(ctx context.Context, lane, from, to int) error {
		sources, err := again(n.sources)
		if err != nil {
			return err
		}
		defer closeSources(sources)
		parts[lane] = counter{f: n.f, ctx: ctx, next: n.next, sources: sources, begun: n.begun, block: n.block, copies: n.copies}
		return parts[lane].some(from, to)
	})
	n.names = map[string]int64{}
	for i := range parts {
		n.bytes, n.inodes = n.bytes+parts[i].bytes, n.inodes+parts[i].inodes
		for dir, bytes := range parts[i].names {
			n.names[dir] += bytes
		}
	}
	for _, bytes := range n.names {
		n.bytes += (bytes + n.block - 1) / n.block * n.block
	}
	return err
}

// some counts the entries from one to before another.
func (n *counter) some(from, to int) error {
	w := n.f.newWorker(n.ctx, nil)
	n.names = map[string]int64{}
	for i := from; i < to; i++ {
		if err := n.ctx.Err(); err != nil {
			return err
		}
		if e := &n.next.Entries[i]; e.Type != release.Carry {
			n.entry(w, e)
		}
	}
	return nil
}

// inInode is how long a symbolic link, and how large an extended attribute,
// may be to need no block of its own on common file systems.
const inInode = 59

func (n *counter) entry(w *worker, e *release.Entry) {
	if n.isThere(e) {
		return
	}
	dir, base := filepath.Dir(e.Path), len(e.Path)
	n.names[dir] += int64(base-len(dir)) + 24
	var attrs int64
	for _, x := range e.Xattrs {
		attrs += int64(len(x.Name) + len(x.Value) + 16)
	}
	if e.Type == release.File && n.links(w, e) {
		return
	}
	switch {
	case e.Type == release.File:
		n.add(e.Size)
	case e.Type == release.Symlink && len(e.Target) <= inInode:
		n.add(0)
	default:
		n.add(1)
	}
	if attrs > inInode {
		n.bytes += n.block
	}
}

// isThere reports whether an interrupted Stage has made the entry. One of the
// right size with wrong content makes room when it is made anew.
func (n *counter) isThere(e *release.Entry) bool {
	return slices.ContainsFunc(n.begun, func(t *at.Tree) bool {
		info, err := t.Stat(e.Path)
		return err == nil && isType(info, e.Type) && (e.Type != release.File || info.Size == e.Size)
	})
}

// links reports whether a file that is there can get a second name.
func (n *counter) links(w *worker, e *release.Entry) bool {
	for _, src := range n.sources {
		for p, i := range src.places(e.Path, e.Blob) {
			if n.linksTo(w, src, p, i, e) {
				return true
			}
		}
	}
	return false
}

// linksTo reports whether e can be a second name of p, the file i of src.
func (n *counter) linksTo(w *worker, src *source, p string, i int, e *release.Entry) bool {
	info, err := src.tree.Stat(p)
	if err != nil || !info.IsFile() || info.Locked {
		return false
	}
	if src.vouches(i, info, e) {
		return n.f.looksOther(info, e, nil) == ""
	}
	in, info, err := src.tree.Read(p)
	if err != nil {
		return false
	}
	same := w.sameMeta(in, info, e)
	return in.Close() == nil && same
}

// records adds the spool's own files: the index, the list of shared files and
// the records of the transaction, each written beside the one it replaces.
func (n *counter) records(c release.Component) {
	if there, err := look(n.f.indexPath(c.Digest())); err == nil && !there.there {
		n.add(c.Index.Size)
	}
	n.add(int64(len(n.next.Entries)) * 32)
	for range 10 {
		n.add(1)
	}
	n.add(reserveBytes)
	n.add(reserveBytes)
}
