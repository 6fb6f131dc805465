package ota

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pawl-ota/pawl/internal/script"
	"github.com/pawl-ota/pawl/ota/release"
)

// Tx is one attempt to move the device to one release. It owns nothing:
// dropping it is safe, and after a kill or a clean exit alike Resume, then
// Updater.Tx, carries on with it.
//
//	staging → staged → activating → trial → committing → committed
//	    └────────┴─────────┴──────────┴──► reverting → reverted
//	                                          └────► stuck
type Tx struct {
	u   *Updater
	id  TxID
	rel *release.Release
}

// ID returns the transaction's name.
func (t *Tx) ID() TxID { return t.id }

// Release returns the release that is being tried. It must not be changed.
func (t *Tx) Release() *release.Release { return t.rel }

// State returns where the transaction stands.
func (t *Tx) State() State { return t.Result().State }

// Result returns how far the transaction got and what it needs now. It may be
// called at any time.
func (t *Tx) Result() Result {
	if s := t.u.Status(); s.Tx != nil && s.Tx.Tx == t.id {
		return *s.Tx
	}
	history := t.u.History()
	for _, r := range slices.Backward(history) {
		if r.Tx == t.id {
			return r
		}
	}
	return Result{Tx: t.id, State: Idle}
}

// Tx returns the open transaction, or nil. It knows one only after Resume or
// Begin.
func (u *Updater) Tx() *Tx {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.current
}

// Begin opens a transaction to r and makes that durable. Nothing is fetched
// but the locator.
//
// It refuses, with the error in parentheses: a release for another device
// (ErrHardware), one that is not above the running one (ErrDowngrade) or is
// below a floor (ErrFloor), one with a component that no backend handles
// (ErrComponent), one that is held back (ErrHeld), and any while another
// transaction is open (ErrState) and not stuck.
func (u *Updater) Begin(ctx context.Context, r *release.Release) (*Tx, error) {
	leave, err := u.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := u.mayBegin(); err != nil {
		return nil, err
	}
	if err := u.acceptable(r); err != nil {
		return nil, fmt.Errorf("cannot begin %s seq %d: %w", r.Version, r.Seq, err)
	}
	u.tidyOwed(ctx)
	locator, err := u.locate(ctx, r)
	if err != nil {
		return nil, err
	}
	return u.begin(ctx, r, txState{Locator: locator})
}

// mayBegin checks that no transaction is in the way.
func (u *Updater) mayBegin() error {
	if !u.settled {
		return fmt.Errorf("%w: call Resume first", ErrState)
	}
	if t := u.rec.Tx; t != nil && t.State != Stuck {
		return fmt.Errorf("%w: transaction %s is open (%s)", ErrState, t.ID, t.State)
	}
	if len(u.rec.Over) >= maxOver {
		return fmt.Errorf("%w: %d transactions are stuck", ErrStuck, len(u.rec.Over)+1)
	}
	return nil
}

// acceptable checks that r may come next on this device.
func (u *Updater) acceptable(r *release.Release) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if err := u.fits(r); err != nil {
		return err
	}
	if run := u.rec.Running; run != nil && r.Seq <= run.Seq {
		return fmt.Errorf("%w: seq %d is running", ErrDowngrade, run.Seq)
	}
	for _, t := range u.rec.open() {
		if t.State == Stuck && r.Seq <= t.To.Seq {
			return fmt.Errorf("%w: seq %d is stuck", ErrDowngrade, t.To.Seq)
		}
	}
	if err := u.rec.aboveFloors(r.Seq); err != nil {
		return err
	}
	for _, c := range r.Components {
		if u.opts.Backends[c.Name] == nil {
			return fmt.Errorf("%w: %q of kind %q", ErrComponent, c.Name, c.Kind)
		}
	}
	if err := u.inTime(r); err != nil {
		return err
	}
	return u.heldBack(r)
}

// inTime checks that the watchdog does not bite while a script runs.
func (u *Updater) inTime(r *release.Release) error {
	if u.opts.Watchdog == nil {
		return nil
	}
	scripts := r.Scripts
	for _, c := range r.Components {
		scripts = append(slices.Clip(scripts), c.Scripts...)
	}
	for _, s := range scripts {
		if limit := limitOf(s); limit+script.Grace > u.opts.WatchdogTimeout {
			return fmt.Errorf("%w: script %s may take %v, and %v to end; the watchdog bites after %v", ErrWatchdog, s.Name, limit, script.Grace, u.opts.WatchdogTimeout)
		}
	}
	return nil
}

