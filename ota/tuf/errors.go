package tuf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-ota/pawl/ota"
)

// Errors that a caller branches on; they come wrapped with what was done. With
// each stands what an operator should do. Besides them come [ota.ErrNoRelease]
// (publish one, or look at the device's product and variant),
// [ota.ErrHardware] (the newest release is for other hardware: publish one for
// this, or look at the device's settings), and, within ErrUntrusted,
// [ota.ErrLength] and [ota.ErrDigest] (a file is not the signed one: publish or
// mirror it again).
var (
	// ErrUntrusted is the family of metadata that is refused for what it is.
	// Either somebody is between the device and its publisher, or the publisher
	// made a mistake. Waiting does not help: verify the repository where it
	// was published, and if it is whole there, look for who changed it on the way.
	ErrUntrusted = errors.New("the repository cannot be trusted")
	// ErrThreshold is returned when fewer of the keys that count signed than
	// have to. Sign with the missing keys; a device that knows older keys only
	// needs every root version in between, so never remove one.
	ErrThreshold error = &untrusted{"not enough valid signatures"}
	// ErrRollback is returned for metadata older than what the device has
	// seen. Bring the mirror up to date; after a restored backup, publish
	// until the versions are above the highest that devices saw.
	ErrRollback error = &untrusted{"the repository is older than what was seen before"}
	// ErrReplaced is returned for a release with other bytes than were seen
	// under the same seq before. Publish it under a new seq.
	ErrReplaced error = &untrusted{"a release was replaced by another one of the same seq"}
	// ErrTooLarge is returned for metadata above a limit, see [Limits]. Prune
	// the repository, or raise the limit if the device has the memory.
	ErrTooLarge error = &untrusted{"the repository is larger than the device allows"}
	// ErrUnavailable is returned when the repository, or one of its files,
	// could not be read: no network, no medium, a server that is slow or down, a
	// file that is not there. Nothing was refused: try again later; if it stays,
	// look at the error inside it, and whether the mirror is whole.
	ErrUnavailable = errors.New("the repository cannot be read")
	// ErrExpired is returned when metadata has expired beyond doubt: refresh
	// the repository. If it is fresh where it was published, somebody holds
	// newer files back.
	ErrExpired = errors.New("the repository has expired")
	// ErrClockUntrusted is returned when metadata has expired by the device's
	// clock only: set the clock, or refresh the repository. Nothing is lost by
	// it; the next lookup with a right clock goes through.
	ErrClockUntrusted = errors.New("the repository has expired if the clock is right")
	// ErrStore is returned when the trust store is of a format that this program
	// does not know. It is kept as it is: run the newer program, or remove the
	// folder, and with it what the device has seen.
	ErrStore = errors.New("the trust store is not one that this program can read")
)

// untrusted is a member of the ErrUntrusted family.
type untrusted struct{ text string }

func (e *untrusted) Error() string { return e.text }
func (e *untrusted) Unwrap() error { return ErrUntrusted }

// transportError carries an error of the repository's reader through go-tuf.
type transportError struct{ err error }

func (e *transportError) Error() string { return e.err.Error() }

// unavailable puts an error of a reader into the ErrUnavailable family.
func unavailable(err error) error { return fmt.Errorf("%w: %w", ErrUnavailable, err) }

// classify puts an error of go-tuf into one of the families above.
func classify(err error) error {
	if err == nil || errors.Is(err, ErrUntrusted) {
		return err
	}
	if e, ok := errors.AsType[*transportError](err); ok {
		return e.err
	}
	if ours(err) {
		return fmt.Errorf("cannot use the scratch folder: %w", err)
	}
	family := ErrUntrusted
	switch {
	case errors.Is(err, &metadata.ErrExpiredMetadata{}):
		family = ErrExpired
	case errors.Is(err, &metadata.ErrBadVersionNumber{}):
		family = ErrRollback
	case errors.Is(err, &metadata.ErrUnsignedMetadata{}):
		family = ErrThreshold
	}
	if e, ok := errors.AsType[*metadata.ErrLengthOrHashMismatch](err); ok {
		family = mismatch(e)
	}
	return fmt.Errorf("%w: %w", family, err)
}

// ours reports whether err is of the device's own file system.
func ours(err error) bool {
	_, path := errors.AsType[*fs.PathError](err)
	_, link := errors.AsType[*os.LinkError](err)
	return path || link
}

// mismatch tells a wrong length from a wrong digest, which go-tuf does in the
// text alone.
func mismatch(e *metadata.ErrLengthOrHashMismatch) error {
	if strings.HasPrefix(e.Msg, "length") {
		return fmt.Errorf("%w: %w", ErrUntrusted, ota.ErrLength)
	}
	return fmt.Errorf("%w: %w", ErrUntrusted, ota.ErrDigest)
}

// failClosed calls f, and makes an error of a panic: go-tuf follows pointers
// that signed but odd metadata leaves nil.
func failClosed(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: the metadata cannot be read: %v", ErrUntrusted, p)
		}
	}()
	return f()
}
