package ota

import (
	"fmt"
	"time"

	"github.com/pawl-ota/pawl/ota/release"
)

// State is where a transaction stands. It is stored as its word.
type State string

// The values of [State], in the order in which a transaction takes them.
const (
	Idle       State = "idle"       // no transaction is open
	Staging    State = "staging"    // being brought onto the device
	Staged     State = "staged"     // on the device; nothing that runs was touched
	Activating State = "activating" // being switched to
	InTrial    State = "trial"      // in effect, and to prove itself
	Committing State = "committing" // proved: no way back from here
	Committed  State = "committed"
	Reverting  State = "reverting" // being taken back
	Reverted   State = "reverted"
	Stuck      State = "stuck" // neither way could be gone to its end
)

// Result says how far a transaction got. In a journal's history it stands for
// one that ended.
type Result struct {
	Tx    TxID  `json:"tx,omitempty"`
	State State `json:"state"`
	// Needs is what has to happen before the transaction can go on, or, when
	// it ended, before what runs is what was kept.
	Needs Effect `json:"needs,omitempty"`
	// From ran before, To was tried; From is zero on a new device.
	From Installed `json:"from"`
	To   Installed `json:"to"`
	// Back is whether it is a Rollback to a kept release.
	Back bool `json:"back,omitempty"`
	// Reason says why, when the transaction did not end in a commit.
	Reason string `json:"reason,omitempty"`
	// Condemned is whether the release will not be tried again by itself.
	Condemned bool `json:"condemned,omitempty"`
	// Bytes were fetched for it: stored content and metadata of the
	// repository, without HTTP's own.
	Bytes int64 `json:"bytes"`
	// Fetched says what they were for.
	Fetched Fetched `json:"fetched,omitzero"`
	// Scripts are those that were begun, in that order; of a transaction that
	// ended a history holds the first few that did not succeed.
	Scripts []ScriptRun `json:"scripts,omitempty"`
	// Starts is how many processes found its trial open.
	Starts int `json:"starts,omitempty"`
	// Began and Ended are of the device's own clock, which may be wrong. Ended
	// is zero while the transaction is open.
	Began time.Time     `json:"began,omitzero"`
	Ended time.Time     `json:"ended,omitzero"`
	Took  time.Duration `json:"took,omitempty"` // running time in nanoseconds
	// Downtime is for how long the switches of its components, there and back,
	// left something not running, in nanoseconds: added up, as far as backends
	// measure it, and without what a power cut or a restart took.
	Downtime time.Duration `json:"downtime,omitempty"`
}

// String returns the result as one line.
func (r Result) String() string {
	s := string(r.State)
	if r.To.Seq != 0 {
		s = fmt.Sprintf("%s %s", r.State, r.To)
	}
	if r.Back {
		s += ", going back from " + r.From.String()
	}
	if r.Needs != "" && r.Needs != Live {
		s += ", needs a " + string(r.Needs)
	}
	if r.Reason != "" {
		s += ": " + r.Reason
	}
	return s
}

// Installed is a release as the journal knows it.
type Installed struct {
	release.ID
	Version string         `json:"version,omitempty"`
	Digest  release.Digest `json:"digest"` // of the release document
}

// String returns version and seq.
func (i Installed) String() string {
	if i.Seq == 0 {
		return "nothing"
	}
	return fmt.Sprintf("%s (seq %d)", i.Version, i.Seq)
}

// Progress is one step of a transaction, as it happens.
type Progress struct {
	Tx        TxID
	To        Installed
	State     State
	Component string // empty when the step is of the whole transaction
	Step      string // "fetch", "stage", "activate", "health", "commit", "revert", …
	// Done and Total are bytes of content where the step moves some, else
	// nanoseconds of soak during "health"; Total is 0 where it is not known.
	Done, Total int64
	// Script is set in the steps "script" and "undo".
	Script ScriptRun
	// Result is set when the transaction has ended, as the history has it: what
	// it says is durable.
	Result *Result
	// Err is what went wrong in the step: a sick answer of Health, say.
	Err error
}

// Status is what an Updater knows without asking the network.
type Status struct {
	State   State     `json:"state"`
	Running Installed `json:"running"`
	// Tx is the open transaction, or nil.
	Tx *Result `json:"tx,omitempty"`
	// Kept are the earlier releases that Rollback can go back to, newest
	// first.
	Kept []Installed `json:"kept,omitempty"`
	// SecurityFloor and DataFloor are the lowest seqs that may be installed.
	SecurityFloor uint64 `json:"securityFloor,omitempty"`
	DataFloor     uint64 `json:"dataFloor,omitempty"`
	// Held are the releases that Update will not take by itself now.
	Held []Held `json:"held,omitempty"`
	// Notes say what Open had to do, such as setting a damaged record aside.
	Notes []string `json:"notes,omitempty"`
}

// Held is one release that is held back.
type Held struct {
	release.ID
	Attempt   uint32    `json:"attempt,omitempty"`
	Condemned bool      `json:"condemned"`
	Count     int       `json:"count"`          // times it was cut short or failed
	Until     time.Time `json:"until,omitzero"` // by the device's clock, when not condemned
	Reason    string    `json:"reason"`
}

// SpaceError says what is missing on one file system. It is an ErrNoSpace.
type SpaceError struct {
	Path       string `json:"path"`
	NeedBytes  int64  `json:"needBytes"`
	FreeBytes  int64  `json:"freeBytes"`
	NeedInodes int64  `json:"needInodes"`
	FreeInodes int64  `json:"freeInodes"`
	Reserve    int64  `json:"reserve"` // bytes that are to stay free
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("not enough space at %s: needs %d bytes and %d inodes, has %d bytes and %d inodes free, of which %d bytes are to stay free",
		e.Path, e.NeedBytes, e.NeedInodes, e.FreeBytes, e.FreeInodes, e.Reserve)
}

// Unwrap returns ErrNoSpace.
func (e *SpaceError) Unwrap() error { return ErrNoSpace }

// MemoryError says that the device has too little memory, in bytes. It is an
// ErrNoMemory.
type MemoryError struct {
	Need int64 // what the process will hold at most
	Free int64 // what it holds now, with what the device has available
}

func (e *MemoryError) Error() string {
	return fmt.Sprintf("not enough memory: the process needs %d bytes, and can have %d bytes", e.Need, e.Free)
}

// Unwrap returns ErrNoMemory.
func (e *MemoryError) Unwrap() error { return ErrNoMemory }
