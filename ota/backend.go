package ota

import (
	"context"
	"io"
	"time"

	"github.com/pawl-ota/pawl/ota/release"
)

// TxID names one transaction on one device: lower-case letters, digits and
// hyphens, at most 64 bytes, never used twice. Backends use it as a name for
// what they set aside.
type TxID string

// Backend stages, activates, commits and reverts the components of one kind.
//
// The Updater calls one verb at a time. Every verb may be called again after
// any outcome, a power cut in the middle included, any number of times, and
// ends the same. Activate, Commit and Revert are durable when they return nil:
// no power cut after that takes the effect away, also where they found it done
// by a process that was killed before it could make it durable. When one of them returns an
// error the component may be anywhere between; Revert then has to bring it
// back. A verb returns soon after its ctx ends; how far it got does not matter.
//
// The suite in package otatest checks all of this.
type Backend interface {
	// Stage brings everything that Activate will need onto the device, down
	// to the space for the way back, and touches nothing that runs. Content
	// it does not have it takes from content. It returns what Activate will
	// need to become effective. Staging again over an interrupted Stage of
	// the same tx uses what is there and right.
	Stage(ctx context.Context, tx TxID, c release.Component, content Content) (Effect, error)

	// Activate makes c what runs, on trial: after it Active answers
	// Whole(c.Digest()), or names it as Next where a reboot has to happen
	// first. It needs no network and no space that Stage did not set aside.
	Activate(ctx context.Context, tx TxID, c release.Component) error

	// Commit makes permanent what the trial left provisional and drops what
	// only Revert needed. It is called only when Active answered Whole for c.
	// After the first call of Commit the transaction never reverts.
	Commit(ctx context.Context, tx TxID, c release.Component) error

	// Revert puts the component back exactly as it was before Stage, from any
	// point, "never staged" included, and drops what tx set aside. Where that
	// takes a reboot it arms it: Active then names the old one as Next. It goes
	// by what it noted itself: where the release document was lost, c holds the
	// name alone. An error that wraps ErrDigest says that the old one is back
	// but for content that a Repair has to bring.
	Revert(ctx context.Context, tx TxID, c release.Component) error

	// Active asks the device, never a journal, what is in effect for the
	// named component. It reads metadata and the evidence of the switch, not
	// content: at most a second for 10,000 entries.
	Active(ctx context.Context, name string) (Active, error)
}

// Active is a backend's answer to what is in effect for a component.
type Active struct {
	State Presence `json:"state"`
	// Digest is of the component ([release.Component.Digest]); set when State
	// is Whole.
	Digest release.Digest `json:"digest,omitzero"`
	// Next is the component that the next boot will bring up, when that is
	// armed and is not Digest; zero otherwise.
	Next release.Digest `json:"next,omitzero"`
}

// Is reports whether the component with digest d is wholly in effect.
func (a Active) Is(d release.Digest) bool { return a.State == Whole && a.Digest == d }

// Presence says how much of a component is there. It is stored as its word.
type Presence string

// The values of [Presence].
const (
	// None: nothing of the component is there.
	None Presence = "none"
	// Whole: exactly one component, all of it.
	Whole Presence = "whole"
	// Mixed: anything else, such as half of a switch, or something that pawl
	// did not put there.
	Mixed Presence = "mixed"
)

// Effect says what has to happen after Activate until a component is in
// effect. It is stored as its word.
type Effect string

// The values of [Effect], from the least to the most. The empty Effect is
// Live.
const (
	Live         Effect = "live"    // nothing
	NeedsRestart Effect = "restart" // the embedding process has to be started anew
	NeedsReboot  Effect = "reboot"  // the device has to boot
)

// Content hands a backend the bytes of a release. Every reader it gives out
// verifies: it returns [io.EOF] only after exactly the blob's length with the
// blob's digest, and an error that wraps [ErrDigest] or [ErrLength] in its
// place otherwise. Bytes read before that are unverified and must not reach a
// name that anything runs or reads. Content is used by one goroutine.
type Content interface {
	// Open opens one blob, for content that is small or single.
	Open(ctx context.Context, b release.Blob) (io.ReadCloser, error)
	// Each brings many blobs in the order that costs the fewest requests, and
	// calls put once for each with its verifying reader. A blob that is named
	// twice is brought once. put may be called for a blob again when its first
	// reader ended in an error that another place on the device or in the
	// repository can make good. Each returns the first error of put that is
	// not a read error passed on.
	Each(ctx context.Context, blobs []release.Blob, put func(release.Blob, io.Reader) error) error
}

// Need is what staging a component takes from one file system, above what is
// there already.
type Need struct {
	Path   string // a path on the file system, which need not exist yet
	Bytes  int64
	Inodes int64
}

// Budgeter is a [Backend] that knows beforehand what Stage takes. The Updater
// compares the sum with what is free before anything is fetched but the
// indexes.
type Budgeter interface {
	Budget(ctx context.Context, c release.Component, content Content) ([]Need, error)
}

