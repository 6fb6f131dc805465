//go:build linux

package micro

import (
	"context"
	"fmt"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// Adopt notes that the root holds c, as Repair does where nothing is left to
// mend.
func (f *treeFiles) Adopt(ctx context.Context, c release.Component, content ota.Content) error {
	if err := f.check(adoptTx, c); err != nil {
		return err
	}
	if err := f.adopt(ctx, c, content); err != nil {
		return fmt.Errorf("cannot adopt %s: %w", c.Name, explain(err))
	}
	return nil
}

// adoptTx is the transaction in which the in-place layout notes what is there.
const adoptTx = ota.TxID("adopt")

// Adopt is a transaction from nothing to c, in which no entry changes: what
// lasts of it is the mark and the record of what c put there.
func (f *inPlaceFiles) Adopt(ctx context.Context, c release.Component, content ota.Content) error {
	if a, err := f.Active(ctx, c.Name); err != nil || a.Is(c.Digest()) {
		return err
	}
	_, err := f.Stage(ctx, adoptTx, c, content)
	if err == nil {
		err = f.unchanged()
	}
	if err == nil {
		err = f.Activate(ctx, adoptTx, c)
	}
	if err == nil {
		err = f.Commit(ctx, adoptTx, c)
	}
	if err != nil {
		return fmt.Errorf("cannot adopt %s: %w", c.Name, err)
	}
	return nil
}

// unchanged makes sure that the staged transaction would change no entry.
func (f *inPlaceFiles) unchanged() error {
	cs, err := f.readChanges(adoptTx, "staged")
	if err == nil && (cs == nil || len(cs.Changes) > 0) {
		err = fmt.Errorf("what is there changed meanwhile: %w", ota.ErrState)
	}
	return err
}