// fits checks product, variant and hardware.
func (u *Updater) fits(r *release.Release) error {
	d := u.opts.Device
	if r.Product != d.Product || r.Variant != d.Variant {
		return fmt.Errorf("%w: it is for %s/%s, this is %s/%s", ErrHardware, r.Product, r.Variant, d.Product, d.Variant)
	}
	if len(r.Hardware) > 0 && !slices.Contains(r.Hardware, d.Hardware) {
		return fmt.Errorf("%w: it is for hardware %s, this is %q", ErrHardware, strings.Join(r.Hardware, ", "), d.Hardware)
	}
	return nil
}

func (rec *record) aboveFloors(seq uint64) error {
	if seq < rec.SecurityFloor {
		return fmt.Errorf("%w: seq %d, the security floor is %d", ErrFloor, seq, rec.SecurityFloor)
	}
	if seq < rec.DataFloor {
		return fmt.Errorf("%w: seq %d, the data floor is %d", ErrFloor, seq, rec.DataFloor)
	}
	return nil
}

// heldBack returns why r is not to be tried now.
func (u *Updater) heldBack(r *release.Release) error {
	h := u.rec.held(r.ID, r.Attempt)
	if h == nil || u.opts.Retry {
		return nil
	}
	if h.Condemned {
		return fmt.Errorf("%w: %s", ErrCondemned, h.Reason)
	}
	wait := h.Until.Sub(u.host.Now())
	// A clock that was set back must not hold a release for longer than the
	// back-off itself.
	if wait <= 0 || wait > backoff(h.Count) {
		return nil
	}
	return fmt.Errorf("%w (%v left, %d times): %s", ErrBackoff, wait.Round(time.Second), h.Count, h.Reason)
}

// begin records the transaction that t was prepared for.
func (u *Updater) begin(ctx context.Context, r *release.Release, t txState) (*Tx, error) {
	doc, err := r.Encode()
	if err != nil {
		return nil, err
	}
	digest, err := u.store().putDocument(doc)
	if err != nil {
		return nil, err
	}
	t.ID, t.State, t.Began = newTxID(r), Staging, u.host.Now().UTC().Truncate(time.Second)
	t.To = Installed{ID: r.ID, Version: r.Version, Digest: digest}
	if u.rec.Running != nil {
		t.From = u.rec.Running.Installed
	}
	if t.Parts, err = u.survey(ctx, r); err != nil {
		return nil, err
	}
	if u.rec.Tx != nil {
		u.rec.Over = append(u.rec.Over, *u.rec.Tx)
	}
	u.rec.Tx, u.rel, u.brought, u.silent, u.fresh = &t, r, false, nil, t.ID
	if err := u.save(); err != nil {
		return nil, err
	}
	u.report(Progress{Step: "begin"})
	return &Tx{u, t.ID, r}, nil
}

func newTxID(r *release.Release) TxID {
	return TxID(fmt.Sprintf("%d-%s", r.Seq, strings.ToLower(rand.Text()[:10])))
}

// survey asks the device what each component of r is now.
func (u *Updater) survey(ctx context.Context, r *release.Release) ([]txPart, error) {
	var parts []txPart
	for _, c := range r.Components {
		a, err := u.active(ctx, c.Name)
		if err != nil {
			return nil, err
		}
		_, committed := u.rec.part(c.Name, c.Digest())
		parts = append(parts, txPart{
			Name: c.Name, Digest: c.Digest(), Before: a,
			// What a stuck transaction left is never good enough.
			Same: a.Is(c.Digest()) && a.Next.IsZero() && u.rec.Tx == nil && committed,
		})
	}
	return parts, nil
}

// active asks the backend of one component, and refuses an answer that is
// none.
func (u *Updater) active(ctx context.Context, name string) (a Active, err error) {
	b, err := u.backend(name)
	if err != nil {
		return Active{}, err
	}
	err = u.run(ctx, u.opts.StepLimit, func(ctx context.Context) error {
		a, err = b.Active(ctx, name)
		return err
	})
	if err == nil && a.State != None && a.State != Whole && a.State != Mixed {
		err = fmt.Errorf("its backend answered %q", a.State)
	}
	if err != nil {
		return Active{}, fmt.Errorf("cannot tell what is in effect for %s: %w", name, err)
	}
	return a, nil
}

func (u *Updater) backend(name string) (Backend, error) {
	if b := u.opts.Backends[name]; b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("%w: %q", ErrComponent, name)
}

// open returns the record of t if t is open and in one of the given states.
func (t *Tx) open(states ...State) (*txState, error) {
	s := t.u.rec.Tx
	if s == nil || s.ID != t.id {
		return nil, fmt.Errorf("%w: transaction %s has ended", ErrState, t.id)
	}
	if !t.u.settled {
		return nil, fmt.Errorf("%w: call Resume first", ErrState)
	}
	if !slices.Contains(states, s.State) {
		return nil, fmt.Errorf("%w: transaction %s is %s", ErrState, t.id, s.State)
	}
	return s, nil
}
