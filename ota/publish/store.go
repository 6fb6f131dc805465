package publish

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pawl-ota/pawl/internal/chunk"
	"github.com/pawl-ota/pawl/ota/release"
)

// cutFrom is the length from which on blobs are cut into pieces.
const cutFrom = chunk.Whole

// store writes the pack and the table, and returns the locator.
func (a *adding) store(doc *release.Release) (*release.Locator, []byte, error) {
	var f *os.File
	err := a.r.disk.around("shelf", func() (err error) {
		f, err = a.r.disk.scratch()
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if err := a.fill(doc, f); err != nil {
		return nil, nil, err
	}
	groups, err := a.r.disk.scratch()
	if err != nil {
		return nil, nil, err
	}
	defer groups.Close()
	if err := a.makeDeltas(groups); err != nil {
		return nil, nil, err
	}
	if a.newPack, err = a.writePack(); err != nil {
		return nil, nil, err
	}
	return a.locate(doc, a.newPack)
}

// fill puts what is new on the shelf: the indexes, the scripts, the files.
func (a *adding) fill(doc *release.Release, f *os.File) (err error) {
	a.countTotal(doc)
	if a.shelf, err = newShelf(f); err != nil {
		return err
	}
	err = a.fillShelf(doc)
	if wrote := a.shelf.finish(); wrote != nil {
		err = fmt.Errorf("cannot write content: %w", wrote)
	}
	return err
}

func (a *adding) fillShelf(doc *release.Release) error {
	for i := range a.parts {
		p := &a.parts[i]
		if err := a.putPiece(p.blob, bytes.Clone(p.file)); err != nil {
			return err
		}
	}
	for _, b := range doc.ScriptBlobs() {
		if err := a.putFile("scripts", b, func() (io.ReadCloser, error) { return openProgram(a.programs[b.Digest]) }); err != nil {
			return fmt.Errorf("%s: %w", a.programs[b.Digest], err)
		}
	}
	for i := range a.parts {
		if err := a.fillPart(&a.parts[i]); err != nil {
			return fmt.Errorf("component %q: %w", a.parts[i].Name, err)
		}
	}
	return nil
}

// countTotal sums up what fill will read of files: what is not known, and what
// has to be cut to find out.
func (a *adding) countTotal(doc *release.Release) {
	seen := map[release.Digest]bool{}
	count := func(blobs []release.Blob) {
		for _, b := range blobs {
			if seen[b.Digest] {
				continue
			}
			seen[b.Digest] = true
			a.added.Size += b.Size
			if _, ok := a.known[b.Digest]; !ok {
				a.total += b.Size
			}
		}
	}
	count(doc.ScriptBlobs())
	for _, p := range a.parts {
		count(p.blobs)
	}
}

// fillPart packs the content of p.
func (a *adding) fillPart(p *part) error {
	for _, at := range p.named {
		if err := a.putFile(p.Name, at.Blob, func() (io.ReadCloser, error) { return p.source.open(at) }); err != nil {
			return fmt.Errorf("%q: %w", at.path, err)
		}
	}
	return nil
}

// putFile stores the content of a file, once. name is for the progress.
func (a *adding) putFile(name string, b release.Blob, open func() (io.ReadCloser, error)) error {
	if err := a.ctx.Err(); err != nil {
		return err
	}
	if _, ok := a.want[b.Digest]; ok {
		return nil
	}
	if at, ok := a.known[b.Digest]; ok && b.Size < cutFrom {
		a.takeKnown(b, at)
		a.want[b.Digest] = nil
		return nil
	}
	f, err := open()
	if err != nil {
		return err
	}
	defer f.Close()
	r := check(io.NopCloser(counted{io.LimitReader(f, b.Size+1), func(n int) {
		a.done += int64(n)
		a.r.opts.Progress(Progress{Step: "pack", Name: name, Done: a.done, Total: a.total})
	}}), b)
	before := a.fresh
	if b.Size < cutFrom {
		err = a.putWhole(b, r)
	} else {
		err = a.putCut(b, r)
	}
	if errors.Is(err, errBlob) {
		err = ErrChanged
	}
	if a.fresh > before {
		a.added.NewBlobs++
		a.added.NewSize += b.Size
	}
	return err
}

// putWhole stores a blob as one piece.
func (a *adding) putWhole(b release.Blob, r io.Reader) error {
	data := make([]byte, b.Size)
	if _, err := io.ReadFull(r, data); err != nil {
		return shortBlob(err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return shortBlob(err)
	}
	return a.putPiece(b, data)
}

// shortBlob is the error of a reader that ended where its blob does not.
func shortBlob(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errBlob
	}
	return err
}

// putCut stores a long blob in pieces.
func (a *adding) putCut(b release.Blob, r io.Reader) error {
	pieces := []release.Digest{}
	cutter := chunk.NewCutter(r)
	for {
		data, err := cutter.Next()
		if errors.Is(err, io.EOF) {
			if len(pieces) == 1 {
				pieces = nil // the blob itself
			}
			a.want[b.Digest] = pieces
			return nil
		}
		if err != nil {
			return err
		}
		p := blobOf(data)
		pieces = append(pieces, p.Digest)
		if err := a.needPiece(p, func() []byte { return bytes.Clone(data) }); err != nil {
			return err
		}
	}
}

// putPiece stores a blob that is one piece. data is the shelf's from now on.
func (a *adding) putPiece(b release.Blob, data []byte) error {
	a.want[b.Digest] = nil
	return a.needPiece(b, func() []byte { return data })
}

// needPiece puts a piece on the shelf unless the repository has it.
func (a *adding) needPiece(p release.Blob, data func() []byte) error {
	if at, ok := a.known[p.Digest]; ok {
		a.takeKnown(p, at)
		return nil
	}
	if a.shelf.has(p.Digest) {
		return nil
	}
	a.fresh++
	return a.shelf.put(a.ctx, p, data())
}

// takeKnown has a piece that an earlier pack holds copied where the new one is
// to be full.
func (a *adding) takeKnown(p release.Blob, at spot) {
	if a.full && !a.shelf.has(p.Digest) {
		a.shelf.add(p, at)
	}
}

// writePack writes the new pack, if there is anything in it. Afterwards known
// is where its pieces are.
func (a *adding) writePack() (release.Pack, error) {
	if len(a.shelf.items) == 0 && len(a.deltas) == 0 {
		return release.Pack{}, nil
	}
	f, err := a.r.disk.createTemp()
	if err != nil {
		return release.Pack{}, err
	}
	defer a.r.disk.drop(f)
	p := newPacker(f)
	if err := a.pack(p); err != nil {
		return release.Pack{}, err
	}
	b, err := p.finish()
	if err != nil {
		return release.Pack{}, fmt.Errorf("cannot write content: %w", err)
	}
	a.added.Stored = b.Size
	fresh := release.Pack{Name: release.PackName(b.Digest), Size: b.Size}
	return fresh, a.r.disk.place(f, fresh.Name)
}

// pack writes the content of the new pack in its order.
func (a *adding) pack(p *packer) error {
	for i := range a.parts {
		if err := a.packIndex(p, &a.parts[i]); err != nil {
			return fmt.Errorf("component %q: %w", a.parts[i].Name, err)
		}
	}
	if err := a.packGroups(p); err != nil {
		return err
	}
	for _, it := range a.shelf.items {
		if err := a.packItem(p, it); err != nil {
			return err
		}
	}
	return nil
}

// packItem writes a piece unless it is in the pack already.
func (a *adding) packItem(p *packer, it *shelved) error {
	if a.packed[it.Digest] {
		return nil
	}
	r, err := a.shelf.open(&a.r.disk, it)
	if err != nil {
		return err
	}
	defer r.Close()
	at, err := p.piece(it.Blob, it.codec, r)
	if err != nil {
		return fmt.Errorf("cannot write content: %w", err)
	}
	a.packed[it.Digest] = true
	a.known[it.Digest] = at
	return nil
}

// packIndex writes an index, unless the repository has it, with what makes it
// from others behind it.
func (a *adding) packIndex(p *packer, part *part) error {
	i, ok := a.shelf.at[part.blob.Digest]
	if ok {
		if err := a.packItem(p, a.shelf.items[i]); err != nil {
			return err
		}
	}
	return a.packPatches(p, part)
}

// locate makes the locator and the table.
func (a *adding) locate(doc *release.Release, fresh release.Pack) (*release.Locator, []byte, error) {
	loc := &release.Locator{Format: release.LocatorFormat, ID: doc.ID, Release: doc.Digest()}
	l := newLocating(a.known)
	for d, pieces := range a.want {
		l.want(d, pieces)
	}
	table, err := l.table(loc, a.packs, fresh)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range a.patches {
		p.Pack = l.number[release.Digest{}]
		loc.Patches = append(loc.Patches, p)
	}
	for _, m := range a.deltas {
		d := m.Delta
		d.Pack = l.number[release.Digest{}]
		loc.Deltas = append(loc.Deltas, d)
	}
	return loc, table, loc.Validate()
}

// publish writes the documents and signs.
func (a *adding) publish(doc *release.Release, loc *release.Locator, table []byte) error {
	if err := a.r.disk.writeFile(release.TableName(loc.Table.Digest), table); err != nil {
		return err
	}
	a.added.Stored += int64(len(table))
	docs, err := a.r.addDocuments(a.meta, doc, loc)
	if err == nil {
		err = a.enclose(docs, loc, table)
	}
	if err != nil {
		return err
	}
	if err := a.ctx.Err(); err != nil {
		return err
	}
	a.r.opts.Progress(Progress{Step: "sign"})
	a.added.ID, a.added.Version, a.added.Release, a.added.Issued = doc.ID, doc.Version, doc.Digest(), doc.Issued
	return a.r.finish(a.t, a.edit)
}
