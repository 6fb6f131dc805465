// Package delta makes and applies binary deltas in groups.
package delta

import (
	"errors"
	"io"
)

// ErrDamaged is wrapped by the errors of a Reader whose group is not one, or is
// cut short.
var ErrDamaged = errors.New("the group of patches is damaged")

// ErrOld is wrapped by the errors of a Reader that was given another old blob
// than the patch was made from, as far as its length tells.
var ErrOld = errors.New("the patch was made from another blob")

// Input is what a patch is made from. A *bytes.Reader and an *io.SectionReader
// are ones.
type Input interface {
	io.ReaderAt
	Size() int64
}
