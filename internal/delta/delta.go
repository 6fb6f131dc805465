// Package delta makes binary deltas (patches) of a few blobs from old ones, and
// applies them on a device, in bounded memory.
//
// A group is a sequence of patches that are compressed together; it is what is
// stored, fetched and read from its beginning to its end. [Find] compares two
// blobs, [Writer] writes what was found, [Reader] makes the new blobs again. A
// patch without an old blob is a new blob, compressed.
//
// # Method
//
// Approximate matches are found as Colin Percival's bsdiff does it ("Naive
// differences of executable code", 2003): a new blob is copies of pieces of the
// old one, in which some bytes differ, and inserted bytes between them. The
// format and everything else are our own.
//
// # Format, version 1
//
// A byte 1, or 2 for a quick group, then one stream of an adaptive binary range coder (that of LZMA)
// until the end of the group; so there are no blocks and no lengths in bytes, and
// all patches of the group share what the models have learned:
//
//	group   1 patch | 0 (end)
//	patch   length of old, length of new less that, steps until new is complete;
//	        without an old blob one insert of the whole
//	step    where the copy begins in old, less where the last one ended; tokens; length of the insert
//	token   gap: bytes that are as in old; then the difference of one byte, or 0: the copy ends
//	insert  items, as in LZ77: a byte; a distance and a length; one of the last four
//	        distances and a length; 4 to 64 KiB of raw bytes, in pairs. An item can reach from one insert
//	        into the next one of the patch. The window is 1 MiB of inserted bytes.
//
// Differences are from -255 to 255, and what goes over a byte's bounds is carried
// into the next byte: so one token changes a little-endian number of any width,
// and addresses that move together differ alike. A token is first guessed to be the one
// that followed the same three tokens before, then the same one; what was not
// guessed is coded with three models that are mixed as PAQ does it, and so are
// single inserted bytes; those of a patch whose inserts are nearly chance are coded
// by how often each byte was there, told anew every 512 bytes. In a quick group one
// model stands for the three: of a gap by the two gaps before, of a difference by
// the gap, of a byte by the one before it.
//
// Nothing in the stream depends on the content of old blobs. So a patch can be
// skipped without its old blob, and a wrong one does no harm to the patches behind it.
//
// # Bounds
//
// A Reader holds about 5 MiB: models of 3.5 MiB, the window, and buffers. The
// old blob is read in place through 64 KiB. A Writer holds about 40 MiB, Find
// what [Memory] says.
package delta

import (
	"errors"
	"io"
)

// The first byte of a group says how it is coded.
const (
	mixedGroup = 1
	quickGroup = 2
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
