package ota

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/ota/release"
)

// Exit codes of a script that say more than that it failed.
const (
	// ExitLater asks to be run again at another time (EX_TEMPFAIL). It is
	// heeded where the device can wait as it is: before and after Stage, at the
	// release's own before-activate, before the commit, and in a merge.
	// Elsewhere it is a failure.
	ExitLater = 75
	// ExitRefuse says that the release is not for this device: it is taken back
	// and not tried again by itself.
	ExitRefuse = 77
)

// Errors of scripts. They come as a *ScriptError.
var (
	// ErrScript is returned when a script failed. What had begun was taken back.
	ErrScript = errors.New("a script failed")
	// ErrLater is returned when a script asked for another time. The
	// transaction stays open; call the same verb, or Update, again.
	ErrLater = errors.New("a script asked to be run at another time")
	// ErrRefused is returned when a script refused the release for this
	// device. It was taken back, and is not tried again by itself.
	ErrRefused = errors.New("a script refused the release on this device")
)

// ScriptOutcome is a word for how far a script got.
type ScriptOutcome string

// The values of [ScriptOutcome].
const (
	ScriptBegun   ScriptOutcome = "begun" // it runs, or was cut short
	ScriptOK      ScriptOutcome = "ok"
	ScriptLater   ScriptOutcome = "later"   // it asked for another time
	ScriptRefused ScriptOutcome = "refused" // it refused the release
	ScriptFailed  ScriptOutcome = "failed"
)

// ScriptRun is one script of a transaction, as far as it got.
type ScriptRun struct {
	Name      string        `json:"name"`
	Component string        `json:"component,omitempty"` // empty for one of the release
	At        release.Point `json:"at"`
	Outcome   ScriptOutcome `json:"outcome"`
	// Undo is how far its undo got: empty where none was begun.
	Undo ScriptOutcome `json:"undo,omitempty"`
	// Why says how it ended when that was no success: "exit code 3", "it took
	// longer than 30s", "killed by SIGKILL", …; UndoWhy is that of its undo.
	Why     string `json:"why,omitempty"`
	UndoWhy string `json:"undoWhy,omitempty"`
	// Tries is how often it was begun in this transaction.
	Tries int `json:"tries,omitempty"`
	// Took is of the last run, in nanoseconds.
	Took time.Duration `json:"took,omitempty"`
	// Output is the end of what the last run wrote, or the last undo when that
	// failed: at most 2 KiB, and less of it for a success and in a history.
	Output string `json:"output,omitempty"`
}

// String returns the script and its end as one line.
func (s ScriptRun) String() string {
	text := fmt.Sprintf("%s script %s: %s", s.At, s.Name, s.Outcome)
	if s.Component != "" {
		text = s.Component + ": " + text
	}
	if s.Why != "" {
		text += ", " + s.Why
	}
	switch s.Undo {
	case "":
	case ScriptOK:
		text += ", undone"
	default:
		text += ", its undo " + strings.TrimSpace(string(s.Undo)+" "+s.UndoWhy)
	}
	if last := lastLine(s.Output); last != "" && !s.well() {
		text += ": " + last
	}
	return text
}

// well reports whether nothing about the script went wrong.
func (s ScriptRun) well() bool {
	return s.Outcome == ScriptOK && (s.Undo == "" || s.Undo == ScriptOK)
}

// ScriptError says which script kept a transaction from going on, and how. It
// is an ErrScript, ErrLater or ErrRefused.
type ScriptError struct {
	ScriptRun
	said bool // it ran to an end of its own, or over its limit
}

// Error returns the script, its end, and the last line that it wrote.
func (e *ScriptError) Error() string { return e.String() }

// Unwrap returns the family.
func (e *ScriptError) Unwrap() error {
	switch {
	case e.Undo == ScriptFailed:
		return ErrScript
	case e.Outcome == ScriptLater:
		return ErrLater
	case e.Outcome == ScriptRefused:
		return ErrRefused
	default:
		return ErrScript
	}
}

