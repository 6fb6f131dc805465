package publish

import (
	"fmt"
	"io"
	"os"

	"github.com/pawl-ota/pawl/ota/release"
)

// patches makes the index to of each patch whose other index the repository has.
func (v *verifying) patches(to *predecessor, l *release.Locator) error {
	for _, p := range l.Patches {
		at, ok := v.indexes[p.From]
		if p.To.Digest != to.index.Digest || !ok {
			continue
		}
		if p.To != to.index {
			return fmt.Errorf("patch: %d bytes are to come of it, not %d", p.To.Size, to.index.Size)
		}
		from, err := v.r.disk.predecessor(at.in, at.Component)
		if err != nil {
			return err
		}
		r, err := v.r.disk.openPlace(l.Place(p), from.file)
		if err == nil {
			r = check(r, p.To)
			_, err = io.Copy(io.Discard, r)
			_ = r.Close()
		}
		if err != nil {
			return fmt.Errorf("patch from index %s: %w", p.From.Short(), err)
		}
	}
	return nil
}

// deltas reads the directory of each delta, and makes what it is for where the
// repository has the index that it starts from.
func (v *verifying) deltas(component string, to *predecessor, l *release.Locator) error {
	for _, d := range l.Deltas {
		if d.Component != component {
			continue
		}
		if d.To != to.index.Digest {
			return fmt.Errorf("delta to index %s, not %s", d.To.Short(), to.index.Digest.Short())
		}
		at, ok := v.indexes[d.From]
		if !ok {
			continue
		}
		from, err := v.r.disk.predecessor(at.in, at.Component)
		if err != nil {
			return err
		}
		if err := v.delta(d, l.Packs[d.Pack], from, to); err != nil {
			return fmt.Errorf("delta from index %s: %w", d.From.Short(), err)
		}
	}
	return nil
}

func (v *verifying) delta(d release.Delta, pack release.Pack, from, to *predecessor) error {
	f, err := os.Open(v.r.disk.path(pack.Name))
	if err != nil {
		return err
	}
	defer f.Close()
	stored := make([]byte, d.Length)
	if _, err := f.ReadAt(stored, d.Offset); err != nil {
		return err
	}
	olds, news := from.blobs, to.blobs
	dir, err := release.ParseDelta(stored, d, len(olds), len(news))
	if err != nil {
		return err
	}
	for i, g := range dir.Groups {
		if err := v.group(g, io.NewSectionReader(f, d.Start+g.Offset, g.Length), from, olds, news); err != nil {
			return fmt.Errorf("group %d: %w", i, err)
		}
	}
	return v.ctx.Err()
}

// group makes the blobs of a group.
func (v *verifying) group(g release.DeltaGroup, stored io.Reader, from *predecessor, olds, news []release.Blob) error {
	scratch, err := scratch("") // a repository can be verified by who may not write to it
	if err != nil {
		return err
	}
	defer scratch.Close()
	at, n := make([]int64, len(g.Patches)), int64(0)
	for i, p := range g.Patches {
		if at[i] = n; p.From < 0 {
			continue
		}
		r, err := v.r.disk.openBlob(olds[p.From], from.table)
		if err != nil {
			return err
		}
		if _, err := io.Copy(scratch, r); err != nil {
			return err
		}
		_ = r.Close()
		n += olds[p.From].Size
	}
	return applyGroup(stored, len(g.Patches), func(i int) (io.ReaderAt, int64, release.Blob) {
		p := g.Patches[i]
		if p.From < 0 {
			return nil, 0, news[p.To]
		}
		size := olds[p.From].Size
		return io.NewSectionReader(scratch, at[i], size), size, news[p.To]
	})
}
