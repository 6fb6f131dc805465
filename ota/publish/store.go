package publish

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/pawl-ota/pawl/ota/release"
)

// store writes the pack and the table, and returns the locator.
func (a *adding) store(doc *release.Release) (*release.Locator, []byte, error) {
	f, err := a.r.disk.createTemp()
	if err != nil {
		return nil, nil, err
	}
	defer a.r.disk.drop(f)
	if a.packer, err = newPacker(f); err != nil {
		return nil, nil, err
	}
	if err := a.fill(doc); err != nil {
		return nil, nil, err
	}
	fresh := release.Pack{}
	if a.packer.n > 0 {
		b, err := a.packer.finish()
		if err != nil {
			return nil, nil, fmt.Errorf("cannot write content: %w", err)
		}
		if err := a.r.disk.place(f, release.PackName(b.Digest)); err != nil {
			return nil, nil, err
		}
		fresh = release.Pack{Name: release.PackName(b.Digest), Size: b.Size}
		a.added.Stored = b.Size
	}
	return a.locate(doc, fresh)
}

// fill packs what is new: the indexes and the scripts, which a device wants
// first, patches of the indexes last.
func (a *adding) fill(doc *release.Release) error {
	a.countNew(doc)
	for i := range a.parts {
		p := &a.parts[i]
		open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(p.file)), nil }
		if err := a.put(p.blob, open); err != nil {
			return fmt.Errorf("component %q: index: %w", p.Name, err)
		}
	}
	for _, b := range doc.ScriptBlobs() {
		if err := a.putFile("scripts", b, func() (*os.File, error) { return openProgram(a.programs[b.Digest]) }); err != nil {
			return fmt.Errorf("%s: %w", a.programs[b.Digest], err)
		}
	}
	for i := range a.parts {
		if err := a.fillPart(&a.parts[i]); err != nil {
			return fmt.Errorf("component %q: %w", a.parts[i].Name, err)
		}
	}
	for i := range a.parts {
		if err := a.addPatches(&a.parts[i]); err != nil {
			return fmt.Errorf("component %q: %w", a.parts[i].Name, err)
		}
	}
	return nil
}

// countNew sums up what fill will read of files.
func (a *adding) countNew(doc *release.Release) {
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
				a.added.NewBlobs++
			}
		}
	}
	count(doc.ScriptBlobs())
	for _, p := range a.parts {
		count(p.index.Blobs())
	}
	a.added.NewSize = a.total
}

// fillPart packs the files of p.
func (a *adding) fillPart(p *part) error {
	root, err := os.OpenRoot(p.From)
	if err != nil {
		return err
	}
	defer root.Close()
	for i := range p.index.Entries {
		e := &p.index.Entries[i]
		if e.Type != release.File {
			continue
		}
		if err := a.putFile(p.Name, e.Blob, func() (*os.File, error) { return openRegular(root, e.Path, nil) }); err != nil {
			return fmt.Errorf("%q: %w", e.Path, err)
		}
	}
	return nil
}

// putFile stores the content of a file. name is for the progress.
func (a *adding) putFile(name string, b release.Blob, open func() (*os.File, error)) error {
	_, old := a.known[b.Digest]
	err := a.put(b, func() (io.ReadCloser, error) {
		f, err := open()
		if err != nil {
			return nil, err
		}
		read := a.done
		return countedFile{counted{f, func(n int) {
			read += int64(n)
			a.r.opts.Progress(Progress{Step: "pack", Name: name, Done: read, Total: a.total})
		}}, f}, nil
	})
	if !old {
		a.done += b.Size
	}
	return err
}

// countedFile is a file that tells how much of it was read.
type countedFile struct {
	counted
	io.Closer
}

// put stores b unless it is in the repository.
func (a *adding) put(b release.Blob, open func() (io.ReadCloser, error)) error {
	if err := a.ctx.Err(); err != nil {
		return err
	}
	a.want[b.Digest] = true
	if _, ok := a.known[b.Digest]; ok {
		return nil
	}
	s, err := a.packer.add(b, open)
	if err == nil {
		a.known[b.Digest] = s
	}
	return err
}

// locate makes the locator and the table.
func (a *adding) locate(doc *release.Release, fresh release.Pack) (*release.Locator, []byte, error) {
	loc := &release.Locator{Format: release.LocatorFormat, ID: doc.ID, Release: doc.Digest()}
	number := map[release.Digest]int{}
	used := map[release.Digest]bool{}
	for d := range a.want {
		used[a.known[d].pack] = true
	}
	for _, p := range a.packs {
		if d, err := p.Digest(); err == nil && used[d] {
			number[d] = len(loc.Packs)
			loc.Packs = append(loc.Packs, p)
		}
	}
	if fresh.Name != "" {
		number[release.Digest{}] = len(loc.Packs)
		loc.Packs = append(loc.Packs, fresh)
	}
	rows := make([]release.TableRow, 0, len(a.want))
	for d := range a.want {
		s := a.known[d]
		rows = append(rows, release.TableRow{Digest: d, Pack: number[s.pack], Offset: s.offset, Length: s.length, Codec: s.codec})
	}
	table, err := release.EncodeTable(rows, nil, len(loc.Packs))
	if err != nil {
		return nil, nil, err
	}
	loc.Table = blobOf(table)
	for _, p := range a.patches {
		p.Pack = number[release.Digest{}]
		loc.Patches = append(loc.Patches, p)
	}
	return loc, table, loc.Validate()
}

// publish writes the documents and signs.
func (a *adding) publish(doc *release.Release, loc *release.Locator, table []byte) error {
	if err := a.r.disk.writeFile(release.TableName(loc.Table.Digest), table); err != nil {
		return err
	}
	a.added.Stored += int64(len(table))
	if err := a.r.addDocuments(a.meta, doc, loc); err != nil {
		return err
	}
	if err := a.ctx.Err(); err != nil {
		return err
	}
	a.r.opts.Progress(Progress{Step: "sign"})
	a.added.ID, a.added.Version, a.added.Release, a.added.Issued = doc.ID, doc.Version, doc.Digest(), doc.Issued
	return a.r.finish(a.t, a.edit)
}

// readBlob reads a blob of the repository into memory.
func (a *adding) readBlob(b release.Blob) ([]byte, error) {
	s, ok := a.known[b.Digest]
	if !ok || s.pack.IsZero() {
		return nil, fs.ErrNotExist
	}
	r, err := a.r.disk.openPlace(b, release.Place{Pack: release.PackName(s.pack), Offset: s.offset, Length: s.length, Codec: s.codec}, nil)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}