// Bounds of what is kept of scripts.
const (
	maxOutput     = 2048 // bytes, of the last run
	maxOutputOK   = 256  // bytes, of one that succeeded
	maxOutputPast = 512  // bytes, in the history
	maxPast       = 4    // scripts of one transaction in the history
	// maxCuts is how often a script may be cut short before it counts as
	// failed: it may be what cuts the power.
	maxCuts      = 3
	defaultLimit = 30 * time.Second
)

// txScript is a script that a transaction began, with all that its way back
// needs when the release document is lost.
type txScript struct {
	ScriptRun
	Undoer release.Blob  `json:"undoer,omitzero"` // the program
	Limit  time.Duration `json:"limit"`
	// Undos is how often the undo was begun. Cuts is how often in a row the
	// script was cut short, also where it was undone in between, and UndoCuts
	// how often the undo was.
	Undos    int `json:"undos,omitempty"`
	Cuts     int `json:"cuts,omitempty"`
	UndoCuts int `json:"undoCuts,omitempty"`
}

func (s *txScript) is(of release.Script, component string) bool {
	return s.Name == of.Name && s.At == of.At && s.Component == component
}

// ran reports whether there may be something to undo.
func (s *txScript) ran() bool { return s.Undo != ScriptOK && !s.Undoer.Digest.IsZero() }

func (s *txScript) known() bool {
	outcomes := []ScriptOutcome{ScriptBegun, ScriptOK, ScriptLater, ScriptRefused, ScriptFailed}
	return slices.Contains(outcomes, s.Outcome) && (s.Undo == "" || slices.Contains(outcomes, s.Undo)) && s.At.Known()
}

// why says how a run ended; it is empty for a success.
func (s *txScript) why(ran seam.Ran, err error) string {
	switch {
	case err != nil:
		return clip(err.Error(), maxOutput)
	case ran.TimedOut:
		return fmt.Sprintf("it took longer than %v", s.Limit)
	case ran.Signal != "":
		return "killed by " + ran.Signal
	case ran.Exit != 0:
		return fmt.Sprintf("exit code %d", ran.Exit)
	}
	return ""
}

// note keeps how a run ended.
func (s *txScript) note(ran seam.Ran, err error) {
	s.Cuts, s.Took = 0, ran.Took
	s.Why, s.Output = s.why(ran, err), tail(ran.Output, maxOutput)
	switch {
	case s.Why == "":
		s.Outcome, s.Output = ScriptOK, tail(ran.Output, maxOutputOK)
	case err != nil || ran.TimedOut:
		s.Outcome = ScriptFailed
	case ran.Exit == ExitRefuse:
		s.Outcome = ScriptRefused
	case ran.Exit == ExitLater && s.mayWait():
		s.Outcome = ScriptLater
	default:
		s.Outcome = ScriptFailed
	}
}

// noteUndo keeps how an undo ended.
func (s *txScript) noteUndo(ran seam.Ran, err error) {
	s.UndoCuts = 0
	s.Undo, s.UndoWhy = ScriptOK, s.why(ran, err)
	if s.UndoWhy != "" {
		s.Undo, s.Output = ScriptFailed, tail(ran.Output, maxOutput)
	}
}

// mayWait reports whether the device can stay as it is at the script's point.
func (s *txScript) mayWait() bool {
	switch s.At {
	case release.BeforeStage, release.AfterStage, release.BeforeCommit, release.OnMerge:
		return true
	case release.BeforeActivate:
		return s.Component == ""
	}
	return false
}

// scripts returns the scripts of the open release, or of one of its
// components, at a point.
func (u *Updater) scripts(at release.Point, component string) (list []release.Script) {
	if u.rel == nil {
		return nil
	}
	all := u.rel.Scripts
	if component != "" {
		c, _ := u.rel.Component(component)
		all = c.Scripts
	}
	for _, s := range all {
		if s.At == at {
			list = append(list, s)
		}
	}
	return list
}

