package release

import (
	"fmt"
	"slices"
)

// Script is a program of a release that runs on the device while the release
// is installed: a text that begins with an interpreter line, or an executable.
// What it is given, what its exit codes mean and what happens when the power
// goes in the middle stands in SCRIPTS.md of package ota.
type Script struct {
	// Name is unique among the scripts of the release, or of the component,
	// that have the same point.
	Name string `json:"name"`
	At   Point  `json:"at"`
	// Run is the program. It has at most [MaxScript] bytes.
	Run Blob `json:"run"`
	// Undo takes back what Run did; zero where there is nothing to take back.
	Undo Blob `json:"undo,omitzero"`
	// Limit is how many seconds Run and Undo may each take; 0 means 30. At most
	// [MaxScriptLimit].
	Limit int `json:"limit,omitempty"`
}

// Point is a place in a transaction at which scripts run. Stored as its word.
type Point string

// The values of [Point], in the order of a transaction. Of the points called
// before, the scripts of the release run before those of each component; of
// those called after, behind them. A component's scripts run when the release
// changes the component.
const (
	BeforeStage    Point = "before-stage"    // nothing was fetched but the indexes and scripts
	AfterStage     Point = "after-stage"     // all is on the device, nothing that runs was touched
	BeforeActivate Point = "before-activate" // the old one still runs
	AfterActivate  Point = "after-activate"  // the new one is in effect, on trial
	BeforeCommit   Point = "before-commit"   // it has proved itself; the last word
	AfterCommit    Point = "after-commit"    // there is no way back any more
	AfterRevert    Point = "after-revert"    // everything is as it was
	// OnMerge scripts of a component are run by its backend, where the
	// component's options ask for it.
	OnMerge Point = "on-merge"
)

// Limits of scripts.
const (
	MaxScripts     = 64       // of one release, components included
	MaxScript      = 16 << 20 // bytes of one program
	MaxScriptLimit = 3600     // seconds
)

// points are all words for a point.
var points = [...]Point{BeforeStage, AfterStage, BeforeActivate, AfterActivate, BeforeCommit, AfterCommit, AfterRevert, OnMerge}

// Points returns the values of [Point], in the order of a transaction.
func Points() []Point { return slices.Clone(points[:]) }

// Known reports whether p is one of the values of [Point].
func (p Point) Known() bool { return slices.Contains(points[:], p) }

// HasUndo reports whether a script at p may have an Undo. At the other points
// there is no way back, or nothing that would be taken back.
func (p Point) HasUndo() bool {
	return p.Known() && p != AfterCommit && p != AfterRevert && p != OnMerge
}

// ScriptBlobs returns the programs of all scripts of r, each once.
func (r *Release) ScriptBlobs() []Blob {
	var all []Blob
	add := func(scripts []Script) {
		for _, s := range scripts {
			for _, b := range []Blob{s.Run, s.Undo} {
				if !b.Digest.IsZero() && !slices.Contains(all, b) {
					all = append(all, b)
				}
			}
		}
	}
	add(r.Scripts)
	for _, c := range r.Components {
		add(c.Scripts)
	}
	return all
}

// validateScripts checks the scripts of the release and of its components.
func (r *Release) validateScripts() error {
	n := len(r.Scripts)
	if err := checkScripts(r.Scripts); err != nil {
		return err
	}
	for _, s := range r.Scripts {
		if s.At == OnMerge {
			return fmt.Errorf("script %q: %w: only a component has scripts %s", s.Name, ErrInvalid, s.At)
		}
	}
	for _, c := range r.Components {
		if err := checkScripts(c.Scripts); err != nil {
			return fmt.Errorf("component %q: %w", c.Name, err)
		}
		n += len(c.Scripts)
	}
	if n > MaxScripts {
		return fmt.Errorf("%w: %d scripts are more than %d", ErrInvalid, n, MaxScripts)
	}
	return nil
}

func checkScripts(scripts []Script) error {
	for i, s := range scripts {
		if err := s.validate(); err != nil {
			return fmt.Errorf("script %.80q: %w", s.Name, err)
		}
		same := func(o Script) bool { return o.Name == s.Name && o.At == s.At }
		if slices.ContainsFunc(scripts[:i], same) {
			return fmt.Errorf("%w: script %q stands twice at %s", ErrInvalid, s.Name, s.At)
		}
	}
	return nil
}

func (s Script) validate() error {
	if err := CheckName(s.Name); err != nil {
		return err
	}
	if !s.At.Known() {
		return fmt.Errorf("%w: %.40q is no point of a transaction", ErrInvalid, s.At)
	}
	if s.Limit < 0 || s.Limit > MaxScriptLimit {
		return fmt.Errorf("%w: limit %d is not from 0 to %d", ErrInvalid, s.Limit, MaxScriptLimit)
	}
	if err := checkProgram(s.Run); err != nil {
		return fmt.Errorf("run: %w", err)
	}
	if s.Undo == (Blob{}) {
		return nil
	}
	if !s.At.HasUndo() {
		return fmt.Errorf("%w: there is nothing to undo at %s", ErrInvalid, s.At)
	}
	if err := checkProgram(s.Undo); err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	return nil
}

func checkProgram(b Blob) error {
	if err := b.validate(); err != nil {
		return err
	}
	if b.Size == 0 || b.Size > MaxScript {
		return fmt.Errorf("%w: size %d is not from 1 to %d", ErrInvalid, b.Size, int64(MaxScript))
	}
	return nil
}
