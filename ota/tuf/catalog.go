package tuf

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

var _ ota.Catalog = (*Source)(nil)

// Releases implements [ota.Catalog]: the seqs of all releases for dev's product
// and variant that the repository lists, from the highest down. Some may be ones
// that their role may not list: Release says so. Errors are those of Latest.
func (s *Source) Releases(ctx context.Context, dev ota.Device) ([]uint64, error) {
	if err := release.CheckID(release.ID{Product: dev.Product, Variant: dev.Variant, Seq: 1}); err != nil {
		return nil, err
	}
	var seqs []uint64
	err := s.lookup(ctx, false, func(v *view) (err error) {
		seqs, err = v.list(targetFolder(kindRelease, dev.Product, dev.Variant))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list the releases: %w", err)
	}
	return seqs, nil
}

// Release implements [ota.Catalog]. Errors are those of Latest.
func (s *Source) Release(ctx context.Context, dev ota.Device, seq uint64) (*release.Release, error) {
	id := release.ID{Product: dev.Product, Variant: dev.Variant, Seq: seq}
	if err := release.CheckID(id); err != nil {
		return nil, err
	}
	var found *release.Release
	err := s.lookup(ctx, false, func(v *view) error {
		t, err := v.document(targetName(kindRelease, id))
		if isNoTarget(err) {
			return fmt.Errorf("seq %s: %w", strconv.FormatUint(seq, 10), ota.ErrNoRelease)
		}
		if err == nil && len(t.hardware) > 0 && !slices.Contains(t.hardware, dev.Hardware) {
			err = fmt.Errorf("%s: %w", t.Name, ota.ErrHardware)
		}
		if err == nil {
			found, err = v.release(t)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read a release: %w", err)
	}
	return found, nil
}
