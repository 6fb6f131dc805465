//go:build linux

package micro

import (
	"context"
	"errors"
	"os"
	"path"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// Budget returns what Stage of c takes on each file system: everything that is
// not in its place already, in whole blocks, and the records. What an
// interrupted Stage has left counts as there, by type and size.
func (f *inPlaceFiles) Budget(ctx context.Context, c release.Component, content ota.Content) ([]ota.Need, error) {
	opts, err := ParseOptions(c.Options)
	if err != nil {
		return nil, err
	}
	next, err := f.index(ctx, c.Digest(), c.Index, content)
	if err != nil {
		return nil, err
	}
	was, _, err := f.current()
	if err != nil {
		return nil, err
	}
	tree, err := f.openRoot()
	if err != nil {
		return nil, err
	}
	old := f.oldIndex(ctx, known{Digest: was.Digest, Index: was.Index}, content)
	vols, err := f.newVolumes()
	if err == nil {
		err = f.count(ctx, tree, vols, old, next)
	}
	if err := errors.Join(err, tree.Close()); err != nil {
		return nil, err
	}
	n := counter{f: &f.base, next: next, block: f.blockSize()}
	n.records(c)
	n.countMerges(opts, old)
	if room := f.roomLeft(); room < 2*400*int64(len(next.Entries)) {
		n.add(2*400*int64(len(next.Entries)) - room)
	}
	needs := vols.needs
	needs[0].Bytes += n.bytes
	needs[0].Inodes += n.inodes
	return needs, nil
}

// count adds up, by volume, what is not in its place.
func (f *inPlaceFiles) count(ctx context.Context, tree *at.Tree, vols *volumes, old, next *release.Index) error {
	w := f.newWorker(ctx, tree)
	var counts []*counter
	defer func() {
		for _, n := range counts {
			closeTrees(n.begun)
		}
	}()
	for i := range next.Entries {
		e := &next.Entries[i]
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.Type == release.Carry || e.Type == release.Absent || e.Path == "." {
			continue
		}
		if o := find(old, e.Path); o != nil && sameEntry(o, e) {
			if why, _, err := w.differs(tree, e.Path, e); err == nil && why == "" {
				continue
			}
		}
		vol, err := vols.of(tree, path.Dir(e.Path))
		if err != nil {
			return err
		}
		for len(counts) <= vol {
			counts = append(counts, f.counterOn(vols.all[len(counts)]))
		}
		counts[vol].inPlace(w, e)
	}
	for i, v := range vols.all {
		need := ota.Need{Path: v.Spool}
		if i < len(counts) {
			need.Bytes, need.Inodes = counts[i].bytes, counts[i].inodes
		}
		vols.needs = append(vols.needs, need)
	}
	return nil
}

// counterOn begins to count for one volume.
func (f *inPlaceFiles) counterOn(v volume) *counter {
	n := &counter{f: &f.base, block: f.blockSize(), names: map[string]int64{}}
	for _, tx := range f.begun() {
		if tree, err := at.Open(f.on(v).txPath(tx, dirContent)); err == nil {
			n.begun = append(n.begun, tree)
		}
	}
	if top, err := os.Open(v.Top); err == nil {
		n.copies = isLoose(top)
		_ = top.Close()
	}
	return n
}

// begun returns the transactions that Activate has not come to.
func (f *inPlaceFiles) begun() []ota.TxID {
	names, _ := f.listDir(dirTx)
	var all []ota.TxID
	for _, n := range names {
		if p, err := f.readChanges(ota.TxID(n), "plan"); err == nil && p == nil {
			all = append(all, ota.TxID(n))
		}
	}
	return all
}

// roomLeft returns what begun transactions have set aside for records beyond
// what every one sets aside.
func (f *inPlaceFiles) roomLeft() int64 {
	var all int64
	for _, tx := range f.begun() {
		for _, name := range []string{forPlan, forState} {
			if p, err := look(f.txPath(tx, name)); err == nil && p.info.Size > reserveBytes {
				all += p.info.Size - reserveBytes
			}
		}
	}
	return all
}

// inPlace counts the new entry e, and the copy of the old one that a file
// system without second names needs.
func (n *counter) inPlace(w *worker, e *release.Entry) {
	inSpool := *e
	inSpool.Path = nameInSpool(e.Path)
	n.entry(w, &inSpool)
	info, err := w.tree.Stat(e.Path)
	if n.copies && err == nil && info.IsFile() {
		inSpool.Path += suffixOld
		inSpool.Size = info.Size
		n.entry(w, &inSpool)
	}
}
