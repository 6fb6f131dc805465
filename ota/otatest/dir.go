package otatest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/ota/durable"
)

// file is one file of the state folder. data is never changed in place.
type file struct {
	data    []byte
	old     *file // what a power cut may bring back, while the file is not durable
	pending bool  // placed, and not synced yet
	log     bool  // appended to; old is what Persist saw last
	when    int
}

// lose has a power cut do to files that were not durable one of the things
// that it may do: nothing, all kinds of garbage, or as if they had never been
// there.
func (s *state) lose(seed int) {
	s.haunt(seed)
	for i, name := range slices.Sorted(maps.Keys(s.files)) {
		f := s.files[name]
		if f.log {
			s.loseLog(name, f, seed+i)
			continue
		}
		if !f.pending {
			continue
		}
		f.pending = false
		switch (seed + i) % 5 {
		case 0:
			f.data = f.data[:len(f.data)/2]
		case 1:
			f.data = make([]byte, len(f.data))
		case 2:
			f.data = nil
		case 3:
			delete(s.files, name)
			if f.old != nil {
				s.files[name] = *f.old
			}
			continue
		}
		s.files[name] = f
	}
}

// Written returns the names in the state folder that start with prefix, the
// one that was written last first.
func (d *Device) Written(prefix string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for name := range d.state.files {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(d.state.files[b].when, d.state.files[a].when) })
	return names
}

// Corrupt changes a file of the state folder behind everybody's back: damage
// gets a copy of what is there, and nil when nothing is. The file is removed
// when damage returns nil.
func (d *Device) Corrupt(name string, damage func([]byte) []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.state.files[name]
	f.data = damage(bytes.Clone(f.data))
	d.state.files[name] = f
	if f.data == nil {
		delete(d.state.files, name)
	}
}

// stateDir is the state folder as one process sees it. It implements the Dir
// of internal/seam.
type stateDir struct{ *process }

func (d stateDir) find(name string) (data []byte, err error) {
	found := false
	err = d.look(func(s *state) {
		var f file
		f, found = s.files[name]
		data = f.data
	})
	if err == nil && !found {
		err = &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return data, err
}

func (d stateDir) ReadFile(name string, max int64) ([]byte, error) {
	data, err := d.find(name)
	if err == nil && int64(len(data)) > max {
		return nil, fmt.Errorf("otatest: %s has %d bytes, more than %d", name, len(data), max)
	}
	return bytes.Clone(data), err
}

func (d stateDir) Open(name string) (io.ReadCloser, error) {
	data, err := d.find(name)
	if err != nil {
		return nil, err
	}
	return opened{bytes.NewReader(data)}, nil
}

// opened is a file as it was when it was opened.
type opened struct{ *bytes.Reader }

func (opened) Close() error { return nil }

func (d stateDir) Size(name string) (int64, error) {
	data, err := d.find(name)
	return int64(len(data)), err
}

func (d stateDir) WriteFile(name string, data []byte) error {
	data = bytes.Clone(data)
	return d.step("write "+name, func(s *state) {
		s.written++
		s.files[name] = file{data: data, when: s.written}
	})
}

func (d stateDir) Remove(name string) error {
	if _, err := d.find(name); err != nil {
		return d.look(func(*state) {})
	}
	return d.step("remove "+name, func(s *state) { delete(s.files, name) })
}

func (d stateDir) RemoveEach(folder string, names []string) error {
	for _, name := range names {
		if err := d.Remove(folder + "/" + name); err != nil {
			return err
		}
	}
	return nil
}

func (d stateDir) List(folder string) (names []string, err error) {
	prefix := strings.TrimPrefix(folder+"/", "./")
	if prefix == "/" {
		prefix = ""
	}
	err = d.look(func(s *state) {
		for name := range s.files {
			if rest, ok := strings.CutPrefix(name, prefix); ok {
				top, _, _ := strings.Cut(rest, "/")
				names = append(names, top)
			}
		}
	})
	slices.Sort(names)
	return slices.Compact(names), err
}

func (d stateDir) Lock(context.Context, time.Duration) (func() error, error) {
	var err error
	if dead := d.look(func(s *state) {
		if s.locked {
			err = durable.ErrLocked
		}
		s.locked = true
	}); dead != nil {
		return nil, dead
	}
	if err != nil {
		return nil, err
	}
	return func() error { return d.look(func(s *state) { s.locked = false }) }, nil
}

// SyncNames has nothing to do: what a process that is gone named is durable here.
func (d stateDir) SyncNames(string) error { return d.look(func(*state) {}) }

func (d stateDir) Sync() error {
	pending := false
	if err := d.look(func(s *state) {
		for _, f := range s.files {
			pending = pending || f.pending
		}
	}); err != nil || !pending {
		return err
	}
	return d.step("sync", func(s *state) {
		for name, f := range s.files {
			if !f.log {
				f.pending, f.old = false, nil
				s.files[name] = f
			}
		}
	})
}

func (d stateDir) Close() error { return nil }

func (d stateDir) Create(name string) (seam.File, error) {
	if err := d.look(func(*state) {}); err != nil {
		return nil, err
	}
	return &newFile{dir: d, name: name}, nil
}

// newFile is a file without a name.
type newFile struct {
	dir  stateDir
	name string
	data bytes.Buffer
	done bool
}

func (f *newFile) Write(b []byte) (int, error) {
	if err := f.dir.look(func(*state) {}); err != nil {
		return 0, err
	}
	return f.data.Write(b)
}

func (f *newFile) Commit() error {
	if f.done {
		return fs.ErrClosed
	}
	f.done = true
	return f.dir.WriteFile(f.name, f.data.Bytes())
}

func (f *newFile) Place() error {
	if f.done {
		return fs.ErrClosed
	}
	f.done = true
	data := bytes.Clone(f.data.Bytes())
	return f.dir.step("place "+f.name, func(s *state) {
		s.written++
		next := file{data: data, pending: true, when: s.written}
		if old, ok := s.files[f.name]; ok {
			next.old = &old
		}
		s.files[f.name] = next
	})
}

func (f *newFile) Abort() error {
	f.done = true
	return nil
}
