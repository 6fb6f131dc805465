package ota

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/pawl-ota/pawl/internal/seam"
)

const (
	spoolFolder = "spool"
	// spoolSync is how many bytes a power cut may take.
	spoolSync = 4 << 20
)

// spool keeps the stored bytes of a transaction as they come from the source,
// before anybody looks at them, so that none is fetched again: after a restart
// all are there, after a power cut all but the last 4 MiB. They are unverified;
// whoever finds them wrong has the spool forget them.
//
// A file of it holds one range of one file of the repository; spool_file.go
// describes its format.
type spool struct {
	dir   seam.Dir
	known map[string]*spoolShelf // by file of the repository
	// full is set when a write failed: what comes then is not kept.
	full bool
}

// spoolShelf is what the spool has of one file of the repository.
type spoolShelf struct {
	ranges []*spooled
	names  map[string]bool // of files that hold something
}

// spooled is a range of a file of the repository that lies in a file of the
// spool.
type spooled struct {
	*spoolFile
	from, to int64
}

func newSpool(dir seam.Dir) *spool { return &spool{dir: dir, known: map[string]*spoolShelf{}} }

// clear drops everything.
func (s *spool) clear() error {
	clear(s.known)
	s.full = false
	return s.dir.Clear(spoolFolder)
}

// of returns what there is of a file of the repository, which the spool looks
// through when it is asked for the first time.
func (s *spool) of(file string) *spoolShelf {
	if sh := s.known[file]; sh != nil {
		return sh
	}
	sh := &spoolShelf{names: map[string]bool{}}
	s.known[file] = sh
	names, err := s.dir.List(spoolFolder)
	if err != nil {
		return sh
	}
	for _, name := range names {
		offset, number, ok := parseSpoolName(file, name)
		if !ok {
			continue
		}
		f := &spoolFile{name: spoolFolder + "/" + name, offset: offset, number: number}
		if f.scan(s.dir) == nil && f.end > f.offset {
			sh.names[name] = true
			sh.ranges = append(sh.ranges, &spooled{f, f.offset, f.end})
		}
	}
	return sh
}

// A spool file is named after the file of the repository, with the offset and a
// number that tells two of one offset apart; both are hexadecimal.
func spoolName(file string, offset int64, number uint64) string {
	return path.Base(file) + "." + strconv.FormatInt(offset, 16) + "." + strconv.FormatUint(number, 16)
}

func parseSpoolName(file, name string) (offset int64, number uint64, ok bool) {
	rest, ok := strings.CutPrefix(name, path.Base(file)+".")
	if !ok {
		return 0, 0, false
	}
	first, second, _ := strings.Cut(rest, ".")
	offset, err := strconv.ParseInt(first, 16, 64)
	number, err2 := strconv.ParseUint(second, 16, 64)
	return offset, number, err == nil && err2 == nil && offset >= 0
}

// at returns the range that holds the byte at offset, or nil. Of several it is
// the one that begins last, and of those the youngest: it was fetched because
// what the others hold there was wrong.
func (s *spool) at(file string, offset int64) *spooled {
	var best *spooled
	for _, r := range s.of(file).ranges {
		if r.from <= offset && offset < r.to && (best == nil || r.goesBefore(best)) {
			best = r
		}
	}
	return best
}

func (r *spooled) goesBefore(o *spooled) bool {
	return cmp.Or(cmp.Compare(r.offset, o.offset), cmp.Compare(r.number, o.number)) > 0
}

// next returns where, behind offset, the spool has something again.
func (s *spool) next(file string, offset int64) int64 {
	next := int64(math.MaxInt64)
	for _, r := range s.of(file).ranges {
		if r.from > offset && r.to > r.from {
			next = min(next, r.from)
		}
	}
	return next
}

// missing returns how many of the length bytes at offset are not there.
func (s *spool) missing(file string, offset, length int64) (n int64) {
	for end := offset + length; offset < end; {
		if r := s.at(file, offset); r != nil {
			offset = r.to
			continue
		}
		next := min(s.next(file, offset), end)
		n += next - offset
		offset = next
	}
	return n
}

// forget drops length bytes at offset: they were wrong.
func (s *spool) forget(file string, offset, length int64) {
	sh, end := s.of(file), offset+length
	var kept []*spooled
	for _, r := range sh.ranges {
		if r.to <= offset || r.from >= end {
			kept = append(kept, r)
			continue
		}
		if r.from < offset {
			kept = append(kept, &spooled{r.spoolFile, r.from, offset})
		}
		if r.to > end {
			kept = append(kept, &spooled{r.spoolFile, end, r.to})
		}
	}
	sh.ranges = kept
}

// appendAt returns a writer of the bytes from offset on: behind the range that
// ends there, or into a file of its own. It is nil where nothing can be kept.
func (s *spool) appendAt(file string, offset int64) *spoolWriter {
	if s.full {
		return nil
	}
	sh := s.of(file)
	i := slices.IndexFunc(sh.ranges, func(r *spooled) bool { return r.to == offset && r.end == offset })
	if i < 0 {
		f := &spoolFile{offset: offset, end: offset}
		for sh.names[spoolName(file, offset, f.number)] {
			f.number++
		}
		name := spoolName(file, offset, f.number)
		f.name, sh.names[name] = spoolFolder+"/"+name, true
		i, sh.ranges = len(sh.ranges), append(sh.ranges, &spooled{f, offset, offset})
	}
	w := &spoolWriter{r: sh.ranges[i], synced: sh.ranges[i].to}
	var err error
	if w.log, err = s.dir.Append(w.r.name, w.r.size); err != nil {
		s.full = true
		return nil
	}
	return w
}

// write keeps p behind what w wrote. A full disk ends the keeping and nothing
// else; a failed sync is an error.
func (s *spool) write(w *spoolWriter, p []byte) error {
	err := w.write(p)
	if err == nil {
		return nil
	}
	s.full = true
	if !errors.Is(err, errSpoolSync) {
		return nil
	}
	// What of it is on the disk nobody knows now.
	for _, sh := range s.known {
		sh.ranges = slices.DeleteFunc(sh.ranges, func(r *spooled) bool { return r.spoolFile == w.r.spoolFile })
	}
	return fmt.Errorf("cannot keep what was fetched: %w", errors.Join(err, s.dir.Remove(w.r.name)))
}
