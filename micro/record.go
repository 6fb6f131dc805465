//go:build linux

package micro

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"

	"github.com/pawl-ota/pawl/micro/internal/at"
)

// A record is one line with its format and the SHA-256 sum of the rest, then
// JSON. It is replaced as a whole.
const (
	formatState  = "pawl-micro-state/0"
	formatStaged = "pawl-micro-staged/0"
	formatPlan   = "pawl-micro-plan/0"
)

// maxRecord bounds what is read of a record.
const maxRecord = 64 << 20

// errDamaged is returned for a record whose sum is wrong.
var errDamaged = errors.New("the record is damaged")

// known says which component a folder holds. Digest and Index are zero for a
// folder that no release put there.
type known struct {
	Digest release.Digest `json:"component,omitzero"`
	Index  release.Blob   `json:"index,omitzero"`
	ID     at.ID          `json:"id"`
}

// state is what is known of the folders outside of transactions: the root and
// the kept trees. It is evidence, not truth: what it says is compared with the
// inodes that are there.
type state struct {
	Trees []known `json:"trees"`
}

// staged says that a tree is complete and durable.
type staged struct {
	Tree known `json:"tree"`
	// Same is set where the root held the component already: nothing was
	// built and nothing will be exchanged.
	Same bool `json:"same,omitempty"`
}

// plan is written before the exchange: what is there and what will be.
type plan struct {
	New   known  `json:"new"`
	Old   *known `json:"old"` // nil where there was no root
	Moves []move `json:"moves,omitempty"`
}

// move is a path that goes from the old tree to the new one.
type move struct {
	Path string `json:"path"`
	// ID is what had the path when the plan was made; nil when nothing had.
	ID *at.ID `json:"id,omitempty"`
	// Back is set where a Revert takes it back to the old tree. It is not
	// where the old release knows nothing of it and it was not there.
	Back bool `json:"back,omitempty"`
}

// writeRecord replaces a record durably.
func (f *base) writeRecord(path, format string, v any) error {
	data, err := encodeRecord(path, format, v)
	if err == nil {
		err = f.step("write", path)
	}
	if err != nil {
		return err
	}
	return explain(durable.WriteFile(path, data, 0o600))
}

func encodeRecord(path, format string, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("cannot write %s: %w", path, err)
	}
	return fmt.Appendf(nil, "%s %s\n%s\n", format, release.Sum(append(body, '\n')), body), nil
}

// reserveBytes is what each record of a transaction has set aside.
const reserveBytes = 32 << 10

// The records that are written after Stage, each with room of its own.
const (
	forPlan  = "room-plan"
	forState = "room-state"
)

// reserve sets aside what the records of tx will need: on a disk that is full
// by then, the exchange and the commit still have to be possible.
func (f *base) reserve(tx ota.TxID, bytesEach int) error {
	for _, name := range []string{forPlan, forState} {
		if err := reserveFile(f.txPath(tx, name), bytesEach); err != nil {
			return explain(err)
		}
	}
	return nil
}

// reserveFile makes a file that has blocks of its own.
func reserveFile(path string, size int) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(file.Fd()), 0, 0, int64(size))
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		_, err = file.Write(bytes.Repeat([]byte{'.'}, size))
	}
	return errors.Join(err, file.Close())
}

// writeReserved is writeRecord that gives up its room if there is no other.
func (f *base) writeReserved(tx ota.TxID, room, path, format string, v any) error {
	err := f.writeRecord(path, format, v)
	if !errors.Is(err, ota.ErrNoSpace) {
		return err
	}
	if err := os.Remove(f.txPath(tx, room)); err != nil {
		return err
	}
	return f.writeRecord(path, format, v)
}

// readRecord reads a record. Its error wraps os.ErrNotExist where there is
// none, errDamaged where it is not what was written, and ota.ErrJournal where
// a program that knows more wrote it.
func readRecord(path, format string, v any) error {
	data, err := readFile(path, maxRecord)
	if err != nil {
		return err
	}
	head, body, _ := bytes.Cut(data, []byte("\n"))
	word, sum, _ := strings.Cut(string(head), " ")
	if release.Sum(body).String() != sum {
		return fmt.Errorf("cannot read %s: %w", path, errDamaged)
	}
	if word != format {
		return fmt.Errorf("cannot read %s: format %.40q: %w", path, word, ota.ErrJournal)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("cannot read %s: %w", path, err)
	}
	return nil
}

func readFile(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("cannot read %s: longer than %d bytes", path, limit)
	}
	return data, errors.Join(err, file.Close())
}

// readPlan returns the plan of tx, or nil where Activate has made none.
func (f *treeFiles) readPlan(tx ota.TxID) (*plan, error) {
	p := &plan{}
	err := readRecord(f.txPath(tx, "plan"), formatPlan, p)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// readStaged returns what Stage finished for tx, or nil.
func (f *base) readStaged(tx ota.TxID) (*staged, error) {
	s := &staged{}
	err := readRecord(f.txPath(tx, "staged"), formatStaged, s)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errDamaged) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}
