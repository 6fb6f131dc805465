//go:build linux

package micro

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// place is what was found at the root or at another place for a tree.
type place struct {
	there bool
	info  at.Info
}

// look says what has the path.
func look(path string) (place, error) {
	info, err := at.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return place{}, nil
	}
	return place{there: err == nil, info: info}, err
}

// is reports whether the folder that is there is k's, among folders of one
// file system.
func (p place) is(k *known) bool {
	return p.there && p.info.IsDir() && k != nil && p.info.Like(k.ID)
}

// root looks at the root, which is a folder or is not there.
func (f *treeFiles) root() (place, error) {
	p, err := look(f.opts.Root)
	if err == nil && p.there && !p.info.IsDir() {
		err = fmt.Errorf("cannot use the root %s: it is not a folder", f.opts.Root)
	}
	return p, err
}

// listDir returns the names in a folder of the spool.
func (f *base) listDir(names ...string) ([]string, error) {
	entries, err := os.ReadDir(f.path(names...))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all, err
}

// readState returns the state; a lost, damaged or unknown one is empty: the
// slow way does without.
func (f *base) readState() state {
	var s state
	if err := readRecord(f.path("state"), formatState, &s); err != nil {
		return state{}
	}
	return s
}

// plans returns the plans of all transactions in the spool.
func (f *treeFiles) plans() (map[ota.TxID]*plan, error) {
	names, err := f.listDir(dirTx)
	if err != nil {
		return nil, err
	}
	all := map[ota.TxID]*plan{}
	for _, name := range names {
		p, err := f.readPlan(ota.TxID(name))
		if errors.Is(err, errDamaged) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if p != nil {
			all[ota.TxID(name)] = p
		}
	}
	return all, nil
}

// identify returns what the folder is known to hold: by the plans of open
// transactions, which are younger, and by the state.
func (f *base) identify(p place, plans map[ota.TxID]*plan) (known, bool) {
	if !p.there {
		return known{}, false
	}
	var all []known
	for _, q := range plans {
		if all = append(all, q.New); q.Old != nil {
			all = append(all, *q.Old)
		}
	}
	for _, k := range append(all, f.readState().Trees...) {
		if !k.Digest.IsZero() && k.ID.Same(p.info.ID) {
			return k, true
		}
	}
	return known{}, false
}

// installed returns what the root holds, from the evidence or the slow way. It
// is zero for a root that no release put there.
func (f *treeFiles) installed(ctx context.Context, root place) (known, error) {
	return f.find(ctx, root, f.compareAll)
}

// find returns what the root holds, the slow way being slow.
func (f *treeFiles) find(ctx context.Context, root place, slow func(context.Context, place) (known, error)) (known, error) {
	plans, err := f.plans()
	if err != nil || !root.there {
		return known{}, err
	}
	if k, ok := f.identify(root, plans); ok {
		return k, nil
	}
	return slow(ctx, root)
}

// compareAll is the slow way. What it finds is written down, so that the next
// answer is quick.
func (f *treeFiles) compareAll(ctx context.Context, root place) (known, error) {
	k, err := f.search(ctx, root)
	if err == nil && !k.Digest.IsZero() {
		_ = f.remember(k)
	}
	return k, err
}

// search compares the root by content with every index that the spool holds.
func (f *treeFiles) search(ctx context.Context, root place) (known, error) {
	names, err := f.listDir(dirIndex)
	if err != nil || len(names) == 0 {
		return known{}, err
	}
	for _, name := range names {
		d, err := release.ParseDigest(name)
		if err != nil {
			continue
		}
		k := known{Digest: d, ID: root.info.ID}
		same, err := f.compareOne(ctx, &k)
		if err != nil {
			return known{}, err
		}
		if same {
			return k, nil
		}
	}
	return known{}, nil
}

// compareOne compares the root with one index, and fills in which blob the
// index is.
func (f *treeFiles) compareOne(ctx context.Context, k *known) (bool, error) {
	ix, blob, err := readIndexFile(f.indexPath(k.Digest))
	if err != nil {
		return false, nil
	}
	k.Index = blob
	tree, err := at.Open(f.opts.Root)
	if err != nil {
		return false, err
	}
	v := verifier{f: &f.base, tree: tree, ix: ix, stop: true, light: true}
	if err = v.run(ctx); err == nil && len(v.found) == 0 {
		v.light = false
		err = v.run(ctx)
	}
	return len(v.found) == 0, errors.Join(err, tree.Close())
}

