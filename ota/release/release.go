package release

import (
	"encoding/json"
	"time"
)

// Format is the word that a release document starts with. What is written in
// version 1 is read for ever; a reader refuses every word that it does not know.
const Format = "pawl-release/1"

// Blob names immutable bytes by content.
type Blob struct {
	Digest Digest `json:"digest"`
	Size   int64  `json:"size"` // bytes, 0 ≤ Size ≤ MaxBlob
}

// ID is what a release is known by. Seq alone decides the order of the
// releases of one product and variant.
type ID struct {
	Product string `json:"product"`
	Variant string `json:"variant"`
	Seq     uint64 `json:"seq"`
}

// Release is the signed document of one release: small, whatever the release
// weighs, because all content hangs below it by digest.
type Release struct {
	Format string `json:"format"`
	ID
	// Version is a label for people, at most 128 bytes. It orders nothing.
	Version string `json:"version"`
	// Attempt is raised by the publisher to have devices try a release again
	// that they have condemned.
	Attempt uint32 `json:"attempt,omitempty"`
	// Hardware lists the hardware ids that the release is for; an empty list
	// means every device of the variant.
	Hardware []string `json:"hardware,omitempty"`
	// SecurityFloor is the lowest seq that a device may run once this release
	// is committed on it; 0 raises nothing. It is never above Seq.
	SecurityFloor uint64 `json:"securityFloor,omitempty"`
	// LateRollback says whether a device may go back from the release by itself
	// once it has committed it.
	LateRollback LateRollback `json:"lateRollback,omitempty"`
	// Issued is when the publisher made the release, in UTC, to the second.
	Issued     time.Time   `json:"issued"`
	Components []Component `json:"components"`
	// Scripts run at the points of the transaction as a whole.
	Scripts []Script `json:"scripts,omitempty"`
}

// LateRollback says whether a device that finds the release sick after the commit
// may go back to one that it kept. It is nothing to a person's own Rollback, nor to
// the way back from a trial.
type LateRollback string

// The values of [LateRollback]. What a release keeps is kept to be gone back to:
// so it is allowed where nothing is said, as in every document from before there
// was the word. A program that does not know the word refuses a document that
// has it.
const (
	LateAllowed   LateRollback = ""
	LateForbidden LateRollback = "forbid"
)

// Component is one part of a release, handled by one backend.
type Component struct {
	Name string `json:"name"`
	// Kind is the word for what the component is: "files", "compose", ….
	Kind string `json:"kind"`
	// Index is the blob that lists the component's content. What is in it is
	// between the publisher and the backend of that kind; for "files" it is
	// an [Index].
	Index Blob `json:"index"`
	// Keep says how much of the past stays on the device.
	Keep Keep `json:"keep"`
	// Options is for the backend, passed on as it is. At most 64 KiB.
	Options json.RawMessage `json:"options,omitempty"`
	// Scripts run when the release changes the component. They are no part of
	// what the component is: [Component.Digest] is the same without them.
	Scripts []Script `json:"scripts,omitempty"`
}

// Keep says what of a component stays on a device after the commit, for the
// way back without a network.
type Keep struct {
	// Previous is how many earlier releases can be gone back to, 0 to 16.
	Previous int `json:"previous"`
	// Repair is what a repair can rely on.
	Repair Repair `json:"repair"`
}

// Repair says which content of the running release is kept a second time.
type Repair string

// The values of [Repair].
const (
	// RepairNone keeps no second copy: a repair can only use what other
	// places on the device hold by chance.
	RepairNone Repair = "none"
	// RepairChanged keeps what the latest update brought.
	RepairChanged Repair = "changed"
	// RepairFull keeps everything: a repair succeeds without a network
	// whatever was damaged outside the local copy.
	RepairFull Repair = "full"
)
