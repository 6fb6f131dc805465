package otatest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// Memory is a repository in memory, without signatures: an [ota.Source] for
// tests of a backend together with an Updater. It is filled while nobody reads
// it.
type Memory struct {
	files    map[string][]byte
	locators map[release.Digest]*release.Locator
	releases []*release.Release
	offered  *release.Release
}

var (
	_ ota.Source  = (*Memory)(nil)
	_ ota.Catalog = (*Memory)(nil)
)

// NewMemory returns an empty repository.
func NewMemory() *Memory {
	return &Memory{files: map[string][]byte{}, locators: map[release.Digest]*release.Locator{}}
}

// Put adds a release with its content, indexes and scripts included, in one
// pack and uncompressed. It panics where the release is not valid.
func (m *Memory) Put(r *release.Release, blobs ...[]byte) {
	if err := r.Validate(); err != nil {
		panic(err)
	}
	var pack bytes.Buffer
	var rows []release.TableRow
	seen := map[release.Digest]bool{}
	for _, b := range blobs {
		d := release.Sum(b)
		if seen[d] {
			continue
		}
		seen[d] = true
		rows = append(rows, release.TableRow{Digest: d, Offset: int64(pack.Len()), Length: int64(len(b)), Codec: release.Raw})
		pack.Write(b)
	}
	table, err := release.EncodeTable(rows, nil, 1)
	if err != nil {
		panic(err)
	}
	l := &release.Locator{
		Format: release.LocatorFormat, ID: r.ID, Release: r.Digest(),
		Packs: []release.Pack{{Name: release.PackName(release.Sum(pack.Bytes())), Size: int64(pack.Len())}},
		Table: blobOf(table),
	}
	m.files[l.Packs[0].Name] = pack.Bytes()
	m.files[release.TableName(l.Table.Digest)] = table
	m.locators[l.Release] = l
	m.releases = append(m.releases, r)
}

// Releases implements [ota.Catalog].
func (m *Memory) Releases(ctx context.Context, d ota.Device) (seqs []uint64, err error) {
	for _, r := range m.releases {
		if r.Product == d.Product && r.Variant == d.Variant {
			seqs = append(seqs, r.Seq)
		}
	}
	slices.Sort(seqs)
	slices.Reverse(seqs)
	return slices.Compact(seqs), ctx.Err()
}

// Release implements [ota.Catalog].
func (m *Memory) Release(ctx context.Context, d ota.Device, seq uint64) (*release.Release, error) {
	for _, r := range m.releases {
		if (r.ID == release.ID{Product: d.Product, Variant: d.Variant, Seq: seq}) {
			return r, ctx.Err()
		}
	}
	return nil, ota.ErrNoRelease
}

// Offer makes r what Latest returns to its product and variant; nil for
// nothing.
func (m *Memory) Offer(r *release.Release) { m.offered = r }

// Latest implements [ota.Source].
func (m *Memory) Latest(ctx context.Context, d ota.Device) (*release.Release, error) {
	r := m.offered
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case r == nil || r.Product != d.Product || r.Variant != d.Variant:
		return nil, ota.ErrNoRelease
	case len(r.Hardware) > 0 && !slices.Contains(r.Hardware, d.Hardware):
		return nil, ota.ErrHardware
	}
	return r, nil
}

// Locator implements [ota.Source].
func (m *Memory) Locator(_ context.Context, r *release.Release) (*release.Locator, error) {
	if l := m.locators[r.Digest()]; l != nil {
		return l, nil
	}
	return nil, ota.ErrNoRelease
}

// Open implements [ota.Source].
func (m *Memory) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	data, ok := m.files[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	size := int64(len(data))
	if offset < 0 || offset > size || length > size-offset {
		return nil, fmt.Errorf("otatest: %s has %d bytes, and not %d after %d", name, size, length, offset)
	}
	if data = data[offset:]; length >= 0 {
		data = data[:length]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}
