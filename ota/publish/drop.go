package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pawl-ota/pawl/ota/release"
)

// ErrNoRelease is returned for a release that the repository does not list.
var ErrNoRelease = errors.New("no such release")

// Drop lists releases of one variant no more, so that the metadata does not
// grow for ever, or to withdraw one before more devices take it. Devices that
// run a dropped release take the newest one next as any other device. The seq
// of a dropped release is never given again. Its files stay where they are.
func (r *Repository) Drop(ctx context.Context, variant string, seqs ...uint64) error {
	what := fmt.Sprintf("drop %s %v", variant, seqs)
	return r.change(ctx, what, func(t *trusted, now time.Time) (*edit, error) {
		return r.drop(t, what, variant, seqs, now)
	})
}

// KeepLast drops all but the n newest releases of a variant, and returns the
// seqs of those that it dropped. The newest three are what indexes of the next
// release are patched from: a device on an earlier one fetches indexes whole.
func (r *Repository) KeepLast(ctx context.Context, variant string, n int) (dropped []uint64, err error) {
	what := fmt.Sprintf("keep the last %d of %s", n, variant)
	err = r.change(ctx, what, func(t *trusted, now time.Time) (*edit, error) {
		if n < 1 {
			return nil, errors.New("the newest release has to stay: drop it by its seq to withdraw it")
		}
		dropped = seqsOf(t, variant)
		dropped = dropped[:max(0, len(dropped)-n)]
		if len(dropped) == 0 {
			return &edit{}, nil
		}
		return r.drop(t, what, variant, dropped, now)
	})
	if err != nil && !errors.Is(err, ErrWaiting) {
		return nil, err
	}
	return dropped, err
}

// seqsOf returns the seqs of the releases of a variant, the newest last.
func seqsOf(t *trusted, variant string) (list []uint64) {
	for name, at := range resolve(t) {
		if tg, _, err := parseTarget(name, at.file); err == nil && tg.Kind == kindRelease && tg.Variant == variant {
			list = append(list, tg.Seq)
		}
	}
	slices.SortFunc(list, cmp.Compare[uint64])
	return list
}

func (r *Repository) drop(t *trusted, what, variant string, seqs []uint64, now time.Time) (*edit, error) {
	all := resolve(t)
	var roles []Role
	for _, seq := range seqs {
		at, ok := all[target{Kind: kindRelease, Product: productOf(t), Variant: variant, Seq: seq}.name()]
		if !ok {
			return nil, fmt.Errorf("%w: %s seq %d", ErrNoRelease, variant, seq)
		}
		roles = append(roles, at.role)
	}
	e, err := r.begin(t, what, roles...)
	if err != nil {
		return nil, err
	}
	for i, seq := range seqs {
		meta := e.bump(t, roles[i], r.expires(now, roles[i]))
		note := oursOf(meta)
		note.remember(variant, seq)
		note.set(meta)
		for _, kind := range []string{kindRelease, kindLocator} {
			delete(meta.Signed.Targets, target{Kind: kind, Product: productOf(t), Variant: variant, Seq: seq}.name())
		}
	}
	return e, nil
}

// Retry raises the attempt of a release, and returns it: devices that have
// condemned the release, because it failed its trial there, try it again, and
// nobody else notices. The release stays the same in everything else; that
// is what devices insist on for a seq that they have seen.
func (r *Repository) Retry(ctx context.Context, variant string, seq uint64) (attempt uint32, err error) {
	what := fmt.Sprintf("retry %s seq %d", variant, seq)
	err = r.change(ctx, what, func(t *trusted, now time.Time) (*edit, error) {
		list, err := r.disk.listed(t)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(list, func(l *listed) bool {
			return l.id() == release.ID{Product: productOf(t), Variant: variant, Seq: seq}
		})
		if i < 0 {
			return nil, fmt.Errorf("%w: %s seq %d", ErrNoRelease, variant, seq)
		}
		l := list[i]
		if newest := seqsOf(t, variant); seq != newest[len(newest)-1] {
			return nil, fmt.Errorf("seq %d is not the newest release: no device would take it", seq)
		}
		l.release.Attempt++
		l.locator.Release = l.release.Digest()
		attempt = l.release.Attempt
		e, err := r.begin(t, what, l.role)
		if err != nil {
			return nil, err
		}
		_, err = r.addDocuments(e.bump(t, l.role, r.expires(now, l.role)), l.release, l.locator)
		return e, err
	})
	return attempt, err
}

// addDocuments writes the two documents of a release, lists them, and returns them.
func (r *Repository) addDocuments(meta *targetsMeta, doc *release.Release, loc *release.Locator) (files []sealed, err error) {
	data, err := doc.Encode()
	if err != nil {
		return nil, err
	}
	locData, err := loc.Encode()
	if err != nil {
		return nil, err
	}
	t := target{Product: doc.Product, Variant: doc.Variant, Seq: doc.Seq,
		Hardware: doc.Hardware, Version: doc.Version, Attempt: doc.Attempt}
	for _, file := range []sealed{{kindRelease, data}, {kindLocator, locData}} {
		t.Kind = file.name
		if err := t.addTo(&meta.Signed, file.data); err != nil {
			return nil, err
		}
		file.name = t.file(release.Sum(file.data))
		if err := r.disk.writeFile(file.name, file.data); err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}
