package ota

import (
	"context"
	"maps"
	"slices"

	"github.com/pawl-ota/pawl/ota/release"
)

// tidyOwed drops what an earlier tidy could not.
func (u *Updater) tidyOwed(ctx context.Context) {
	if u.rec.Owed {
		u.tidy(ctx)
	}
}

// tidy drops what nothing needs any more: kept releases beyond the kept ones,
// what ended transactions set aside, and blobs. What cannot be dropped stays
// owed, and is tried again at Resume and before the next Begin. It never fails
// a transaction.
func (u *Updater) tidy(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	var failed error
	for _, name := range slices.Sorted(maps.Keys(u.opts.Backends)) {
		p, ok := u.opts.Backends[name].(Pruner)
		if !ok {
			continue
		}
		keep, open := u.rec.needed(name)
		err := u.run(ctx, u.opts.StepLimit, func(ctx context.Context) error {
			return p.Prune(ctx, name, keep, open)
		})
		if err != nil {
			u.report(Progress{Step: "prune", Component: name, Err: err})
			failed = err
		}
	}
	if u.poison != nil {
		return
	}
	if u.rec.Tx == nil || u.rec.Tx.State != Staging {
		u.dropSpool()
	}
	if err := u.pruneStore(ctx); err != nil {
		u.report(Progress{Step: "prune", Err: err})
		failed = err
	}
	if failed == nil && u.rec.Owed {
		u.rec.Owed = false
		_ = u.save() // a failure poisons, and the next verb says so
	}
}

// needed returns which components of a name have to stay, and which
// transactions are open.
func (rec *record) needed(name string) (keep []release.Digest, open []TxID) {
	for _, r := range rec.releases() {
		for _, p := range r.Parts {
			if p.Name == name {
				keep = append(keep, p.Digest)
			}
		}
	}
	for _, t := range rec.open() {
		open = append(open, t.ID)
		for _, p := range t.Parts {
			if p.Name == name {
				keep = append(keep, p.Digest, p.Before.Digest)
			}
		}
	}
	return keep, open
}

// releases are the running release and the kept ones.
func (rec *record) releases() []running {
	if rec.Running == nil {
		return rec.Kept
	}
	return append([]running{*rec.Running}, rec.Kept...)
}

// open are the transactions that have not ended.
func (rec *record) open() []txState {
	if rec.Tx == nil {
		return rec.Over
	}
	return append(slices.Clone(rec.Over), *rec.Tx)
}

// pruneStore removes every blob that no release needs.
func (u *Updater) pruneStore(ctx context.Context) error {
	need := map[release.Digest]bool{}
	for _, r := range u.rec.releases() {
		need[r.Digest] = true
		for _, p := range r.Parts {
			if err := u.needPart(ctx, need, p); err != nil {
				return err
			}
		}
	}
	for _, t := range u.rec.open() {
		need[t.Locator] = true
		for _, s := range t.Scripts {
			need[s.Undoer.Digest] = true
		}
		for _, p := range t.Parts {
			if err := u.needPart(ctx, need, part{p.Name, p.Digest, t.To.Digest}); err != nil {
				return err
			}
		}
	}
	names, err := u.dir.List(blobFolder)
	if err != nil {
		return err
	}
	return u.dir.RemoveEach(blobFolder, slices.DeleteFunc(names, func(name string) bool {
		d, err := release.ParseDigest(name)
		return err != nil || need[d] // a foreign file is left alone
	}))
}

// needPart marks what one installed component needs of the store: its
// document, its index, and its blobs where they are kept for repair.
func (u *Updater) needPart(ctx context.Context, need map[release.Digest]bool, p part) error {
	need[p.Release] = true
	if r, err := u.document(p.Release); err == nil {
		for _, b := range r.ScriptBlobs() {
			need[b.Digest] = true
		}
	}
	c, err := u.installedComponent(p)
	if err != nil {
		return nil // what a lost document needs cannot be told
	}
	need[c.Index.Digest] = true
	b, ok := u.opts.Backends[p.Name].(Lister)
	if c.Keep.Repair == release.RepairNone || !ok {
		return nil
	}
	blobs, err := b.Blobs(ctx, c, u.local())
	for _, blob := range blobs {
		need[blob.Digest] = true
	}
	return err
}
