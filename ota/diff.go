package ota

import (
	"context"
	"fmt"

	"github.com/pawl-ota/pawl/ota/release"
)

// Diff tells what an update to r, a release from Check, would change on the
// device as it is now, component by component in the release's order. It
// changes nothing on the device and keeps nothing of what it reads: the
// indexes of r come from the source unless they are here. A component that
// stays as it is has no change, and one whose backend is no Differ has one, of
// its path ".".
func (u *Updater) Diff(ctx context.Context, r *release.Release) ([]Change, error) {
	leave, err := u.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	from, err := u.looking(ctx, r)
	if err != nil {
		return nil, err
	}
	var changes []Change
	for _, c := range r.Components {
		found, err := u.diff(ctx, c, from)
		if err != nil {
			return nil, fmt.Errorf("cannot compare %s with %s: %w", c.Name, r.Version, err)
		}
		changes = append(changes, found...)
	}
	return changes, nil
}

func (u *Updater) diff(ctx context.Context, c release.Component, content Content) (changes []Change, err error) {
	b, err := u.backend(c.Name)
	if err != nil {
		return nil, err
	}
	a, err := u.active(ctx, c.Name)
	if err != nil || a.Is(c.Digest()) && a.Next.IsZero() {
		return nil, err
	}
	d, ok := b.(Differ)
	if !ok {
		return []Change{{Component: c.Name, Path: ".", What: Changed, Detail: describe(a) + " → " + c.Digest().Short()}}, nil
	}
	err = u.run(ctx, u.opts.StageLimit, func(ctx context.Context) error {
		changes, err = d.Diff(ctx, c, content)
		return err
	})
	return changes, err
}
