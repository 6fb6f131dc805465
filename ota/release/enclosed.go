package release

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Bounds of what a timestamp encloses: stored bytes, bytes of all files, and files.
const (
	MaxEnclosed      = 8 << 10
	maxEnclosedOpen  = 64 << 10
	maxEnclosedFiles = 16
)

// Enclosed is a file of the repository, or a part of a pack, that comes with the
// timestamp of a new release, because whoever sees that for the first time is going
// to ask for it: so a small release takes no further round trip. It is the same
// bytes as in the repository, and is verified as they are. A reader that does not know
// of it, or does not trust it, fetches them.
//
// The signed part of the timestamp has them as the field "enclosed", in base64: one
// Zstandard frame, and in it a line of JSON, which lists them, and their bytes in
// that order.
type Enclosed struct {
	Name   string `json:"name"`             // in the repository
	Offset int64  `json:"offset,omitempty"` // in a pack
	Size   int    `json:"size"`
	Data   []byte `json:"-"` // Size bytes
}

// Part reports whether e is a part of a file, one with content. All others are whole.
func (e Enclosed) Part() bool { return strings.HasPrefix(e.Name, contentFolder) }

// EncodeEnclosed returns the stored form of as many of list as there is room for in
// [MaxEnclosed]: the largest are left out. It is nil where there is none.
func EncodeEnclosed(list []Enclosed) ([]byte, error) {
	list = slices.Clone(list)
	for ; len(list) > 0; list = slices.Delete(list, largest(list), largest(list)+1) {
		if !fits(list) {
			continue
		}
		stored, err := encodeEnclosed(list)
		if err != nil || len(stored) <= MaxEnclosed {
			return stored, err
		}
	}
	return nil, nil
}

func largest(list []Enclosed) (at int) {
	for i, e := range list {
		if len(e.Data) > len(list[at].Data) {
			at = i
		}
	}
	return at
}

func fits(list []Enclosed) bool {
	n := 0
	for _, e := range list {
		n += len(e.Data)
	}
	return len(list) <= maxEnclosedFiles && n <= maxEnclosedOpen/2 // the rest is for the line
}

func encodeEnclosed(list []Enclosed) ([]byte, error) {
	var all []byte
	for i := range list {
		list[i].Size = len(list[i].Data)
		all = append(all, list[i].Data...)
	}
	head, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("cannot enclose files: %w", err)
	}
	return deflate(slices.Concat(head, []byte{'\n'}, all))
}

// ParseEnclosed reads what EncodeEnclosed wrote. What is longer than that may be,
// or ends too early, is an error that wraps ErrInvalid.
func ParseEnclosed(stored []byte) (list []Enclosed, err error) {
	data, err := inflate(stored, maxEnclosedOpen)
	head, rest, _ := bytes.Cut(data, []byte{'\n'})
	if err != nil || json.Unmarshal(head, &list) != nil || len(list) > maxEnclosedFiles {
		return nil, ErrInvalid
	}
	for i := range list {
		e := &list[i]
		if e.Size < 0 || e.Size > len(rest) || e.Offset < 0 {
			return nil, ErrInvalid
		}
		e.Data, rest = rest[:e.Size], rest[e.Size:]
	}
	return list, nil
}
