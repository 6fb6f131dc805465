package firmware

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/pawl-ota/pawl/internal/seam"
)

// The backend of files knows what it installed by inode numbers and times that
// no program can set, so that a copy of a device would not know it. The file
// "inodes" of a device that is a copy says what each inode is a copy of; while
// a verb runs on the device, the backend sees the inodes that were copied.

// inodesName is the file.
const inodesName = "inodes"

// Inodes says for each inode number of a copy what it is a copy of.
type Inodes map[uint64]Was

// Was is one inode that was copied.
type Was struct {
	seam.Ident
	// Copied is when the copy was changed last: while that is so, Ctime is
	// that of the inode that was copied.
	Copied int64
}

// WriteInodes makes the device in dir a copy.
func WriteInodes(dir string, was Inodes) error {
	var buf bytes.Buffer
	for has, w := range was {
		fmt.Fprintln(&buf, has, w.Copied, w.Ino, w.Birth, w.Ctime)
	}
	return os.WriteFile(filepath.Join(dir, inodesName), buf.Bytes(), 0o600)
}

// ReadInodes returns what WriteInodes wrote, and nil for a device that is no
// copy.
func ReadInodes(dir string) (Inodes, error) {
	data, err := os.ReadFile(filepath.Join(dir, inodesName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	was := Inodes{}
	for line := range bytes.Lines(data) {
		var has uint64
		var w Was
		if _, err := fmt.Sscan(string(line), &has, &w.Copied, &w.Ino, &w.Birth, &w.Ctime); err != nil {
			return nil, fmt.Errorf("cannot read %s of %s: %w", inodesName, dir, err)
		}
		was[has] = w
	}
	return was, err
}

// See returns what the backend takes the inode for.
func (i Inodes) See(is seam.Ident) seam.Ident {
	w, ok := i[is.Ino]
	if !ok {
		return is
	}
	if is.Ctime == w.Copied {
		is.Ctime = w.Ctime
	}
	is.Ino, is.Birth = w.Ino, w.Birth
	return is
}

// copies are the inodes of all copies on which a verb runs in this process.
type copies struct {
	mu  sync.RWMutex
	was Inodes
}

var running = &copies{was: Inodes{}}

func (c *copies) see(id *seam.Ident) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	*id = c.was.See(*id)
}

// useInodes has the device in dir find its inodes until done is called.
func useInodes(dir string) (done func(), err error) {
	was, err := ReadInodes(dir)
	if err != nil || len(was) == 0 {
		return func() {}, err
	}
	see := running.see
	seam.Inode.CompareAndSwap(nil, &see)
	running.mu.Lock()
	defer running.mu.Unlock()
	for has, w := range was {
		running.was[has] = w
	}
	return func() {
		running.mu.Lock()
		defer running.mu.Unlock()
		for has := range was {
			delete(running.was, has)
		}
	}, nil
}
