package publish

import (
	"bytes"
	"fmt"
	"iter"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/pawl-ota/pawl/internal/codec"
	"github.com/pawl-ota/pawl/ota/release"
)

// predecessor is a component in an earlier release, whose content devices may
// have.
type predecessor struct {
	seq   uint64
	kind  string
	index release.Blob
	file  []byte // of the index
	*listing
	table *release.Table
}

// predecessors returns those that get patches and deltas, newest first, each
// content once.
func (a *adding) predecessors(p *part) ([]*predecessor, error) {
	var list []*predecessor
	done := map[release.Digest]bool{p.blob.Digest: true}
	for _, l := range a.earlier[:min(len(a.earlier), a.r.opts.Deltas)] {
		c, ok := l.release.Component(p.Name)
		if !ok || c.Kind != p.Kind || done[c.Index.Digest] {
			continue
		}
		done[c.Index.Digest] = true
		from, err := a.r.disk.predecessor(l, c)
		if err != nil {
			return nil, fmt.Errorf("release %d: %w", l.Seq, err)
		}
		list = append(list, from)
	}
	return list, nil
}

func (d *disk) predecessor(l *listed, c release.Component) (*predecessor, error) {
	table, err := d.table(l.locator)
	if err != nil {
		return nil, err
	}
	p := &predecessor{seq: l.Seq, kind: c.Kind, index: c.Index, table: table}
	return p, p.read(d)
}

// read reads the index.
func (p *predecessor) read(d *disk) (err error) {
	if p.file, err = d.readBlob(p.index, p.table); err != nil {
		return err
	}
	p.listing, err = readListing(p.kind, p.file)
	return err
}

// packPatches stores, for each of the releases before, the oldest first, the
// patch of a new index from that one's, where it gains something, and the
// directory of the delta. So all that a device on the last release needs lies
// together, up to the groups of its delta.
func (a *adding) packPatches(p *packer, part *part) error {
	enc, err := newEncoder()
	if err != nil {
		return err
	}
	defer func() { _ = enc.Close() }()
	for _, from := range slices.Backward(part.from) {
		// Of an index that is in an earlier pack there are patches in that.
		if a.packed[part.blob.Digest] {
			if err := a.packPatch(p, part, from, enc); err != nil {
				return fmt.Errorf("patch from release %d: %w", from.seq, err)
			}
		}
		if err := a.packDirectory(p, part, from); err != nil {
			return fmt.Errorf("cannot write content: %w", err)
		}
	}
	return nil
}

func (a *adding) packPatch(p *packer, part *part, from *predecessor, enc *zstd.Encoder) error {
	if part.lines == nil {
		return nil
	}
	stored := enc.EncodeAll(codec.Script(from.lines(from.file), part.lines(part.file)), nil)
	if int64(len(stored)) >= a.known[part.blob.Digest].length {
		return nil
	}
	offset, length, err := p.other(bytes.NewReader(stored))
	a.patches = append(a.patches, release.Patch{To: part.blob, From: from.index.Digest, Offset: offset, Length: length, Codec: release.Splice})
	return err
}

// lines gives each line of the file of ix the name that it is sorted by.
func lines(ix *release.Index, file []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		i := -1
		for line := range bytes.Lines(file) {
			name := ""
			switch {
			case i == 0:
				name = "\x00" // the root comes before every path
			case i > 0:
				name = ix.Entries[i].Path
			}
			if !yield(name, line) {
				return
			}
			i++
		}
	}
}