// runScripts runs the scripts of a point, those of the release where component
// is empty, except those that have succeeded in this transaction already.
func (u *Updater) runScripts(ctx context.Context, t *txState, at release.Point, component string) error {
	for _, s := range u.scripts(at, component) {
		if t.succeeded(s, component) {
			continue
		}
		if err := u.runScript(ctx, t, t.script(s, component), s); err != nil {
			return err
		}
	}
	return nil
}

func (t *txState) find(s release.Script, component string) int {
	return slices.IndexFunc(t.Scripts, func(x txScript) bool { return x.is(s, component) })
}

func (t *txState) succeeded(s release.Script, component string) bool {
	i := t.find(s, component)
	return i >= 0 && t.Scripts[i].Outcome == ScriptOK && t.Scripts[i].Undo == ""
}

// script returns the place of a script among those that were begun, where it
// is put unless it is there. One that was undone begins anew: behind all that
// were begun since.
func (t *txState) script(s release.Script, component string) int {
	if i := t.find(s, component); i >= 0 {
		if again := t.Scripts[i]; again.Undo == ScriptOK {
			t.Scripts = append(slices.Delete(t.Scripts, i, i+1), again)
			i = len(t.Scripts) - 1
		}
		return i
	}
	t.Scripts = append(t.Scripts, txScript{ScriptRun: ScriptRun{Name: s.Name, Component: component, At: s.At, Outcome: ScriptBegun}, Undoer: s.Undo, Limit: limitOf(s)})
	return len(t.Scripts) - 1
}

// limitOf returns how long a script, and its undo, may take.
func limitOf(s release.Script) time.Duration {
	return cmp.Or(time.Duration(s.Limit)*time.Second, defaultLimit)
}

// runScript runs one script once. That it begins is recorded first: from then
// on it is undone on the way back. How it ended is recorded before anything else
// is done: a script whose end was lost runs again, and is to blame for it. A power
// cut in a long download must not count as one in the script before it.
func (u *Updater) runScript(ctx context.Context, t *txState, i int, of release.Script, env ...string) error {
	s := &t.Scripts[i]
	if s.Outcome != ScriptBegun {
		s.Cuts = 0
	}
	if s.Cuts >= maxCuts {
		s.Outcome, s.Why = ScriptFailed, fmt.Sprintf("it was cut short %d times", s.Cuts)
		return &ScriptError{ScriptRun: s.ScriptRun}
	}
	s.Outcome, s.Why, s.Undo, s.UndoWhy = ScriptBegun, "", "", ""
	s.Tries, s.Cuts = s.Tries+1, s.Cuts+1
	if err := u.save(); err != nil {
		return err
	}
	u.report(Progress{Step: "script", Component: s.Component, Script: s.ScriptRun})
	ran, err := u.execute(ctx, t, s, of.Run, append(u.scriptEnv(t, s), env...))
	if ctx.Err() != nil {
		s.Cuts-- // nothing cut it short but our caller
		return errors.Join(ctx.Err(), u.save())
	}
	s.note(ran, err)
	u.kick()
	return errors.Join(u.reportScript("script", s, s.Outcome, err == nil), u.save())
}

// reportScript tells of the end of a script, or of an undo, and returns a
// *ScriptError where that was no success. said is whether the script itself
// was what ended.
func (u *Updater) reportScript(step string, s *txScript, end ScriptOutcome, said bool) error {
	p := Progress{Step: step, Component: s.Component, Script: s.ScriptRun}
	if end != ScriptOK {
		p.Err = &ScriptError{s.ScriptRun, said}
	}
	u.report(p)
	return p.Err
}

// cutShort reports whether the last run has no end.
func (s *txScript) cutShort() bool { return s.Outcome == ScriptBegun && s.Undo == "" }

