package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/pawl-ota/pawl/internal/seam"
)

// Append opens name, with mode 0600 when it makes it, for writing behind its
// first size bytes, and drops what follows them. The file has its name at
// once: what is written outlives the process, and a power cut only once
// Persist returned. It is for content that says itself how much of it is
// whole.
func (d *Dir) Append(name string, size int64) (seam.Log, error) {
	folder, base, err := d.folder(name, true)
	if err != nil {
		return nil, err
	}
	f, err := openLog(folder, base, size)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot write %s: %w", name, err), folder.Close())
	}
	return &log{File: f, folder: folder, path: name}, nil
}

func openLog(folder *os.Root, base string, size int64) (*os.File, error) {
	if info, err := folder.Lstat(base); err == nil {
		if err := onlyRegular(base, info); err != nil {
			return nil, err
		}
	}
	f, err := folder.OpenFile(base, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err = f.Truncate(size); err == nil {
		_, err = f.Seek(size, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// log is a file that has its name while it is written.
type log struct {
	*os.File
	folder *os.Root
	path   string
	named  bool // the name is durable
}

// Persist makes the bytes durable, and the name the first time.
func (l *log) Persist() error {
	if err := syncFile(l.File, l.path); err != nil || l.named {
		return err
	}
	err := syncRoot(l.folder)
	l.named = err == nil
	return err
}

// Close does not make anything durable.
func (l *log) Close() error { return errors.Join(l.File.Close(), l.folder.Close()) }

// Clear removes the files of a folder and syncs nothing: what a power cut
// brings back is garbage that the next Clear removes.
func (d *Dir) Clear(folder string) error {
	if err := checkName(folder); err != nil || strings.Contains(folder, "/") {
		return fmt.Errorf("%w: %.80q", ErrName, folder)
	}
	root, err := d.root.OpenRoot(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot clear %s: %w", folder, err)
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	for _, e := range entries {
		if gone := root.Remove(e.Name()); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	if err = errors.Join(err, root.Close()); err != nil {
		return fmt.Errorf("cannot clear %s: %w", folder, err)
	}
	return nil
}
