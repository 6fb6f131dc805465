package ota

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pawl-ota/pawl/internal/journal"
	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// Updater moves one device between releases. Its verbs are called one at a
// time: a second one that is called meanwhile, from a callback too, returns
// ErrState. Status and History may be called at any time.
type Updater struct {
	opts    Options
	host    seam.Host
	dir     seam.Dir
	journal *journal.Journal
	unlock  func() error
	boot    string
	process string // unique over boots

	verb     sync.Mutex    // held while a verb runs
	since    time.Duration // uptime up to which the open transaction was charged
	rec      *record
	rel      *release.Release // of the open transaction; nil until Resume
	settled  bool             // Resume returned in this process
	brought  bool             // the open trial was brought into effect in this process
	fallback bool             // a record was lost; cleared by the next save
	lost     bool             // no record was left
	poison   error            // why no verb may run any more
	armed    bool             // the watchdog
	retryAt  time.Duration
	fresh    TxID           // begun in this process, and never staged
	tried    bool           // a stuck transaction, in this process
	silent   *time.Duration // uptime since which no backend could tell what runs
	placed   []string       // names in the state directory that no Sync made durable yet
	ended    *Result        // the transaction that ended last in this process
	asking   chan error     // a health check that has not returned yet
	fetched  int64          // bytes of content read from the source
	causes   Fetched        // of what was fetched since it was last asked for
	spool    *spool         // of what comes, once something does
	counted  int64          // of all that was read, what was asked for already

	mu      sync.Mutex // guards what follows, for Status and History
	status  Status
	history []Result
	notes   []string
	current *Tx
}

// Open takes the state directory for this process and reads the journal. It
// changes nothing that runs: call Resume next, whatever the state.
//
// It returns ErrLocked when another process holds the directory for longer
// than Options.LockWait, and ErrJournal when the journal was written by a
// newer program; both leave everything as it is. Damaged records are set
// aside, and Status says so.
func Open(ctx context.Context, o Options) (*Updater, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	u := &Updater{opts: o, host: o.host, dir: o.dir}
	if u.host == nil {
		u.host = machine{}
	}
	if u.dir == nil {
		if u.dir, err = durable.OpenDir(o.Dir); err != nil {
			return nil, fmt.Errorf("cannot open the state directory: %w", err)
		}
	}
	if u.unlock, err = u.dir.Lock(ctx, o.LockWait); err != nil {
		return nil, errors.Join(lockError(err), u.dir.Close())
	}
	if err := u.read(); err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return u, nil
}

func lockError(err error) error {
	if errors.Is(err, durable.ErrLocked) {
		return fmt.Errorf("%w: %w", ErrLocked, err)
	}
	return fmt.Errorf("cannot lock the state directory: %w", err)
}

// read finds out where and when this is, and what the journal says.
func (u *Updater) read() error {
	boot, err := u.host.Boot()
	if err != nil {
		return err
	}
	process, err := u.host.Process()
	if err != nil {
		return err
	}
	u.boot, u.process = boot, boot+"/"+process
	j, found, err := openJournal(u.dir)
	if err != nil {
		return err
	}
	u.journal, u.rec, u.notes = j, found.rec, found.notes
	u.fallback, u.lost = found.fallback, found.lost
	if u.fallback {
		j.SetAside()
	}
	u.publish()
	return nil
}

// recorded is what a journal says.
type recorded struct {
	rec            *record
	fallback, lost bool
	notes          []string
}

