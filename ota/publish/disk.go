package publish

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/pawl-ota/pawl/ota/durable"
)

// ErrBusy is returned when another publisher works on the repository.
var ErrBusy = errors.New("another publisher works on the repository")

// tempPrefix starts the names of files that have no name of their own yet. It
// is that of package durable, so that one sweep finds all.
const tempPrefix = ".pawl-tmp-"

// disk is the folder of a repository. All that is written to it goes through
// here, and each write is whole and durable before the next begins.
type disk struct {
	dir string
	// step, where it is set, is called before and after each write: a test
	// cuts the power there.
	step func(what string) error
}

func (d *disk) path(name string) string { return filepath.Join(d.dir, filepath.FromSlash(name)) }

// around runs one write.
func (d *disk) around(what string, write func() error) error {
	if d.step == nil {
		return write()
	}
	if err := d.step("before " + what); err != nil {
		return err
	}
	if err := write(); err != nil {
		return err
	}
	return d.step("after " + what)
}

// writeFile gives data the name.
func (d *disk) writeFile(name string, data []byte) error {
	err := d.around(name, func() error {
		if err := durable.MkdirAll(filepath.Dir(d.path(name)), 0o755); err != nil {
			return err
		}
		return durable.WriteFile(d.path(name), data, 0o644)
	})
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	return nil
}

// createTemp begins a file that place gives a name.
func (d *disk) createTemp() (*os.File, error) {
	var f *os.File
	err := d.around("temporary file", func() error {
		if err := durable.MkdirAll(d.path("content"), 0o755); err != nil {
			return err
		}
		var err error
		f, err = os.CreateTemp(d.path("content"), tempPrefix)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot write content: %w", err)
	}
	return f, nil
}

// scratch makes a file without a name in the repository, where there has to be
// room.
func (d *disk) scratch() (*os.File, error) {
	if err := durable.MkdirAll(d.path("content"), 0o755); err != nil {
		return nil, err
	}
	return scratch(d.path("content"))
}

// scratch makes a file without a name, which is gone when it is closed.
func scratch(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, tempPrefix)
	if err != nil {
		return nil, fmt.Errorf("cannot write content: %w", err)
	}
	return f, os.Remove(f.Name())
}

// drop lets go of f. What place gave no name is swept up.
func (d *disk) drop(f *os.File) {
	f.Close()
	_ = d.around("no file", func() error { return os.Remove(f.Name()) })
}

// place makes f durable and gives it the name.
func (d *disk) place(f *os.File, name string) error {
	err := d.around(name, func() error {
		if err := durable.MkdirAll(filepath.Dir(d.path(name)), 0o755); err != nil {
			return err
		}
		if err := f.Chmod(0o644); err != nil {
			return err
		}
		if err := durable.SyncFile(f.Name()); err != nil {
			return err
		}
		return durable.Rename(f.Name(), d.path(name))
	})
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	return nil
}

// remove removes a file that nothing refers to.
func (d *disk) remove(name string) error {
	if err := d.around("no "+name, func() error { return durable.Remove(d.path(name)) }); err != nil {
		return fmt.Errorf("cannot remove %s: %w", name, err)
	}
	return nil
}

// readFile reads a whole file of at most limit bytes.
func (d *disk) readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is longer than %d bytes", name, limit)
	}
	return data, err
}

// lock keeps other publishers away, and sweeps up what one left that was
// killed.
func (d *disk) lock() (unlock func(), err error) {
	if err := durable.MkdirAll(d.dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(d.path(".lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot lock repository: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrBusy
		}
		return nil, fmt.Errorf("cannot lock repository: %w", err)
	}
	if err := d.sweep(); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot sweep repository: %w", err)
	}
	return func() { f.Close() }, nil
}

// sweep removes files that never got their name.
func (d *disk) sweep() error {
	return filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasPrefix(e.Name(), tempPrefix) {
			return err
		}
		return os.Remove(path)
	})
}
