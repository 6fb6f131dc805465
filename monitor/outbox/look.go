package outbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"github.com/pawl-ota/pawl/internal/journal"
	"github.com/pawl-ota/pawl/ota/durable"
)

// Look returns what the outbox in a folder holds, without taking it and without
// changing anything: also while a program writes to it and sends. Of that program
// it knows what is on the disk alone, and nothing of its tries to send. A folder
// that is not there holds nothing.
func Look(folder string) (Stats, error) {
	if _, err := os.Lstat(folder); errors.Is(err, fs.ErrNotExist) {
		return Stats{}, nil
	}
	dir, err := durable.OpenDir(folder)
	if err != nil {
		return Stats{}, fmt.Errorf("outbox: %w", err)
	}
	b := &Outbox{dir: dir}
	if err := errors.Join(b.look(), dir.Close()); err != nil {
		return Stats{}, fmt.Errorf("outbox: %w", err)
	}
	return b.Stats(), nil
}

// look reads the cursor and all segments.
func (b *Outbox) look() error {
	_, found, err := journal.Open(b.dir)
	if errors.Is(err, journal.ErrFormat) {
		err = fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if err != nil {
		return err
	}
	b.stats.Notes = found.Notes
	if err := b.cur.load(found); err != nil {
		return err
	}
	for c := range classes {
		if err := b.lookAt(c); err != nil {
			return err
		}
	}
	return nil
}

// lookAt reads the segments of a class. One that goes meanwhile was sent.
func (b *Outbox) lookAt(c class) error {
	names, err := b.dir.List(c.folder())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, n := range names {
		number, err := strconv.ParseUint(n, 16, 64)
		if err != nil || name(c, number) != c.folder()+"/"+n {
			continue // not ours
		}
		got, err := b.readSegment(name(c, number))
		switch {
		case err == nil && got.class == c:
			b.take(got, number)
		case errors.Is(err, ErrFormat):
			return fmt.Errorf("%s: %w", n, err)
		case !errors.Is(err, fs.ErrNotExist):
			b.stats.Notes = append(b.stats.Notes, fmt.Sprintf("%s cannot be read", name(c, number)))
		}
	}
	return nil
}
