package ota_test

import (
	"errors"

	"github.com/pawl-ota/pawl/ota"
)

// driver is what one process of the model does once Resume has returned and
// nothing has to happen first. done means that there is no more to do.
type driver func(r *run, u *ota.Updater) (done bool, res ota.Result, err error)

// byUpdate goes the whole way by Update.
func byUpdate(r *run, u *ota.Updater) (bool, ota.Result, error) {
	res, err := u.Update(r.device.Context())
	done := err == nil && (res.State == ota.Committed || res.State == ota.Idle) || errors.Is(err, ota.ErrCondemned)
	return done, res, err
}

// byVerbs is an embedder that decides for itself when to take which step.
func byVerbs(r *run, u *ota.Updater) (bool, ota.Result, error) {
	ctx := r.device.Context()
	tx := u.Tx()
	if tx == nil {
		rel, err := u.Check(ctx)
		if err != nil {
			done := errors.Is(err, ota.ErrUpToDate) || errors.Is(err, ota.ErrCondemned)
			if errors.Is(err, ota.ErrUpToDate) {
				err = nil
			}
			return done, ota.Result{}, err
		}
		if tx, err = u.Begin(ctx, rel); err != nil {
			return false, ota.Result{}, err
		}
	}
	err := steps(r, tx)
	return false, tx.Result(), err
}

// steps takes a transaction from where it is to its end.
func steps(r *run, tx *ota.Tx) error {
	ctx := r.device.Context()
	switch tx.State() {
	case ota.Staging:
		if err := tx.Stage(ctx); err != nil {
			return err
		}
		fallthrough
	case ota.Staged:
		if err := tx.Activate(ctx); err != nil {
			return err
		}
		fallthrough
	case ota.InTrial, ota.Committing:
		return tx.Commit(ctx)
	default:
		return nil
	}
}

// byRollback goes back to the kept release, by an operator who asks again
// after a fault.
func byRollback(r *run, u *ota.Updater) (bool, ota.Result, error) {
	if tx := u.Tx(); tx != nil {
		err := steps(r, tx)
		return false, tx.Result(), err
	}
	if u.Status().Running.Seq == 1 {
		return true, ota.Result{}, nil
	}
	res, err := u.Rollback(r.device.Context(), 0)
	return false, res, err
}

// byHand takes every trial back that it finds or makes, and leaves it at that.
func byHand(r *run, u *ota.Updater) (bool, ota.Result, error) {
	ctx := r.device.Context()
	tx := u.Tx()
	if tx == nil {
		rel, err := u.Check(ctx)
		if err != nil {
			return errors.Is(err, ota.ErrCondemned), ota.Result{}, err
		}
		if tx, err = u.Begin(ctx, rel); err != nil {
			return false, ota.Result{}, err
		}
	}
	if tx.State() == ota.Staging {
		if err := tx.Stage(ctx); err != nil {
			return false, tx.Result(), err
		}
	}
	if tx.State() == ota.Staged {
		err := tx.Activate(ctx)
		if err != nil || tx.Result().Needs == ota.NeedsReboot {
			return false, tx.Result(), err
		}
	}
	if tx.State() != ota.InTrial {
		return false, tx.Result(), nil
	}
	err := tx.Rollback(ctx, "by hand")
	return false, tx.Result(), err
}
