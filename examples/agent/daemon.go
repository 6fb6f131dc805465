//go:build monitor

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/monitor/updates"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
)

// runner is the command run: one round after the other, each of which looks
// for an update as the command update does, and what watches the device all the
// time.
type runner struct {
	*agent // for what is between the rounds; its updater is nil
	report *report
	health *monitor.Health // nil where there is nothing to ask
	dog    *dog

	switching atomic.Bool // apps are down on purpose
	look      chan os.Signal
	last      string // line that was said
}

// daemon runs until it is stopped, or until a restart or a reboot is needed.
func daemon(ctx context.Context, a *agent) answer {
	r := &runner{agent: a, look: make(chan os.Signal, 1)}
	a.asks = true
	if err := r.start(ctx); err != nil {
		return failed("cannot start", err)
	}
	signal.Notify(r.look, syscall.SIGHUP)
	defer signal.Stop(r.look)
	within, stop := context.WithCancel(ctx)
	var beside sync.WaitGroup
	beside.Go(func() { r.watch(within) })
	for _, do := range r.measure(within) {
		beside.Go(func() { do(within) })
	}
	ans := r.rounds(ctx)
	r.dog.stopping()
	stop()
	beside.Wait()
	r.closeApps()
	r.dog.disarm()
	return ans
}

// start opens what stays open between rounds.
func (r *runner) start(ctx context.Context) (err error) {
	if err := r.makeBackends(); err != nil {
		return err
	}
	if err := r.startReport(ctx); err != nil {
		return err
	}
	if r.health, err = r.newHealth(r.parts(true), false, r.probeChanged); err != nil {
		return err
	}
	r.dog, err = openDog(r.config.monitor.run, r.config.Trial.timeout())
	return err
}

// startReport opens the outbox. A broken one is no reason to be without
// updates; one that another agent has is free soon.
func (r *runner) startReport(ctx context.Context) error {
	conf := r.config.monitor.report
	if conf == nil {
		return nil
	}
	var err error
	r.report, err = newReport(ctx, r.agent, conf, r.config.Limits.Lock.or(10*time.Second))
	switch {
	case errors.Is(err, durable.ErrLocked):
		return err
	case err != nil:
		r.report = nil
		r.warn(fmt.Errorf("nothing is reported: %w", err))
	default:
		r.agent.report = r.report // run closes it
		r.report.send(conf)
	}
	return nil
}

func (r *runner) probeChanged(a monitor.Answer) {
	if r.report != nil {
		r.report.changed(a)
	}
}

// rounds look for updates until one needs a new start, or ctx ends.
func (r *runner) rounds(ctx context.Context) answer {
	for {
		ans := r.round(ctx)
		switch {
		case ctx.Err() != nil:
			return answer{Line: "stopped"}
		case ans.Code == exitNeeds:
			return ans
		}
	}
}

// round takes the newest release all the way, and then waits for the next
// round, or for a SIGHUP.
func (r *runner) round(ctx context.Context) answer {
	within, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-r.look:
			stop()
		case <-within.Done():
		}
	}()
	ans := r.work(ctx, within)
	r.say(ans)
	if ans.Code != exitNeeds {
		r.sleep(within, r.pause(ans.Code))
	}
	return ans
}

// work is what a round does with the updater, which other commands may have
// again afterwards.
func (r *runner) work(ctx, within context.Context) answer {
	one := &agent{args: r.args, asks: true, config: r.config, report: r.agent.report}
	if r.dog.shared != nil {
		one.watchdog = r.dog.shared
	}
	if err := one.open(ctx, r.progress); err != nil {
		return failed("cannot start", err)
	}
	defer one.close()
	if one.updater.Status().Tx == nil {
		one.settleApps(ctx)
	}
	r.dog.ready()
	ans := update(ctx, one)
	r.switching.Store(false)
	if ans.Code != exitNeeds && r.report != nil {
		r.report.reporter.Sample(one.updater)
	}
	if ans.Code != exitNeeds && !r.config.monitor.run.Late.Off && r.health != nil {
		r.say(ans)
		ans = r.watchLate(within, one, ans)
	}
	r.ends(ans)
	ans.Warnings = append(r.warned(), one.warned()...)
	return ans
}

// watchLate asks for health after a commit, until the next round is due, and
// returns the answer of going back, or ans where that is not needed. It counts sick
// answers anew each time, and so takes long enough for all that lead back.
func (r *runner) watchLate(ctx context.Context, one *agent, ans answer) answer {
	late := r.late(r.config.monitor.run.Late)
	least := time.Duration(late.Failures+1) * (late.Interval + late.Timeout)
	ctx, cancel := context.WithTimeout(ctx, max(least, r.pause(ans.Code)))
	defer cancel()
	res, err := late.Watch(ctx, one.updater)
	if res.Tx == "" && (err == nil || ctx.Err() != nil) {
		return ans
	}
	return ofResult(one, res, err, "cannot go back")
}

// sleep waits for the next round.
func (r *runner) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// pause is the time to the next round, with a tenth by chance, so that not all
// devices of a fleet ask at once; shorter where something was in the way.
func (r *runner) pause(code int) time.Duration {
	d := r.config.monitor.run.Look.or(time.Hour)
	if code != exitOK {
		d = min(d, 5*time.Minute)
	}
	return d + rand.N(d/10+1)
}

// late watches what was committed.
func (r *runner) late(l late) updates.Late {
	watch := updates.Late{
		File: filepath.Join(r.config.State, "late"), Health: r.health.Check, For: time.Duration(l.For), Interval: l.Interval.or(30 * time.Second),
		Timeout: r.config.Trial.timeout(), Failures: cmp.Or(l.Failures, 10),
	}
	if r.report != nil {
		watch.Stream = r.report.stream
	}
	return watch
}

// progress notes whether apps are down on purpose.
func (r *runner) progress(p ota.Progress) {
	switch p.Step {
	case "begin", "fetch", "stage", "staged", "health":
		r.switching.Store(false)
	default:
		r.switching.Store(p.Result == nil)
	}
	r.dog.status(fmt.Sprintf("%s: %s", p.To, p.State))
}

// ends notes why the device is to boot.
func (r *runner) ends(ans answer) {
	if ans.Result != nil && ans.Result.Needs == ota.NeedsReboot {
		if err := r.config.boots().Ends("update to " + ans.Result.To.String()); err != nil {
			r.warn(err)
		}
	}
}

// watch asks for health all the time, and feeds the watchdog: it ends when this
// program hangs, or the updater does.
func (r *runner) watch(ctx context.Context) {
	every, asked := r.config.monitor.run.Health.or(30*time.Second), time.Time{}
	t := time.NewTicker(min(every, dogEvery))
	defer t.Stop()
	for {
		r.dog.alive()
		if r.health != nil && !r.switching.Load() && time.Since(asked) >= every {
			asked = time.Now()
			within, cancel := context.WithTimeout(ctx, r.config.Trial.timeout())
			_ = r.health.Check(within) // what changed is told by its probes
			cancel()
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// say prints the answer of a round, where it is another than that before.
func (r *runner) say(ans answer) {
	ans.Command = r.args.verb
	line := fmt.Sprint(ans.Line, ans.err, ans.more)
	if line == r.last && len(ans.Warnings) == 0 || errors.Is(ans.err, context.Canceled) {
		return
	}
	r.last = line
	r.dog.status(ans.Line)
	_ = printAnswer(ans, r.args, r.stdout, r.stderr) // the code is that of the whole
}
