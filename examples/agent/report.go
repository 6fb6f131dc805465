//go:build monitor

package main

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/monitor/device"
	"github.com/pawl-ota/pawl/monitor/outbox"
	"github.com/pawl-ota/pawl/monitor/updates"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/fetch"
)

// report is the reporting of this agent: a stream of events into an outbox,
// which is sent meanwhile.
type report struct {
	config   *config
	warn     func(error)
	client   atomic.Pointer[fetch.Client] // of the updater that was opened last
	to       atomic.Pointer[sender]
	box      *outbox.Outbox
	stream   *monitor.Stream
	reporter *updates.Reporter
	sending  bool
	stop     context.CancelFunc // ends it
	sent     sync.WaitGroup
}

// openReport opens the outbox, and sends what is in it where the command may
// use the network. It returns nil where nobody is told, or where another agent
// has the outbox: that one finds the results in the history.
func (a *agent) openReport(ctx context.Context) reporting {
	conf := a.config.monitor.report
	if conf == nil {
		return nil
	}
	r, err := newReport(ctx, a, conf, time.Millisecond)
	if errors.Is(err, durable.ErrLocked) {
		return nil
	}
	if err != nil {
		a.warn(err)
		return nil
	}
	if a.asks {
		r.send(conf)
	}
	return r
}

// newReport opens the outbox, for which it waits so long.
func newReport(ctx context.Context, a *agent, conf *reports, wait time.Duration) (*report, error) {
	box, err := outbox.Open(ctx, outbox.Options{
		Dir: a.config.outboxDir(), LockWait: wait, MaxBytes: conf.MaxBytes, MaxAge: time.Duration(conf.MaxAge), Interval: time.Duration(conf.Interval),
		Delay: min(5*time.Minute, conf.Interval.or(5*time.Minute)), RetryMin: retryMin, RetryMax: retryMax,
	})
	if err != nil {
		return nil, err
	}
	stream, err := monitor.NewStream(monitor.StreamOptions{Device: a.config.Device.ID, Sink: box})
	if err != nil {
		return nil, errors.Join(err, box.Close())
	}
	box.OnLoss(stream.LostEvent)
	r := &report{config: a.config, warn: a.warn, box: box, stream: stream, stop: func() {}}
	r.reporter = updates.New(updates.Options{Stream: stream, Bytes: r.bytes})
	return r, nil
}

// bytes are those that went over the line so far.
func (r *report) bytes() (b monitor.Bytes) {
	if to := r.to.Load(); to != nil {
		b.Report = to.bytes()
	}
	if client := r.client.Load(); client != nil {
		fetched := client.Bytes()
		b.Metadata, b.Content, b.Wasted = fetched.Metadata, fetched.Content, fetched.Wasted
	}
	return b
}

// send begins to send, until close. What cannot be sent waits in the outbox.
func (r *report) send(conf *reports) {
	to, err := conf.sender(r.config.Device.ID)
	if err != nil {
		r.warn(err)
		to.Sender = errNowhere{err}
	}
	if to.Sender == nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop, r.sending = stop, true
	r.to.Store(&to)
	r.sent.Go(func() { _ = r.box.Run(ctx, to) }) // it ends with ctx
	if to.beside != nil {
		r.sent.Go(func() { _ = to.beside(ctx) })
	}
}

// close waits until all results were sent, but not for long, and makes durable
// what is left.
func (r *report) close(ctx context.Context) {
	wait := r.config.monitor.report.Wait.or(10 * time.Second)
	if !r.sending {
		wait = 0
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for ctx.Err() == nil && r.box.Flush(ctx) == nil && r.box.Stats().Results > 0 {
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	r.stop()
	r.sent.Wait()
	_ = r.box.Close() // what is lost with it is in the history of the updater
}

// opened says what runs, why the device booted, and how transactions ended that
// nobody was told of.
func (r *report) opened(a *agent) {
	r.client.Store(a.client)
	if runs := a.updater.Status().Running; runs.Seq != 0 {
		r.stream.Running(monitor.Release{Product: runs.Product, Variant: runs.Variant, Seq: runs.Seq, Version: runs.Version, Digest: runs.Digest.String()})
	}
	if first, why, _ := r.config.boots().Begin(); first { // a boot that is not noted is told twice
		r.stream.Emit(monitor.Event{Kind: monitor.Boot, Reason: why})
	}
	r.reporter.CatchUp(a.updater.History(), r.box.LastKey())
}

func (r *report) progress(p ota.Progress)                { r.reporter.Progress(p) }
func (r *report) changed(a monitor.Answer)               { r.stream.Probe(a) }
func (r *report) outcome(res ota.Result, err error)      { r.reporter.Outcome(res, err) }
func (r *report) repaired(f, left []ota.Damage, e error) { r.reporter.Repaired(f, left, e) }

// boots remembers why the device booted.
func (c *config) boots() device.Boots {
	return device.Boots{File: filepath.Join(c.State, "boot")}
}

// retryMin and retryMax bound the time between two tries to send.
const (
	retryMin = 2 * time.Second
	retryMax = 15 * time.Minute
)

var _ reporting = (*report)(nil)
