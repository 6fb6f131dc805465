package block

import (
	"errors"
	"fmt"
	"os/exec"
	"sync"
)

// Replay looks at states of a log.
type Replay struct {
	Log    *Log
	States []State
	// Visitor returns the command of a program that calls [Visiting].
	Visitor func() *exec.Cmd
	// Check has the file system of every nth state checked afterwards; 0: none.
	Check int
	// Enough is the number of failures after which it stops.
	Enough int
}

// Outcome is what a replay found.
type Outcome struct {
	Repaired []State // the file system itself could not be mounted before a repair
	Checked  int     // states whose file system was checked afterwards
	Failures []Failure
}

// Failure is a state in which something was wrong.
type Failure struct {
	State State
	Err   error
}

// Run puts each state on one of the stands and has a visitor look at it. The
// error is of the machinery itself.
func (r *Replay) Run(stands ...*Stand) (Outcome, error) {
	run := &replay{Replay: r}
	var wait sync.WaitGroup
	errs := make([]error, len(stands))
	for i, s := range stands {
		wait.Go(func() { errs[i] = run.work(s) })
	}
	wait.Wait()
	return run.outcome, errors.Join(errs...)
}

type replay struct {
	*Replay
	mu      sync.Mutex
	next    int
	outcome Outcome
}

func (r *replay) take() (n int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == len(r.States) || len(r.outcome.Failures) >= r.Enough {
		return 0, false
	}
	r.next++
	return r.next - 1, true
}

func (r *replay) note(f func(o *Outcome)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.outcome)
}

func (r *replay) work(s *Stand) error {
	v, err := startVisitor(r.Visitor(), s.Place)
	if err != nil {
		return err
	}
	b := NewBuilder(r.Log)
	for n, ok := r.take(); ok && err == nil; n, ok = r.take() {
		state, image := r.States[n], b.Build(r.States[n])
		var wrong error
		wrong, err = r.one(s, v, image, n)
		if err != nil {
			err = fmt.Errorf("state %d, %s: %w", n, state, err)
		}
		if wrong != nil {
			r.note(func(o *Outcome) { o.Failures = append(o.Failures, Failure{state, wrong}) })
		}
	}
	return errors.Join(err, v.close())
}

// one returns what is wrong with a state, and an error when that cannot be
// told.
func (r *replay) one(s *Stand, v *visitor, image *Image, n int) (wrong, err error) {
	state := r.States[n]
	at := Visit{N: n, Marks: state.Marks}
	if at.Marks > 0 {
		at.Last = r.Log.Marks[at.Marks-1].Name
	}
	if err := s.Load(image); err != nil {
		return nil, err
	}
	f, err := v.visit(at)
	if err == nil && f.Mount != "" {
		r.note(func(o *Outcome) { o.Repaired = append(o.Repaired, state) })
		if err := s.Repair(); err != nil {
			return nil, err
		}
		f, err = v.visit(at)
	}
	if err != nil {
		return nil, err
	}
	wrong = errors.Join(said("the file system is lost", f.Mount), said("", f.Wrong))
	if f.Mount == "" && f.Error == "" && r.Check > 0 && n%r.Check == 0 {
		r.note(func(o *Outcome) { o.Checked++ })
		wrong = errors.Join(wrong, s.Check())
	}
	return wrong, said("", f.Error)
}

func said(what, text string) error {
	if text == "" {
		return nil
	}
	if what != "" {
		text = what + ": " + text
	}
	return errors.New(text)
}
