package release

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of an index.
const (
	MaxEntries     = 1_000_000
	MaxPath        = 4096      // bytes
	MaxPathName    = 255       // bytes of one name in a path
	MaxTarget      = 4095      // bytes
	MaxXattrs      = 64        // per entry
	MaxXattrName   = 255       // bytes
	MaxXattrValue  = 64 << 10  // bytes
	MaxXattrsBytes = 256 << 10 // bytes of all values of one entry
)

// Validate checks ix against the rules of its format. Its error names the
// path and wraps [ErrInvalid].
func (ix *Index) Validate() error {
	if len(ix.Entries) == 0 || len(ix.Entries) > MaxEntries {
		return fmt.Errorf("index: %w: %d entries; 1 to %d are allowed", ErrInvalid, len(ix.Entries), MaxEntries)
	}
	for i := range ix.Entries {
		if err := ix.check(i); err != nil {
			return fmt.Errorf("index: %w", err)
		}
	}
	return nil
}

// check checks entry i, by itself and against those before it.
func (ix *Index) check(i int) error {
	e := &ix.Entries[i]
	if err := CheckPath(e.Path); err != nil {
		return err
	}
	if err := e.checkFields(); err != nil {
		return fmt.Errorf("%q: %w", e.Path, err)
	}
	if e.Path == "." {
		if i > 0 || e.Type != Dir {
			return fmt.Errorf("%w: the root is no folder, stands twice or out of order", ErrInvalid)
		}
		return nil
	}
	if i > 0 && ix.Entries[i-1].Path != "." && e.Path <= ix.Entries[i-1].Path {
		return fmt.Errorf("%w: %q stands twice or out of order", ErrInvalid, e.Path)
	}
	if i > 0 && parent(e.Path) == parent(ix.Entries[i-1].Path) {
		return nil // as for the one before
	}
	for p := parent(e.Path); ; p = parent(p) {
		if at, ok := ix.find(p, i); ok && ix.Entries[at].Type != Dir {
			return fmt.Errorf("%w: %q lies below %q, which is no folder", ErrInvalid, e.Path, p)
		}
		if p == "." {
			return nil
		}
	}
}

// Whole returns nil if ix lists a whole tree: the root, and the folder of every
// entry. A path that is to be absent has no place in one. Its error names the
// path and wraps [ErrInvalid].
func (ix *Index) Whole() error {
	if len(ix.Entries) == 0 || ix.Entries[0].Path != "." {
		return fmt.Errorf("index: %w: the first entry is not the root folder", ErrInvalid)
	}
	for i := 1; i < len(ix.Entries); i++ {
		e := &ix.Entries[i]
		if _, ok := ix.find(parent(e.Path), i); !ok {
			return fmt.Errorf("index: %w: %q is not in a folder that is listed", ErrInvalid, e.Path)
		}
		if e.Type == Absent {
			return fmt.Errorf("index: %w: %q is to be absent, and a whole tree holds only what it lists", ErrInvalid, e.Path)
		}
	}
	return nil
}

// Find returns the entry of path, or nil.
func (ix *Index) Find(path string) *Entry {
	if i, ok := ix.Search(path); ok {
		return &ix.Entries[i]
	}
	return nil
}

// Search returns where the entry of path is among Entries, and whether it is
// there.
func (ix *Index) Search(path string) (int, bool) { return ix.find(path, len(ix.Entries)) }

// find looks among the first n entries.
func (ix *Index) find(path string, n int) (int, bool) {
	if n == 0 {
		return 0, false
	}
	first := 0
	if ix.Entries[0].Path == "." {
		first = 1
	}
	if path == "." {
		return 0, first == 1
	}
	low, high := first, n // by hand: to pass on entries by value is dear
	for low < high {
		mid := int(uint(low+high) / 2)
		if ix.Entries[mid].Path < path {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low, low < n && ix.Entries[low].Path == path
}

func parent(path string) string {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i]
	}
	return "."
}

// CheckPath checks the path of an entry: "." or clean, relative, UTF-8, with no
// NUL, no name "." or "..", and not too long.
func CheckPath(path string) error {
	switch {
	case path == ".":
		return nil
	case len(path) > MaxPath:
		return fmt.Errorf("%w: path of %d bytes is longer than %d", ErrInvalid, len(path), MaxPath)
	case !utf8.ValidString(path) || strings.IndexByte(path, 0) >= 0:
		return fmt.Errorf("%w: path %q is not UTF-8 or holds a NUL", ErrInvalid, path)
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." || name == ".." {
			return fmt.Errorf("%w: path %q is not clean and relative", ErrInvalid, path)
		}
		if len(name) > MaxPathName {
			return fmt.Errorf("%w: path %q holds a name longer than %d bytes", ErrInvalid, path, MaxPathName)
		}
	}
	return nil
}

// checkFields checks that e has the fields of its type and no others.
func (e *Entry) checkFields() error {
	if e.Mode > 0o7777 {
		return fmt.Errorf("%w: mode %o", ErrInvalid, e.Mode)
	}
	if e.Type != File && e.Blob != (Blob{}) || e.Type != Symlink && e.Target != "" {
		return fmt.Errorf("%w: an entry of type %.10q with content or target", ErrInvalid, e.Type)
	}
	switch e.Type {
	case File:
		if err := e.Blob.validate(); err != nil {
			return err
		}
	case Symlink:
		if e.Target == "" || len(e.Target) > MaxTarget || strings.IndexByte(e.Target, 0) >= 0 || !utf8.ValidString(e.Target) {
			return fmt.Errorf("%w: symlink target %.80q", ErrInvalid, e.Target)
		}
	case Dir:
	case Carry, Absent:
		if e.Mode|e.UID|e.GID != 0 || e.Xattrs != nil || e.Path == "." {
			return fmt.Errorf("%w: a carried or absent path has no other fields and is not the root", ErrInvalid)
		}
	default:
		return fmt.Errorf("%w: type %.80q", ErrInvalid, e.Type)
	}
	return checkXattrs(e.Xattrs)
}

func checkXattrs(list []Xattr) error {
	if len(list) > MaxXattrs {
		return fmt.Errorf("%w: %d extended attributes are more than %d", ErrInvalid, len(list), MaxXattrs)
	}
	total, last := 0, ""
	for _, x := range list {
		if x.Name <= last || len(x.Name) > MaxXattrName || strings.IndexByte(x.Name, 0) >= 0 || !utf8.ValidString(x.Name) {
			return fmt.Errorf("%w: extended attribute %.80q is no name, stands twice or out of order", ErrInvalid, x.Name)
		}
		last = x.Name
		total += len(x.Value)
		if len(x.Value) > MaxXattrValue || total > MaxXattrsBytes {
			return fmt.Errorf("%w: extended attribute %q: %d bytes are too many", ErrInvalid, x.Name, len(x.Value))
		}
	}
	return nil
}