// remember adds what a folder holds to the state.
func (f *treeFiles) remember(k known) error {
	s := f.readState()
	for _, other := range s.Trees {
		if other == k {
			return nil
		}
	}
	trees := []known{k}
	for _, other := range s.Trees {
		if !other.ID.Like(k.ID) {
			trees = append(trees, other)
		}
	}
	return f.writeRecord(f.path("state"), formatState, state{trees})
}

func (f *base) indexPath(d release.Digest) string { return f.path(dirIndex, d.String()) }

// readIndexFile reads a stored index, and says which blob it is.
func readIndexFile(path string) (*release.Index, release.Blob, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, release.Blob{}, err
	}
	h := &hashing{h: sha256.New(), r: file}
	ix, err := release.ReadIndex(h, 0)
	return ix, h.blob(), errors.Join(err, file.Close())
}

// storedIndex returns the index of k out of the spool, if it is there and
// right.
func (f *base) storedIndex(d release.Digest, want release.Blob) (*release.Index, error) {
	file, err := look(f.indexPath(d))
	if err != nil {
		return nil, err
	}
	if ix := f.parsed.find(want, file); ix != nil {
		return ix, nil
	}
	ix, blob, err := readIndexFile(f.indexPath(d))
	if err == nil && blob == want {
		f.parsed.add(want, file, ix)
	}
	if err == nil && blob != want {
		err = fmt.Errorf("cannot read %s: %w", f.indexPath(d), errDamaged)
	}
	return ix, err
}

// index returns the index of d: the stored one, or else out of content, which
// may be nil.
func (f *base) index(ctx context.Context, d release.Digest, b release.Blob, content ota.Content) (*release.Index, error) {
	ix, err := f.storedIndex(d, b)
	if err == nil || content == nil {
		return ix, err
	}
	if ix := f.parsed.any(b); ix != nil {
		return ix, nil
	}
	r, err := content.Open(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("cannot read the index of %s: %w", f.opts.Name, err)
	}
	ix, err = release.ReadIndex(r, 0)
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("cannot read the index of %s: %w", f.opts.Name, err)
	}
	f.parsed.add(b, place{}, ix)
	return ix, nil
}

// oldIndex returns the index of what is installed, nil where it is not known.
// A lost one is no reason to refuse the next release: then what is in the root
// counts as listed by nobody.
func (f *base) oldIndex(ctx context.Context, k known, content ota.Content) *release.Index {
	if k.Digest.IsZero() {
		return nil
	}
	ix, err := f.index(ctx, k.Digest, k.Index, content)
	if err != nil {
		return nil
	}
	return ix
}

// keepIndex stores the index of c in the spool and returns it. What makes the
// rest of the spool's file system durable does so for it; one that a power cut
// tore is not the right one, and is stored again.
func (f *base) keepIndex(ctx context.Context, c release.Component, content ota.Content) (*release.Index, error) {
	if ix, err := f.storedIndex(c.Digest(), c.Index); err == nil {
		return ix, nil
	}
	r, err := content.Open(ctx, c.Index)
	if err != nil {
		return nil, fmt.Errorf("cannot read the index of %s: %w", c.Name, err)
	}
	err = f.storeFile(f.indexPath(c.Digest()), r)
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("cannot store the index of %s: %w", c.Name, err)
	}
	if ix := f.parsed.any(c.Index); ix != nil { // the content was verified while it was stored
		file, err := look(f.indexPath(c.Digest()))
		f.parsed.add(c.Index, file, ix)
		return ix, err
	}
	return f.storedIndex(c.Digest(), c.Index)
}

// forgetIndex drops the index of d with what is known of its files, to be stored
// anew: what of it is on the disk is unknown after a failed sync.
func (f *base) forgetIndex(d release.Digest) error {
	for _, p := range []string{f.seenPath(d), f.indexPath(d)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// storeFile writes a file of the spool as a whole, and leaves it to a later sync.
func (f *base) storeFile(path string, r io.Reader) error {
	if err := f.step("store", path); err != nil {
		return err
	}
	temp := filepath.Join(filepath.Dir(path), tempPrefix+filepath.Base(path))
	file, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return explain(err)
	}
	_, err = at.CopyTo(file, r, make([]byte, copyBuffer))
	if err := errors.Join(err, file.Close()); err != nil {
		return explain(err)
	}
	return explain(placeLater(temp, path))
}

// placeLater gives a file of the spool its name, and leaves it to a later sync.
func placeLater(temp, path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	var b durable.Batch
	err = b.Replace(dir, filepath.Base(temp), dir, filepath.Base(path))
	return errors.Join(err, b.Close(), dir.Close())
}
