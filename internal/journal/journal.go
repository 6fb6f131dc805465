// Package journal keeps one small record through power cuts: two files,
// written in turn, each replaced as a whole, so that the record before the
// newest is always there too.
//
// A file is one header line and a body:
//
//	pawl-journal/0 GENERATION LENGTH-OF-BODY SHA256
//
// The sum is over the header before it and the body. The header keeps its form
// in every later format, so that a program can tell a record of the future,
// which it must not touch, from a damaged one, which it may go back from.
package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"syscall"
)

const (
	magic  = "pawl-journal/"
	format = "0"
	// MaxBody is the longest body in bytes.
	MaxBody = 1 << 20
	maxFile = MaxBody + 256
)

var (
	// ErrFormat is returned by Open for an undamaged record of a format that
	// this program does not know.
	ErrFormat = errors.New("the journal was written by another version")
	// ErrTooLong is returned by Write for a body longer than MaxBody; nothing
	// was written.
	ErrTooLong = errors.New("the journal record is too long")

	errDamaged = errors.New("damaged")
)

// names are the two files. Generation g is written to names[g%2].
var names = [2]string{"journal.a", "journal.b"}

// Dir is where the two files are. WriteFile is atomic and durable.
type Dir interface {
	ReadFile(name string, max int64) ([]byte, error)
	WriteFile(name string, data []byte) error
}

// Journal writes records to one Dir. It is used by one goroutine.
type Journal struct {
	dir        Dir
	generation uint64
}

// Found is what Open found.
type Found struct {
	// Body is the newest record that is whole; nil when there is none.
	Body []byte
	// Fallback is set when a file was damaged or is missing: the record lost
	// may have been one step further than Body.
	Fallback bool
	// Notes say what was damaged, for a person.
	Notes []string
}

// Open reads the newest whole record, without changing anything.
func Open(dir Dir) (*Journal, Found, error) {
	j := &Journal{dir: dir}
	var found Found
	missing := ""
	for _, name := range names {
		data, err := dir.ReadFile(name, maxFile)
		if errors.Is(err, fs.ErrNotExist) {
			missing = name
			continue
		}
		if err != nil && passing(err) {
			return nil, Found{}, fmt.Errorf("cannot read the journal: %w", err)
		}
		generation, body, err := decode(data, err)
		if errors.Is(err, ErrFormat) {
			return nil, Found{}, fmt.Errorf("%s: %w", name, err)
		}
		if err != nil {
			found.Fallback = true
			found.Notes = append(found.Notes, name+": "+err.Error())
			continue
		}
		if found.Body == nil || generation > j.generation {
			j.generation, found.Body = generation, body
		}
	}
	// From the second record on there are two files.
	if missing != "" && j.generation > 1 {
		found.Fallback = true
		found.Notes = append(found.Notes, missing+": it is missing")
	}
	return j, found, nil
}

// SetAside copies every damaged file to a name beside it, for a person to look
// at, before the next Write replaces it. It is best effort: what cannot be
// copied is lost.
func (j *Journal) SetAside() {
	for _, name := range names {
		data, err := j.dir.ReadFile(name, maxFile)
		if err != nil {
			continue
		}
		if _, _, err := decode(data, nil); err != nil {
			_ = j.dir.WriteFile(name+".damaged", data)
		}
	}
}

// Write makes body the newest record, durably. It replaces the file of the
// record before the newest, so that a cut at any moment leaves one of the two
// newest whole.
func (j *Journal) Write(body []byte) error {
	if len(body) > MaxBody {
		return fmt.Errorf("%w: %d bytes, %d are allowed", ErrTooLong, len(body), MaxBody)
	}
	next := j.generation + 1
	if err := j.dir.WriteFile(names[next%2], encode(next, body)); err != nil {
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	j.generation = next
	return nil
}

func encode(generation uint64, body []byte) []byte {
	head := fmt.Sprintf("%s%s %d %d", magic, format, generation, len(body))
	return fmt.Appendf(nil, "%s %s\n%s", head, sum(head, body), body)
}

// sum covers the header too: a flipped bit in the generation or the format is
// damage, not another generation or the future.
func sum(head string, body []byte) string {
	h := sha256.New()
	h.Write([]byte(head))
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

// decode returns what encode put in, errDamaged, or ErrFormat. readErr is why
// data could not be read.
func decode(data []byte, readErr error) (uint64, []byte, error) {
	if readErr != nil {
		return 0, nil, fmt.Errorf("%w: %w", errDamaged, readErr)
	}
	line, body, ok := bytes.Cut(data, []byte("\n"))
	fields := strings.Split(string(line), " ")
	if !ok || len(fields) != 4 || !strings.HasPrefix(fields[0], magic) {
		return 0, nil, fmt.Errorf("%w: no header in its %d bytes", errDamaged, len(data))
	}
	if fields[3] != sum(strings.Join(fields[:3], " "), body) {
		return 0, nil, fmt.Errorf("%w: the checksum does not match", errDamaged)
	}
	if fields[0] != magic+format {
		return 0, nil, fmt.Errorf("%w: %.40q", ErrFormat, fields[0])
	}
	generation, err := strconv.ParseUint(fields[1], 10, 62)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: no generation", errDamaged)
	}
	return generation, body, nil
}

// passing reports whether a read error is a want of this process that may be
// over soon, and not the medium's word that the content is gone.
func passing(err error) bool {
	for _, want := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EACCES, syscall.EPERM, syscall.EINTR} {
		if errors.Is(err, want) {
			return true
		}
	}
	return false
}
