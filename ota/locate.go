package ota

import (
	"context"
	"fmt"

	"github.com/pawl-ota/pawl/ota/release"
)

// locate stores the locator of r, so that a Stage that began needs no fresh
// metadata any more.
func (u *Updater) locate(ctx context.Context, r *release.Release) (release.Digest, error) {
	if u.opts.Source == nil {
		return release.Digest{}, fmt.Errorf("cannot begin %s: %w", r.Version, ErrNoSource)
	}
	l, err := u.opts.Source.Locator(ctx, r)
	if err != nil {
		return release.Digest{}, fmt.Errorf("cannot find the content of %s: %w", r.Version, err)
	}
	if l.Release != r.Digest() {
		return release.Digest{}, fmt.Errorf("cannot use the locator of %s: it is of another release: %w", r.Version, ErrDigest)
	}
	encoded, err := l.Encode()
	if err != nil {
		return release.Digest{}, fmt.Errorf("cannot use the locator of %s: %w", r.Version, err)
	}
	return u.store().put(encoded)
}