// execute runs a program of a script. Only bytes that are verified as they are
// read can run.
func (u *Updater) execute(ctx context.Context, t *txState, s *txScript, program release.Blob, env []string) (seam.Ran, error) {
	return u.host.Run(ctx, seam.Program{
		Name: s.Name,
		Open: u.store().verified(program),
		Size: program.Size,
		Env:  env,
		Dir:  "/", Limit: s.Limit, Mark: scriptMark(t.ID), MaxOutput: maxOutput,
	})
}

// scriptMark is how the processes of a transaction's scripts are known.
func scriptMark(id TxID) string { return "PAWL_TX=" + string(id) }

// scriptEnv is the whole environment of a script.
func (u *Updater) scriptEnv(t *txState, s *txScript) []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "LANG=C",
		scriptMark(t.ID),
		"PAWL_POINT=" + string(s.At),
		"PAWL_SCRIPT=" + s.Name,
		"PAWL_FROM_VERSION=" + t.From.Version,
		fmt.Sprintf("PAWL_FROM_SEQ=%d", t.From.Seq),
		"PAWL_TO_VERSION=" + t.To.Version,
		fmt.Sprintf("PAWL_TO_SEQ=%d", t.To.Seq),
	}
	if s.Undo == "" {
		env = append(env, fmt.Sprintf("PAWL_ATTEMPT=%d", s.Tries))
	} else {
		env = append(env, fmt.Sprintf("PAWL_ATTEMPT=%d", s.Undos), "PAWL_UNDO=1")
	}
	if t.Back {
		env = append(env, "PAWL_BACK=1")
	}
	if s.Component == "" {
		return env
	}
	env = append(env, "PAWL_COMPONENT="+s.Component)
	if r, ok := u.opts.Backends[s.Component].(Rooter); ok {
		env = append(env, "PAWL_ROOT="+r.Root(s.Component))
	}
	return env
}

// endScripts ends what a script of an earlier process of this boot may have
// left running.
func (u *Updater) endScripts(ctx context.Context, t *txState) {
	running := func(s txScript) bool { return s.cutShort() || s.Undo == ScriptBegun }
	if !slices.ContainsFunc(t.Scripts, running) {
		return
	}
	if err := u.host.End(context.WithoutCancel(ctx), scriptMark(t.ID)); err != nil {
		u.report(Progress{Step: "script", Err: err})
	}
}

// blameFor says what the failure of a script means for the release.
func blameFor(err error) blame {
	var s *ScriptError
	switch {
	case errors.Is(err, ErrRefused):
		return blameRelease
	case errors.As(err, &s) && s.At == release.BeforeCommit && s.said:
		return blameRelease
	default:
		return blameCut
	}
}

// scriptRuns returns what the result of t says of its scripts.
func (t *txState) scriptRuns() (runs []ScriptRun) {
	for _, s := range t.Scripts {
		runs = append(runs, s.ScriptRun)
	}
	return runs
}

// past is what a history says of scripts: those that did not succeed.
func past(runs []ScriptRun) (kept []ScriptRun) {
	for _, s := range runs {
		if !s.well() && len(kept) < maxPast {
			s.Output = tail([]byte(s.Output), maxOutputPast)
			s.Why, s.UndoWhy = clip(s.Why, maxOutputPast), clip(s.UndoWhy, maxOutputPast)
			kept = append(kept, s)
		}
	}
	return kept
}

// tail returns the end of an output, as a text that takes at most so many
// bytes in the journal.
func tail(output []byte, most int) string {
	text := strings.ToValidUTF8(string(output), "�")
	begin := len(text)
	for begin > 0 {
		r, size := utf8.DecodeLastRuneInString(text[:begin])
		if most -= inJournal(r, size); most < 0 {
			break
		}
		begin -= size
	}
	return text[begin:]
}

// inJournal returns how many bytes JSON takes for a rune.
func inJournal(r rune, size int) int {
	switch {
	case strings.ContainsRune("\"\\\n\r\t", r):
		return 2
	case r < ' ' || strings.ContainsRune("<>&\u2028\u2029", r):
		return 6
	}
	return size
}

func lastLine(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return clip(lines[len(lines)-1], 200)
}