func openJournal(dir journal.Dir) (*journal.Journal, recorded, error) {
	j, found, err := journal.Open(dir)
	if errors.Is(err, journal.ErrFormat) {
		return nil, recorded{}, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	if err != nil {
		return nil, recorded{}, err
	}
	rec, err := load(found.Body)
	if err != nil {
		return nil, recorded{}, err
	}
	notes := found.Notes
	lost := found.Fallback && found.Body == nil
	if lost {
		notes = append(notes, "no whole journal record is left: the device starts from what its backends say")
	}
	return j, recorded{rec, found.Fallback, lost, notes}, nil
}

// ReadStatus returns the status that the state directory dir holds, without
// taking it: also while another process updates.
func ReadStatus(dir string) (Status, error) {
	status, _, err := peek(dir)
	return status, err
}

// ReadHistory returns the transactions that ended, oldest first, without
// taking the state directory dir.
func ReadHistory(dir string) ([]Result, error) {
	_, history, err := peek(dir)
	return history, err
}

func peek(path string) (Status, []Result, error) {
	dir, err := durable.OpenDir(path)
	if err != nil {
		return Status{}, nil, fmt.Errorf("cannot open the state directory: %w", err)
	}
	_, found, err := openJournal(dir)
	if err = errors.Join(err, dir.Close()); err != nil {
		return Status{}, nil, err
	}
	return found.rec.status(found.notes), found.rec.History, nil
}

// Close lets go of the state directory. An open transaction stays as it is for
// the next Resume.
func (u *Updater) Close() error {
	if !u.verb.TryLock() {
		return fmt.Errorf("%w: a verb is running", ErrState)
	}
	defer u.verb.Unlock()
	if u.poison == nil {
		u.poison = errors.New("it was closed")
	}
	var err error
	if u.unlock != nil {
		err = u.unlock()
		u.unlock = nil
	}
	return errors.Join(err, u.dir.Close())
}

// Status returns what is known without asking anybody. It may be called at any
// time, from any goroutine.
func (u *Updater) Status() Status {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.status
}

// History returns the last transactions that ended, oldest first. It may be
// called at any time, from any goroutine.
func (u *Updater) History() []Result {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]Result(nil), u.history...)
}

func (rec *record) status(notes []string) Status {
	s := Status{
		State: Idle, SecurityFloor: rec.SecurityFloor, DataFloor: rec.DataFloor,
		Held: append([]Held(nil), rec.Held...), Notes: notes,
	}
	if rec.Running != nil {
		s.Running = rec.Running.Installed
	}
	for _, k := range rec.Kept {
		s.Kept = append(s.Kept, k.Installed)
	}
	if rec.Tx != nil {
		r := rec.Tx.result()
		s.State, s.Tx = r.State, &r
	}
	return s
}

// publish brings up to date what Status and History return.
func (u *Updater) publish() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.status = u.rec.status(u.notes)
	if u.rec.Tx != nil {
		u.status.Tx.Needs = u.needs(u.rec.Tx)
	}
	u.history = u.rec.History
	u.current = nil
	if u.rec.Tx != nil && u.rel != nil {
		u.current = &Tx{u, u.rec.Tx.ID, u.rel}
	}
}

// enter begins a verb.
func (u *Updater) enter() (leave func(), err error) {
	if !u.verb.TryLock() {
		return nil, fmt.Errorf("%w: another verb is running", ErrState)
	}
	if u.poison != nil {
		u.verb.Unlock()
		return nil, fmt.Errorf("%w: %w", ErrPoisoned, u.poison)
	}
	u.since = u.host.Uptime()
	return u.verb.Unlock, nil
}

// charge adds the running time since the last charge to t.
func (u *Updater) charge(t *txState) {
	now := u.host.Uptime()
	t.Took += now - u.since
	u.since = now
}

// save makes the record durable. When that fails nobody knows what the disk
// holds, and the Updater is of no more use.
func (u *Updater) save() error {
	if u.poison != nil {
		return fmt.Errorf("%w: %w", ErrPoisoned, u.poison)
	}
	if u.rec.Tx != nil {
		u.charge(u.rec.Tx)
	}
	body, err := json.Marshal(u.rec)
	if err == nil {
		err = u.journal.Write(body)
	}
	if err != nil {
		u.poison = err
		return fmt.Errorf("%w: %w", ErrPoisoned, err)
	}
	u.fallback = false
	u.publish()
	return nil
}

// report tells Options.Progress of a step of the open transaction. Whoever
// listens must not make an update fail: a panic goes no further.
func (u *Updater) report(p Progress) {
	if u.opts.Progress == nil {
		return
	}
	defer func() { _ = recover() }()
	if t := u.rec.Tx; t != nil && p.Result == nil {
		p.Tx, p.To = t.ID, t.To
		if p.State == "" {
			p.State = t.State
		}
	}
	u.opts.Progress(p)
}

// returnGrace is how long a backend may go on after its context ended.
const returnGrace = 30 * time.Second

// run calls f with a limit. Where f does not return although its context
// ended, the Updater is poisoned: f may still be changing the device.
func (u *Updater) run(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace := time.NewTimer(returnGrace)
	defer grace.Stop()
	select {
	case err := <-ended:
		return err
	case <-grace.C:
		u.poison = errors.New("a backend did not return in time")
		return fmt.Errorf("%w: %w", ErrPoisoned, u.poison)
	}
}
