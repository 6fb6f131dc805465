package main

import (
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	_ "modernc.org/sqlite" // a driver of database/sql

	"github.com/pawl-ota/pawl/monitor"
)

//go:embed schema.sql
var schema string

// store is the fleet in a SQLite file.
type store struct {
	db   *sql.DB
	keep int64
}

func openStore(path string, keep int64) (*store, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(10000)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // one writer, and no reader that waits for it in vain
	if _, err := db.Exec(schema); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open %s: %w", path, err), db.Close())
	}
	return &store{db, keep}, nil
}

func (s *store) close() error { return s.db.Close() }

// cloudEvent is one event as it comes.
type cloudEvent struct {
	SpecVersion string          `json:"specversion"`
	ID          string          `json:"id"`
	Source      string          `json:"source"`
	Data        json.RawMessage `json:"data"`
}

// take stores those of a batch that are new: all of them, durably, or none.
func (s *store) take(ctx context.Context, batch []cloudEvent, now time.Time) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after a commit
	for _, c := range batch {
		if err := s.takeOne(ctx, tx, c, now); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM events WHERE n <= (SELECT max(n) FROM events) - ?`, s.keep); err != nil {
		return err
	}
	return tx.Commit()
}

func (s *store) takeOne(ctx context.Context, tx *sql.Tx, c cloudEvent, now time.Time) error {
	var e monitor.Event
	if json.Unmarshal(c.Data, &e) != nil || e.Device == "" {
		e = monitor.Event{Kind: "unknown", Device: cut(c.Source)}
	}
	res, err := tx.ExecContext(ctx, `INSERT INTO events (source, id, device, kind, received, data) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (source, id) DO NOTHING`, cut(c.Source), cut(c.ID), cut(e.Device), cut(string(e.Kind)), now.Unix(), string(c.Data))
	if err != nil {
		return err
	}
	if fresh, err := res.RowsAffected(); err != nil || fresh == 0 {
		return err
	}
	return apply(ctx, tx, e, now)
}

// cut bounds a text from outside.
func cut(text string) string { return text[:min(len(text), 600)] }

// stateAfter is what a device is doing after an event.
func stateAfter(k monitor.Kind) string {
	switch k {
	case monitor.Begin:
		return "fetching"
	case monitor.Staged:
		return "staged"
	case monitor.Activated:
		return "on trial"
	case monitor.Committed:
		return "ok"
	case monitor.Reverted:
		return "rolled back"
	case monitor.Stuck, monitor.Held, monitor.Failed:
		return string(k)
	}
	return ""
}

// apply brings what is known of a device up to date. Results come in their order,
// and so do measurements.
func apply(ctx context.Context, tx *sql.Tx, e monitor.Event, now time.Time) error {
	do := func(query string, args ...any) error {
		_, err := tx.ExecContext(ctx, query, append([]any{cut(e.Device)}, args...)...)
		return err
	}
	err := do(`INSERT INTO devices (device, seen) VALUES (?, ?) ON CONFLICT (device) DO UPDATE SET seen = excluded.seen`, now.Unix())
	if state := stateAfter(e.Kind); state != "" {
		wanted := monitor.Release{}
		if e.Release != nil && e.Tx != "" && e.Kind != monitor.Committed {
			wanted = *e.Release
		}
		err = errors.Join(err, do(`UPDATE devices SET state = ?2, reason = ?3, since = ?4, wanted = ?5, wantedSeq = ?6
			WHERE device = ?1 AND NOT (state = 'rolled back' AND ?2 = 'held')`, // why it went back is what is of interest
			state, cut(e.Reason), now.Unix(), cut(wanted.Version), int64(wanted.Seq)))
	}
	if runs := running(e); runs != nil {
		err = errors.Join(err, do(`UPDATE devices SET product = ?2, variant = ?3, version = ?4, seq = ?5 WHERE device = ?1`,
			cut(runs.Product), cut(runs.Variant), cut(runs.Version), int64(runs.Seq)))
	}
	switch {
	case e.Kind == monitor.Alert && e.Values["firing"] == 1, e.Probe != nil && e.Probe.State == monitor.Sick:
		err = errors.Join(err, do(`INSERT INTO troubles (device, kind, name, text, since) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (device, kind, name) DO UPDATE SET text = excluded.text`, cut(string(e.Kind)), cut(e.Name), cut(e.Reason), now.Unix()))
	case e.Kind == monitor.Alert, e.Probe != nil && e.Probe.State == monitor.Well:
		err = errors.Join(err, do(`DELETE FROM troubles WHERE device = ? AND kind = ? AND name = ?`, cut(string(e.Kind)), cut(e.Name)))
	}
	return err
}

// running is the release that an event says is in effect for good.
func running(e monitor.Event) *monitor.Release {
	switch {
	case e.Kind == monitor.Committed, e.Tx == "" && e.Kind != monitor.Held && e.Kind != monitor.Failed:
		return e.Release
	case e.Tx != "":
		return e.From
	}
	return nil
}

// device is one line of the page.
type device struct {
	Device, Product, Variant, Version, State, Reason, Wanted string
	Seq, WantedSeq                                           int64
	Seen, Since                                              time.Time
	Troubles                                                 []trouble
}

type trouble struct{ Kind, Name, Text string }

// fleet returns the devices that need somebody first.
func (s *store) fleet(ctx context.Context, most int) (all []*device, err error) {
	rows, err := s.db.QueryContext(ctx, `SELECT device, product, variant, version, state, reason, wanted, seq, wantedSeq, seen, since FROM devices
		ORDER BY state IN ('stuck', 'rolled back') DESC, EXISTS (SELECT 1 FROM troubles t WHERE t.device = devices.device) DESC, state NOT IN ('ok', '') DESC, device LIMIT ?`, most)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	by := map[string]*device{}
	for rows.Next() {
		d, seen, since := &device{}, int64(0), int64(0)
		if err := rows.Scan(&d.Device, &d.Product, &d.Variant, &d.Version, &d.State, &d.Reason, &d.Wanted, &d.Seq, &d.WantedSeq, &seen, &since); err != nil {
			return nil, err
		}
		d.Seen, d.Since = time.Unix(seen, 0), time.Unix(since, 0)
		all, by[d.Device] = append(all, d), d
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return all, s.troubles(ctx, by)
}

func (s *store) troubles(ctx context.Context, by map[string]*device) (err error) {
	rows, err := s.db.QueryContext(ctx, `SELECT device, kind, name, text FROM troubles ORDER BY since`)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var name string
		var t trouble
		if err := rows.Scan(&name, &t.Kind, &t.Name, &t.Text); err != nil {
			return err
		}
		if d := by[name]; d != nil {
			d.Troubles = append(d.Troubles, t)
		}
	}
	return rows.Err()
}

// rollout is how far the newest release of a product and variant is.
type rollout struct {
	Product, Variant                 string
	Seq                              int64
	Done, OnTheWay, RolledBack, Rest int64
	All                              int64
}

func (s *store) rollouts(ctx context.Context) (all []rollout, err error) {
	rows, err := s.db.QueryContext(ctx, `WITH newest AS (SELECT product, variant, max(max(seq), max(wantedSeq)) AS seq FROM devices WHERE product <> '' GROUP BY product, variant)
		SELECT d.product, d.variant, n.seq, sum(d.seq = n.seq),
			sum(d.seq < n.seq AND d.wantedSeq = n.seq AND d.state IN ('fetching', 'staged', 'on trial', 'failed')),
			sum(d.seq < n.seq AND d.wantedSeq = n.seq AND d.state IN ('rolled back', 'held', 'stuck')), count(*)
		FROM devices d JOIN newest n USING (product, variant) GROUP BY d.product, d.variant ORDER BY d.product, d.variant`)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var r rollout
		if err := rows.Scan(&r.Product, &r.Variant, &r.Seq, &r.Done, &r.OnTheWay, &r.RolledBack, &r.All); err != nil {
			return nil, err
		}
		r.Rest = r.All - r.Done - r.OnTheWay - r.RolledBack
		all = append(all, r)
	}
	return all, rows.Err()
}

// past is one event in the history of a device.
type past struct {
	Received time.Time
	Event    monitor.Event
}

// history returns the last results of a device, newest first.
func (s *store) history(ctx context.Context, name string, most int) (all []past, err error) {
	rows, err := s.db.QueryContext(ctx, `SELECT received, data FROM events WHERE device = ? AND kind <> 'sample' ORDER BY n DESC LIMIT ?`, name, most)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var p past
		var received int64
		var data string
		if err := rows.Scan(&received, &data); err != nil {
			return nil, err
		}
		p.Received = time.Unix(received, 0)
		_ = json.Unmarshal([]byte(data), &p.Event) // one of another kind shows as empty
		all = append(all, p)
	}
	return all, rows.Err()
}
