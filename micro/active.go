//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
)

// Active says what the root holds. The evidence is which inode the root is: a
// tree gets its inode while it is built, and the exchange is the only thing
// that gives it the root's name. Carried paths that are still, or again, in
// the other tree make the answer [ota.Mixed].
//
// Where the evidence does not decide, because the record of it is lost or the
// root was copied to another place, the root is compared by content with what
// is known, which takes as long as reading it.
func (f *treeFiles) Active(ctx context.Context, name string) (ota.Active, error) {
	if name != f.opts.Name {
		return ota.Active{}, fmt.Errorf("component %.80q came to the backend of %q", name, f.opts.Name)
	}
	root, err := look(f.opts.Root)
	if err != nil {
		return ota.Active{}, fmt.Errorf("cannot look at the root: %w", err)
	}
	switch {
	case !root.there:
		return ota.Active{State: ota.None}, nil
	case !root.info.IsDir():
		return ota.Active{State: ota.Mixed}, nil
	}
	plans, err := f.plans()
	if err != nil {
		return ota.Active{}, err
	}
	if k, ok := f.identify(root, plans); ok {
		return f.whole(root, k, plans)
	}
	if empty, err := isEmpty(f.opts.Root); err != nil || empty {
		return ota.Active{State: ota.None}, err
	}
	k, err := f.compareAll(ctx, root)
	if err != nil || k.Digest.IsZero() {
		return ota.Active{State: ota.Mixed}, err
	}
	return f.whole(root, k, plans)
}

func isEmpty(dir string) (bool, error) {
	tree, err := at.Open(dir)
	if err != nil {
		return false, err
	}
	names, err := tree.ReadDir(".")
	return len(names) == 0, errors.Join(err, tree.Close())
}

// whole answers for a root that is known to hold k: it is whole where all
// carried paths are in it.
func (f *treeFiles) whole(root place, k known, plans map[ota.TxID]*plan) (ota.Active, error) {
	for tx, p := range plans {
		if !root.is(&p.New) && !root.is(p.Old) {
			continue
		}
		left, err := f.leftBehind(tx, p, root.is(&p.New))
		if err != nil {
			return ota.Active{}, err
		}
		if left {
			return ota.Active{State: ota.Mixed}, nil
		}
	}
	return ota.Active{State: ota.Whole, Digest: k.Digest}, nil
}

// leftBehind reports whether a carried path is in the transaction's tree and
// should be in the root's.
func (f *treeFiles) leftBehind(tx ota.TxID, p *plan, forward bool) (bool, error) {
	other, err := at.Open(f.treePath(tx))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	root, err := at.Open(f.opts.Root)
	if err != nil {
		return false, errors.Join(err, other.Close())
	}
	left := false
	for _, m := range p.Moves {
		if !forward && !m.Back {
			continue
		}
		_, here := root.Stat(m.Path)
		_, there := other.Stat(m.Path)
		left = left || isGone(here) && there == nil
	}
	return left, errors.Join(root.Close(), other.Close())
}
