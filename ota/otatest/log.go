package otatest

import (
	"bytes"
	"strings"

	"github.com/pawl-ota/pawl/internal/seam"
)

// loseLog has a power cut do to a file that was appended to one of the things
// that it may do to what was not persisted: take it, with the name where that was
// not durable, cut it short, or put other bytes in its place.
func (s *state) loseLog(name string, f file, seed int) {
	var kept []byte
	if f.old != nil {
		kept = f.old.data
	}
	whole := len(kept)
	if !bytes.HasPrefix(f.data, kept) { // it was cut before it was added to
		whole = 0
	}
	data := bytes.Clone(f.data)
	switch tail := data[whole:]; seed % 5 {
	case 0:
		data = data[:whole+len(tail)/2]
	case 1:
		clear(tail)
	case 2:
		for i := len(tail) / 2; i < len(tail); i++ {
			tail[i] ^= 0x55
		}
	case 3:
		if f.old == nil {
			delete(s.files, name)
			return
		}
		data = kept
	}
	s.files[name] = file{data: data, when: f.when}
}

func (d stateDir) Append(name string, size int64) (seam.Log, error) {
	err := d.look(func(s *state) {
		f := s.files[name]
		if !f.log {
			next := file{log: true, when: f.when}
			if _, there := s.files[name]; there {
				next.old = &file{data: f.data}
			}
			f.log, f.old = next.log, next.old
		}
		data := make([]byte, size)
		copy(data, f.data)
		f.data = data
		s.files[name] = f
	})
	return &logFile{d, name}, err
}

func (d stateDir) Clear(folder string) error {
	return d.look(func(s *state) {
		for name, f := range s.files {
			if !strings.HasPrefix(name, folder+"/") {
				continue
			}
			if !f.log {
				s.ghosts[name] = f
			} else if f.old != nil {
				s.ghosts[name] = *f.old
			}
			delete(s.files, name)
		}
	})
}

// haunt has a power cut bring back what was cleared, or not.
func (s *state) haunt(seed int) {
	for name, f := range s.ghosts {
		if _, there := s.files[name]; !there && seed%2 == 0 {
			s.files[name] = file{data: f.data, when: f.when}
		}
	}
	clear(s.ghosts)
}

// logFile is a file that is appended to.
type logFile struct {
	dir  stateDir
	name string
}

func (l *logFile) Write(b []byte) (int, error) {
	err := l.dir.look(func(s *state) {
		if f, there := s.files[l.name]; there {
			s.written++
			f.data, f.when = append(f.data, b...), s.written
			s.files[l.name] = f
		}
	})
	return len(b), err
}

func (l *logFile) Persist() error {
	return l.dir.step("persist "+l.name, func(s *state) {
		if f, there := s.files[l.name]; there {
			f.old = &file{data: f.data}
			s.files[l.name] = f
		}
	})
}

func (l *logFile) Close() error { return nil }
