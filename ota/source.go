package ota

import (
	"context"
	"io"

	"github.com/pawl-ota/pawl/ota/release"
)

// Device says what this device is. Releases for another product, variant or
// hardware are refused.
type Device struct {
	ID       string `json:"id"` // for people and reports, at most 128 bytes
	Product  string `json:"product"`
	Variant  string `json:"variant"`
	Hardware string `json:"hardware"`
}

// Source is where releases and their content come from. What Latest and
// Locator return is verified by the Source; what Open returns is not, and is
// checked against digests by the Updater. A Source is used by one goroutine.
type Source interface {
	// Latest returns the release with the highest seq for dev's product and
	// variant, whatever runs on the device, or an error that wraps
	// ErrNoRelease. It refreshes what it knows first and returns an error
	// where that cannot be done, rather than an old answer.
	Latest(ctx context.Context, dev Device) (*release.Release, error)
	// Locator returns where the content of r lies.
	Locator(ctx context.Context, r *release.Release) (*release.Locator, error)
	// Open reads length bytes at offset of the named file of the repository;
	// length -1 means to its end. The reader mends broken connections within
	// its own budget, and ends in [io.ErrUnexpectedEOF] or another error
	// where it has fewer bytes to give.
	Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error)
}

// Catalog is a [Source] that has earlier releases too.
type Catalog interface {
	// Releases returns the seqs of the releases for dev's product and variant,
	// from the highest down.
	Releases(ctx context.Context, dev Device) ([]uint64, error)
	// Release returns the release with that seq, or an error that wraps
	// ErrNoRelease, or ErrHardware where it is not for dev's.
	Release(ctx context.Context, dev Device, seq uint64) (*release.Release, error)
}
