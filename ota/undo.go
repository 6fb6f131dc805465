package ota

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pawl-ota/pawl/ota/release"
)

// undoScripts undoes the scripts of t that fit, the last one first, and those
// that were cut short too. One that cannot be undone keeps no other from it:
// all that went wrong is returned.
func (u *Updater) undoScripts(ctx context.Context, t *txState, fits func(*txScript) bool) error {
	var failed error
	for i := range slices.Backward(t.Scripts) {
		s := &t.Scripts[i]
		if !s.ran() || !fits(s) {
			continue
		}
		if err := u.undoScript(ctx, t, s); err != nil {
			failed = errors.Join(failed, err)
		}
		if u.poison != nil {
			return failed
		}
	}
	return failed
}

// undoScript runs the undo of one script, a bounded number of times.
func (u *Updater) undoScript(ctx context.Context, t *txState, s *txScript) error {
	for try := 0; ; try++ {
		err := u.undoOnce(ctx, t, s)
		if err == nil || try == len(retryPauses) || u.poison != nil || s.UndoCuts >= maxCuts {
			return err
		}
		if err := u.host.Sleep(ctx, retryPauses[try]); err != nil {
			return err
		}
		u.kick()
	}
}

// undoOnce records that it begins, and how it ended, as runScript does.
func (u *Updater) undoOnce(ctx context.Context, t *txState, s *txScript) error {
	if s.Undo == ScriptBegun && s.UndoCuts >= maxCuts {
		s.Undo, s.UndoWhy = ScriptFailed, fmt.Sprintf("was cut short %d times", s.UndoCuts)
		return &ScriptError{ScriptRun: s.ScriptRun}
	}
	if s.Undo != ScriptBegun {
		s.UndoCuts = 0
	}
	s.Undo, s.Undos, s.UndoCuts = ScriptBegun, s.Undos+1, s.UndoCuts+1
	if err := u.save(); err != nil {
		return err
	}
	ran, err := u.execute(ctx, t, s, s.Undoer, u.scriptEnv(t, s))
	s.noteUndo(ran, err)
	u.kick()
	return errors.Join(u.reportScript("undo", s, s.Undo, true), u.save())
}

// The groups in which scripts are undone, between the components.

// wholeInEffect are those that ran when everything was in effect.
func wholeInEffect(s *txScript) bool {
	return s.At == release.BeforeCommit || s.At == release.AfterActivate && s.Component == ""
}

// at are those of one component at one point.
func at(p release.Point, component string) func(*txScript) bool {
	return func(s *txScript) bool { return s.At == p && s.Component == component }
}

// beforeAny are those that ran before any component was activated.
func beforeAny(s *txScript) bool {
	return s.At == release.BeforeStage || s.At == release.AfterStage || s.At == release.BeforeActivate && s.Component == ""
}

// suspectScripts takes the scripts for begun that a lost journal record may
// have begun. An undo has to cope with a script that never ran: one may be cut
// short before its first line anyway.
func (u *Updater) suspectScripts(t *txState) {
	if u.rel == nil {
		return
	}
	points := []release.Point{release.BeforeStage, release.AfterStage}
	if t.State != Staging {
		points = append(points, release.BeforeActivate, release.AfterActivate)
	}
	if t.State == InTrial {
		points = append(points, release.BeforeCommit)
	}
	names := []string{""}
	for _, p := range t.Parts {
		if !p.Same {
			names = append(names, p.Name)
		}
	}
	for _, p := range points {
		for _, name := range names {
			for _, s := range u.scripts(p, name) {
				if x := &t.Scripts[t.script(s, name)]; x.Undo == ScriptOK {
					x.Outcome, x.Undo = ScriptBegun, "" // it may have begun anew
				}
			}
		}
	}
}

// standDown undoes what the release's before-activate scripts did, for a
// transaction that stays staged. They run anew with the next Activate. Nobody
// feeds the watchdog until then, which a process that ended in one had armed.
func (u *Updater) standDown(ctx context.Context, t *txState) error {
	fits := at(release.BeforeActivate, "")
	if !slices.ContainsFunc(t.Scripts, func(s txScript) bool { return fits(&s) && (s.Outcome == ScriptOK || s.cutShort() || s.ran()) }) {
		return nil
	}
	u.takeOver()
	if err := u.undoScripts(context.WithoutCancel(ctx), t, fits); err != nil {
		return err
	}
	t.Scripts = slices.DeleteFunc(t.Scripts, func(s txScript) bool { return fits(&s) && s.Outcome == ScriptOK })
	if err := u.save(); err != nil {
		return err
	}
	u.disarm()
	return nil
}

// runAfter runs the scripts of a point from which nothing can be kept any
// more: those of the components, in the order given, and then the release's.
// One that fails is tried again, a bounded number of times, and noted.
func (u *Updater) runAfter(ctx context.Context, t *txState, at release.Point, parts []txPart) error {
	var names []string
	for _, p := range parts {
		names = append(names, p.Name)
	}
	for _, name := range append(names, "") {
		for _, s := range u.scripts(at, name) {
			if err := u.tryScript(ctx, t, t.script(s, name), s); err != nil {
				return err
			}
		}
	}
	return nil
}

// tryScript returns an error only where the Updater is of no more use.
func (u *Updater) tryScript(ctx context.Context, t *txState, i int, s release.Script) error {
	if o := t.Scripts[i].Outcome; o == ScriptOK || o == ScriptFailed || o == ScriptRefused {
		return nil
	}
	for try := 0; ; try++ {
		err := u.runScript(ctx, t, i, s)
		if u.poison != nil {
			return err
		}
		if err == nil || try == len(retryPauses) || t.Scripts[i].Cuts >= maxCuts {
			return nil
		}
		if err := u.host.Sleep(ctx, retryPauses[try]); err != nil {
			return err
		}
		u.kick()
	}
}

// stagingContent is the Content of a Stage, which can run scripts too.
type stagingContent struct {
	*content
	t *txState
	c release.Component
}

var _ Scripter = (*stagingContent)(nil)

// Script implements Scripter. It may run a script any number of times.
func (s *stagingContent) Script(ctx context.Context, name string, env ...string) error {
	i := slices.IndexFunc(s.c.Scripts, func(x release.Script) bool { return x.Name == name && x.At == release.OnMerge })
	if i < 0 {
		return fmt.Errorf("%w: the component has no %s script %q", ErrComponent, release.OnMerge, name)
	}
	of := s.c.Scripts[i]
	return s.u.runScript(ctx, s.t, s.t.script(of, s.c.Name), of, env...)
}