// Lister is a [Backend] whose components consist of blobs. Keep and repair
// with a full local copy work only for those.
type Lister interface {
	// Blobs returns the blobs that c consists of, without its index, each
	// once.
	Blobs(ctx context.Context, c release.Component, content Content) ([]release.Blob, error)
}

// Seeder is a [Backend] that can lend installed bytes: those of the running
// release and of what it kept of earlier ones.
type Seeder interface {
	// Seed opens a place that may hold b. The bytes are unverified: the
	// Updater checks them. ok is false where there is none. Patches are applied
	// to what is an [io.ReaderAt] too, such as a file; it may be open for long.
	Seed(ctx context.Context, name string, b release.Blob) (r io.ReadCloser, ok bool, err error)
}

// Resembler is a [Seeder] that knows which installed content new content is
// like: what both have in common need not be fetched.
type Resembler interface {
	// Similar returns installed blobs that b, of the component c, may have
	// bytes in common with, the likeliest first: the file that it replaces, or
	// one of the same name.
	Similar(ctx context.Context, c release.Component, b release.Blob, content Content) ([]release.Blob, error)
}

// Verifier is a [Backend] that can compare what is installed with what should
// be, by content.
type Verifier interface {
	// Verify returns what differs, and nil when nothing does. c is the
	// component as it was installed.
	Verify(ctx context.Context, c release.Component, content Content) ([]Damage, error)
}

// Adopter is a [Verifier] that can take over what pawl did not install.
type Adopter interface {
	// Adopt has Active answer Whole for c, in which Verify has just found no
	// difference, durably when it returns. It changes nothing that c lists, and
	// may be called again after a power cut.
	Adopt(ctx context.Context, c release.Component, content Content) error
}

// Repairer is a [Backend] that can put damaged content back while the
// component stays in effect. content reads only what is on the device.
type Repairer interface {
	// Repair mends what Verify would report, and returns what it could not.
	// It may be called again after a power cut.
	Repair(ctx context.Context, c release.Component, content Content) ([]Damage, error)
}

// Pruner is a [Backend] that keeps something of earlier releases.
type Pruner interface {
	// Prune drops everything of the named component that neither runs nor is
	// one of keep, nor belongs to one of the transactions in open.
	Prune(ctx context.Context, name string, keep []release.Digest, open []TxID) error
}

// Reverter is a [Backend] that can tell whether Revert would still succeed.
// It is asked when the newest journal record was lost in the middle of a
// trial; a backend without it counts as one that can not. As with Revert, c may
// hold the name alone.
type Reverter interface {
	CanRevert(ctx context.Context, tx TxID, c release.Component) (bool, error)
}

// Outage is a [Backend] that measures how long it interrupts what it switches.
type Outage interface {
	// Downtime is for how long the last Activate or Revert of this process left
	// something of its component not running.
	Downtime() time.Duration
}

// Rooter is a [Backend] whose component lies below one folder; its scripts are
// told which.
type Rooter interface {
	// Root returns the absolute path of the folder.
	Root(name string) string
}

// Differ is a [Backend] that can tell beforehand what a release would change.
type Differ interface {
	// Diff compares what is installed with c, and changes nothing. content
	// brings the indexes of components; file content need not be there.
	Diff(ctx context.Context, c release.Component, content Content) ([]Change, error)
}

// Change is one thing that a release would change.
type Change struct {
	Component string     `json:"component"`
	Path      string     `json:"path"` // within the component
	What      ChangeKind `json:"what"`
	// Detail says more, for a person: old and new size, the mode, what
	// happens to a local change.
	Detail string `json:"detail,omitempty"`
}

// ChangeKind is a word for what happens to a path.
type ChangeKind string

// The values of [ChangeKind].
const (
	Added    ChangeKind = "added"
	Removed  ChangeKind = "removed"
	Changed  ChangeKind = "changed"  // the content of a file, or what kind of entry it is
	Metadata ChangeKind = "metadata" // mode, owner or attributes alone
	// LocallyChanged entries are not as the running release left them. Detail
	// says what the new one does about it.
	LocallyChanged ChangeKind = "local"
)

// Scripter is implemented by the [Content] that Stage is called with.
type Scripter interface {
	// Script runs a script of the component that is being staged, one with the
	// point [release.OnMerge], and returns an error for anything but its
	// success. env, "NAME=VALUE" each, is added to its environment.
	Script(ctx context.Context, name string, env ...string) error
}

// Damage is one thing that is not as the release says.
type Damage struct {
	Component string `json:"component"`
	Path      string `json:"path"`   // within the component
	Reason    string `json:"reason"` // what differs
}

// String returns the damage for a person to read.
func (d Damage) String() string { return d.Component + ": " + d.Path + ": " + d.Reason }
