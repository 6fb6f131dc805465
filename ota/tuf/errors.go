package tuf

import (
	"errors"
	"fmt"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Errors that a caller branches on; they come wrapped with what was done.
var (
	// ErrUntrusted is the family of metadata that is refused for what it is.
	// Either somebody is between the device and its publisher, or the publisher
	// made a mistake; waiting does not help.
	ErrUntrusted = errors.New("the repository cannot be trusted")
	// ErrSignature is returned when too few of the keys that count signed.
	ErrSignature error = &untrusted{"not enough valid signatures"}
	// ErrRollback is returned for metadata older than what the device has
	// seen.
	ErrRollback error = &untrusted{"the repository is older than what was seen before"}
	// ErrReplaced is returned for a release with other bytes than were seen
	// under the same seq before.
	ErrReplaced error = &untrusted{"a release was replaced by another one of the same seq"}
	// ErrTooLarge is returned for metadata above its limit, see [Limits].
	ErrTooLarge error = &untrusted{"a file of the repository is larger than allowed"}
	// ErrExpired is returned when metadata has expired beyond doubt: the
	// repository has to be refreshed, or somebody holds newer files back.
	ErrExpired = errors.New("the repository has expired")
	// ErrClockUntrusted is returned when metadata has expired by the device's
	// clock only: set the clock, or refresh the repository.
	ErrClockUntrusted = errors.New("the repository has expired if the clock is right")
	// ErrStore is returned when the trust store is of a format that this program
	// does not know. It is kept as it is.
	ErrStore = errors.New("the trust store is not one that this program can read")
)

// untrusted is a member of the ErrUntrusted family.
type untrusted struct{ text string }

func (e *untrusted) Error() string { return e.text }
func (e *untrusted) Unwrap() error { return ErrUntrusted }

// transportError carries an error of the repository's reader through go-tuf.
type transportError struct{ err error }

func (e *transportError) Error() string { return e.err.Error() }

// classify puts an error of go-tuf into one of the families above.
func classify(err error) error {
	if err == nil || errors.Is(err, ErrUntrusted) {
		return err
	}
	if e, ok := errors.AsType[*transportError](err); ok {
		return e.err
	}
	family := ErrUntrusted
	switch {
	case errors.Is(err, &metadata.ErrExpiredMetadata{}):
		family = ErrExpired
	case errors.Is(err, &metadata.ErrBadVersionNumber{}):
		family = ErrRollback
	case errors.Is(err, &metadata.ErrUnsignedMetadata{}):
		family = ErrSignature
	}
	return fmt.Errorf("%w: %w", family, err)
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
