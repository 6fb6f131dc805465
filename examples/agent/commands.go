package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pawl-ota/pawl/examples/bar"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// answer is what a command has to say. With -json it is printed as it is.
type answer struct {
	Command string `json:"command"`
	Code    int    `json:"code"`
	Line    string `json:"line"` // one line for people
	// One of the following, as the command has it.
	Available *ota.Installed `json:"available,omitempty"`
	Plan      *plan          `json:"plan,omitempty"`
	Need      *ota.Plan      `json:"need,omitempty"`
	Result    *ota.Result    `json:"result,omitempty"`
	Status    *ota.Status    `json:"status,omitempty"`
	History   []ota.Result   `json:"history,omitempty"`
	Damage    []ota.Damage   `json:"damage,omitempty"`
	// Services are those of apps, with a status; and what else that says.
	Services []service `json:"services,omitempty"`
	condition

	File string `json:"file,omitempty"` // of bundle-logs

	// Warnings are of services, on the way back.
	Warnings []string `json:"warnings,omitempty"`

	Kind  string `json:"kind,omitempty"` // a word that stays the same for one kind of error
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`

	err   error
	lists bool     // all of more belongs to the answer
	more  []string // further lines for people
}

// command is one verb of the command line.
type command struct {
	what string
	// asks is whether it looks at the repository, so that it needs a source.
	asks bool
	// lists is whether all that it says belongs to the answer.
	lists bool
	// alone is whether it opens by itself what it needs.
	alone bool
	run   func(ctx context.Context, a *agent) answer
}

var commands = withMore(map[string]command{
	"adopt":    {what: "take over what was installed without pawl, where it is exactly a release: adopt [SEQ]", asks: true, lists: true, run: adopt},
	"check":    {what: "look whether there is a newer release, with -plan what it takes", asks: true, lists: true, run: check},
	"diff":     {what: "what an update would change, and which scripts and services it would run", asks: true, lists: true, run: diff},
	"update":   {what: "settle, look for the newest release and take it all the way", asks: true, run: update},
	"resume":   {what: "settle what was cut short, without a network; for a unit before the app's", run: resume},
	"rollback": {what: "go back to a release that was kept, without a network", run: rollback},
	"verify":   {what: "compare what is installed with the release, by content", run: verify},
	"repair":   {what: "mend what verify finds, without a network", run: repair},
	"reset":    {what: "make the containers of an app anew, without a network: reset APP, with -data its volumes too", run: reset},
	"history":  {what: "the transactions that ended, newest last", lists: true, alone: true, run: history},
	"status":   {what: "what runs, what is open, what is kept and held back", lists: true, alone: true, run: status},
})

func check(ctx context.Context, a *agent) answer {
	r, err := a.updater.Check(ctx)
	ans := checked(a, r, err)
	if !a.args.plan || r == nil || err != nil && !errors.Is(err, ota.ErrHeld) {
		return ans
	}
	return withNeed(ctx, a, r, ans)
}

// checked puts the answer of Check into words.
func checked(a *agent, r *release.Release, err error) answer {
	running := a.updater.Status().Running
	if errors.Is(err, ota.ErrUpToDate) {
		return answer{Line: fmt.Sprintf("%s is the newest release", running)}
	}
	ans := answer{Line: "cannot tell whether there is a newer release"}
	if err != nil {
		ans = failed(ans.Line, err)
	}
	if r != nil {
		ans.Available = &ota.Installed{ID: r.ID, Version: r.Version, Digest: r.Digest()}
		ans.Line = fmt.Sprintf("%s can be installed over %s", ans.Available, running)
	}
	if r != nil && err != nil {
		ans.Line = fmt.Sprintf("%s may not be installed over %s", ans.Available, running)
	}
	return ans
}

func update(ctx context.Context, a *agent) answer {
	r, err := a.updater.Update(ctx)
	cannot := "cannot update"
	if errors.Is(err, ota.ErrHeld) {
		cannot = fmt.Sprintf("the newest release is held back, %s runs", a.updater.Status().Running)
	}
	return ofResult(a, r, err, cannot)
}

func resume(_ context.Context, a *agent) answer {
	return ofResult(a, a.settled, nil, "cannot settle")
}

func rollback(ctx context.Context, a *agent) answer {
	r, err := a.updater.Rollback(ctx, a.args.seq)
	return ofResult(a, r, err, "cannot go back")
}

func verify(ctx context.Context, a *agent) answer {
	damage, err := a.updater.Verify(ctx)
	return ofDamage(a, damage, err, words{"cannot verify", "differ", errDamaged})
}

func repair(ctx context.Context, a *agent) answer {
	var found []ota.Damage
	if a.report != nil {
		found, _ = a.updater.Verify(ctx) // for the report alone: Repair looks by itself
	}
	damage, err := a.updater.Repair(ctx)
	if a.report != nil {
		a.report.repaired(found, damage, err)
	}
	return ofDamage(a, damage, err, words{"cannot repair", "could not be mended", errLeft})
}

func history(_ context.Context, a *agent) answer {
	all, err := ota.ReadHistory(a.config.stateDir())
	if err != nil {
		return failed("cannot read the history", err)
	}
	ans := answer{History: all, Line: fmt.Sprintf("%d transactions ended on this device", len(all))}
	for _, r := range all {
		ans.more = append(ans.more, r.Ended.UTC().Format(time.RFC3339)+"  "+r.String())
		ans.more = append(ans.more, scriptLines(r)...)
	}
	return ans
}

// statusLines say it for people.
func statusLines(ans *answer) (lines []string) {
	st := ans.Status
	if st.Tx != nil {
		lines = append(lines, "open: "+st.Tx.String())
		lines = append(lines, scriptLines(*st.Tx)...)
	}
	lines = append(lines, ans.condition.lines()...)
	for _, k := range st.Kept {
		lines = append(lines, "kept: "+k.String())
	}
	for _, h := range st.Held {
		lines = append(lines, fmt.Sprintf("held back: seq %d: %s", h.Seq, h.Reason))
	}
	for _, s := range ans.Services {
		lines = append(lines, "service of "+s.App+": "+s.line)
	}
	return lines
}

// lines say it for people; what is not known has none.
func (c *condition) lines() (lines []string) {
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if c.Trial != nil {
		add("trial: at most %v left", c.Trial.Left.Round(time.Second))
	}
	if c.Last != nil {
		add("last: %s  %s", c.Last.Ended.UTC().Format(time.RFC3339), c.Last)
	}
	if h := c.Health; h != nil && h.Well {
		add("health: well, %d probes", len(h.Probes))
	} else if h != nil {
		add("health: sick: %s", h.Reason)
	}
	lines = append(lines, c.monitoredLines()...)
	if c.Clock != nil && !c.Clock.Trusted {
		add("clock: nothing keeps it right: it says %s", c.Clock.Time.Format(time.RFC3339))
	}
	return lines
}

// ofResult puts what became of a transaction into words.
func ofResult(a *agent, r ota.Result, err error, cannot string) answer {
	if a.report != nil {
		a.report.outcome(r, err)
	}
	ans := answer{Result: &r, err: err}
	ans.Code, ans.Kind, ans.Hint = outcome(r, err)
	switch {
	case err != nil && r.Tx == "":
		ans.Line = cannot
	case errors.Is(err, ota.ErrLater):
		ans.Line = fmt.Sprintf("%s waits for a script that asked for another time, %s runs", r.To, r.From)
	case err == nil && r.State == ota.Idle:
		ans.Line = "nothing to do, runs " + a.updater.Status().Running.String()
	case r.State == ota.Committed:
		ans.Line = fmt.Sprintf("%s is installed over %s: %s fetched in %s", r.To, r.From, bar.Size(r.Bytes), bar.Seconds(r.Took))
		if r.Downtime > 0 {
			ans.Line += ", down for " + bar.Seconds(r.Downtime)
		}
	case r.State == ota.Reverted:
		ans.Line = fmt.Sprintf("%s was taken back, %s runs", r.To, r.From)
	default:
		ans.Line = fmt.Sprintf("%s is at: %s", r.To, r.State)
	}
	if err == nil && r.Reason != "" {
		ans.more = append(ans.more, r.Reason)
	}
	ans.more = append(ans.more, scriptLines(r)...)
	return ans
}

// words are what verify and repair say where not all is well.
type words struct {
	cannot, bad string
	err         error
}

// ofDamage puts the outcome of verify and repair into words.
func ofDamage(a *agent, damage []ota.Damage, err error, w words) answer {
	if err != nil {
		return failed(w.cannot, err)
	}
	running := a.updater.Status().Running
	if len(damage) == 0 {
		return answer{Line: running.String() + " is as published"}
	}
	ans := failed(fmt.Sprintf("%s: %d entries %s", running, len(damage), w.bad), w.err)
	ans.Damage = damage
	for _, d := range damage {
		ans.more = append(ans.more, d.String())
	}
	return ans
}

func failed(line string, err error) answer {
	ans := answer{Line: line, err: err}
	ans.Code, ans.Kind, ans.Hint = classify(err)
	return ans
}
