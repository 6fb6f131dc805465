package publish

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"
	"unicode/utf8"

	"github.com/pawl-ota/pawl/ota/release"
)

// ErrSpecial is returned for a file that cannot be released: a device, a pipe,
// a socket, or one whose name is not UTF-8.
var ErrSpecial = errors.New("cannot be released")

// ErrChanged is returned when a tree changed while it was read.
var ErrChanged = errors.New("changed while it was being read")

// ScanOptions change what Scan takes over. The zero value takes all as it is.
type ScanOptions struct {
	// Owner, where it is set, stands in for the owner of everything: a tree
	// that was built by an ordinary user can be root's on the device.
	Owner *Owner
	// Carry lists paths of the tree that belong to the app on the device and
	// are carried over from release to release. The tree itself may not hold
	// them; the folders that they are in it has to hold.
	Carry []string
	// Absent lists paths that have to be free on the device. The tree itself
	// may not hold them. Only the in-place layout can do that.
	Absent []string
	// Partial leaves out the root and the folders that hold something, so
	// that their mode and owner stay as they are on the device. Only the
	// in-place layout can do that.
	Partial bool
	// SELinux takes over the label security.selinux too.
	SELinux bool
	// Progress is told how many bytes of content were read.
	Progress func(path string, done int64)
}

// Owner is a user and a group by number.
type Owner struct{ UID, GID uint32 }

// Scan lists the tree at dir as it is: mode, owner, symbolic links, and the
// extended attributes user.*, security.capability and POSIX ACLs. Hard links
// become files of the same content. It reads all content, holding none of it.
// An error names the path that it is about; a special file is refused with
// [ErrSpecial].
func Scan(ctx context.Context, dir string, o ScanOptions) (*release.Index, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot scan: %w", err)
	}
	defer root.Close()
	s := scanner{root: root, dir: dir, opts: o, buf: make([]byte, 256<<10), linked: map[inode]release.Blob{}}
	err = fs.WalkDir(root.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		if err := cmp.Or(ctx.Err(), err); err != nil {
			return err
		}
		return s.add(name)
	})
	if err != nil {
		return nil, fmt.Errorf("cannot scan %s: %w", dir, err)
	}
	if err := s.finish(); err != nil {
		return nil, fmt.Errorf("cannot scan %s: %w", dir, err)
	}
	return &s.index, nil
}

// finish adds what the tree does not hold, and checks the whole.
func (s *scanner) finish() error {
	s.addPaths(s.opts.Carry, release.Carry)
	if s.opts.Partial {
		s.leaveFolders()
	} else if err := s.index.Whole(); err != nil {
		return err
	}
	s.addPaths(s.opts.Absent, release.Absent)
	if err := s.checkTwice(); err != nil {
		return err
	}
	return s.index.Validate()
}

func (s *scanner) addPaths(paths []string, t release.EntryType) {
	for _, path := range paths {
		s.index.Entries = append(s.index.Entries, release.Entry{Path: path, Type: t})
	}
	slices.SortFunc(s.index.Entries, func(a, b release.Entry) int {
		return cmp.Or(boolCompare(b.Path == ".", a.Path == "."), cmp.Compare(a.Path, b.Path))
	})
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// leaveFolders drops the folders that other entries imply.
func (s *scanner) leaveFolders() {
	holds := map[string]bool{".": true}
	for _, e := range s.index.Entries {
		holds[path.Dir(e.Path)] = true
	}
	s.index.Entries = slices.DeleteFunc(s.index.Entries, func(e release.Entry) bool {
		return e.Type == release.Dir && holds[e.Path]
	})
}

// inode tells files apart that have several names.
type inode struct{ dev, ino uint64 }

type scanner struct {
	root   *os.Root
	dir    string
	opts   ScanOptions
	buf    []byte
	done   int64
	linked map[inode]release.Blob // of files with several names
	index  release.Index
}

// checkTwice refuses a path that is in the tree and listed besides.
func (s *scanner) checkTwice() error {
	list := s.index.Entries
	for i := 1; i < len(list); i++ {
		if list[i].Path == list[i-1].Path {
			return fmt.Errorf("%q is to be carried over or absent on the device, and is in the tree or listed twice", list[i].Path)
		}
	}
	return nil
}

func (s *scanner) add(path string) error {
	if !utf8.ValidString(path) {
		return fmt.Errorf("%w: the name %q is not UTF-8", ErrSpecial, path)
	}
	if len(s.index.Entries) >= release.MaxEntries {
		return fmt.Errorf("more than %d entries", release.MaxEntries)
	}
	info, err := s.root.Lstat(path)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%q: no owner is known on this system", path)
	}
	e := release.Entry{Path: path, Mode: uint32(st.Mode) & 0o7777, UID: st.Uid, GID: st.Gid}
	if s.opts.Owner != nil {
		e.UID, e.GID = s.opts.Owner.UID, s.opts.Owner.GID
	}
	switch {
	case info.IsDir():
		e.Type = release.Dir
	case info.Mode()&fs.ModeSymlink != 0:
		err = s.symlink(&e)
	case info.Mode().IsRegular():
		err = s.file(&e, info, st)
	default:
		return fmt.Errorf("%w: %q is a special file (%s)", ErrSpecial, path, info.Mode().Type())
	}
	if err == nil {
		e.Xattrs, err = readXattrs(filepath.Join(s.dir, filepath.FromSlash(path)), s.opts.SELinux)
	}
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	s.index.Entries = append(s.index.Entries, e)
	return nil
}

func (s *scanner) symlink(e *release.Entry) (err error) {
	e.Type, e.Mode = release.Symlink, 0o777
	if e.Target, err = s.root.Readlink(e.Path); err == nil && !utf8.ValidString(e.Target) {
		err = fmt.Errorf("%w: the target of the symbolic link, %q, is not UTF-8", ErrSpecial, e.Target)
	}
	return err
}

func (s *scanner) file(e *release.Entry, info fs.FileInfo, st *syscall.Stat_t) error {
	e.Type = release.File
	id := inode{uint64(st.Dev), uint64(st.Ino)}
	if b, ok := s.linked[id]; ok {
		e.Blob = b
		return nil
	}
	f, err := openRegular(s.root, e.Path, info)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	report := func(n int) {
		s.done += int64(n)
		if s.opts.Progress != nil {
			s.opts.Progress(e.Path, s.done)
		}
	}
	n, err := io.CopyBuffer(h, counted{f, report}, s.buf)
	if err != nil {
		return err
	}
	if n != info.Size() {
		return fmt.Errorf("%w: %d bytes were read of %d", ErrChanged, n, info.Size())
	}
	e.Blob = release.Blob{Digest: release.Digest(h.Sum(nil)), Size: n}
	if st.Nlink > 1 {
		s.linked[id] = e.Blob
	}
	return nil
}

// openRegular opens the file that info is of, and nothing that was put in its
// place.
func openRegular(root *os.Root, path string, info fs.FileInfo) (*os.File, error) {
	f, err := root.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	now, err := f.Stat()
	if err == nil && (!now.Mode().IsRegular() || info != nil && !os.SameFile(now, info)) {
		err = ErrChanged
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// counted tells how much was read.
type counted struct {
	r      io.Reader
	report func(n int)
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.report(n)
	return n, err
}
