package publish

import (
	"bytes"
	"fmt"
	"iter"

	"github.com/pawl-ota/pawl/internal/codec"
	"github.com/pawl-ota/pawl/ota/release"
)

// addPatches stores patches of a new index from those of the releases before,
// where they gain something.
func (a *adding) addPatches(p *part) error {
	if s := a.known[p.blob.Digest]; !s.pack.IsZero() {
		return nil // a device that has had it, or gets it whole from an earlier pack
	}
	done := map[release.Digest]bool{}
	for _, l := range a.earlier[:min(len(a.earlier), patchesFrom)] {
		c, ok := l.release.Component(p.Name)
		if !ok || c.Kind != p.Kind || done[c.Index.Digest] {
			continue
		}
		done[c.Index.Digest] = true
		if err := a.addPatch(p, c.Index); err != nil {
			return fmt.Errorf("patch from release %d: %w", l.Seq, err)
		}
	}
	return nil
}

func (a *adding) addPatch(p *part, from release.Blob) error {
	old, err := a.readBlob(from)
	if err != nil {
		return err
	}
	ix, err := release.ReadIndex(bytes.NewReader(old), 0)
	if err != nil {
		return err
	}
	start := a.packer.n
	s, err := a.packer.addPatch(codec.Script(lines(ix, old), lines(p.index, p.file)))
	if err != nil {
		return err
	}
	if s.length >= a.known[p.blob.Digest].length {
		return a.packer.back(start)
	}
	a.patches = append(a.patches, release.Patch{To: p.blob, From: from.Digest, Offset: s.offset, Length: s.length, Codec: s.codec})
	return nil
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
