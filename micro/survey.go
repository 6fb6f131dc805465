//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota/release"
)

// UnmanagedError lists what lies in the root and belongs to no release. It is
// an [ErrUnmanaged].
type UnmanagedError struct {
	Root  string
	Paths []string // the first ones, sorted, relative to Root
	More  int      // how many there are besides
}

// maxUnmanaged bounds how many paths an UnmanagedError lists.
const maxUnmanaged = 100

func (e *UnmanagedError) Error() string {
	text := fmt.Sprintf("%v: in %s: %s", ErrUnmanaged, e.Root, strings.Join(e.Paths, ", "))
	if e.More > 0 {
		text += fmt.Sprintf(", and %d more", e.More)
	}
	return text + "; remove them, or list them in the release as carried"
}

// Unwrap returns ErrUnmanaged.
func (e *UnmanagedError) Unwrap() error { return ErrUnmanaged }

// survey goes through the root and says, of each path, whose it is.
//
//	the new release carries it   the old one manages it   it is copied while staging
//	                             else                     it is moved with the switch
//	one of them lists it                                  it stays in its tree
//	the old release carries it                            it stays in the old tree
//	nobody lists it                                       it is unmanaged
type survey struct {
	ctx       context.Context
	live      *at.Tree
	old, next *release.Index // old is nil where it is not known
	dev       uint64
	// leave, if set, says of a file that both list, whose place in next is i,
	// whether it is looked at later.
	leave func(o *release.Entry, i int) bool

	moves     []move
	copies    []string // by the old release's names, parents first
	unmanaged UnmanagedError
}

// newSurvey prepares a survey of the tree live, which is the root or nil for none.
func newSurvey(ctx context.Context, live *at.Tree, old, next *release.Index) *survey {
	return &survey{ctx: ctx, live: live, old: old, next: next}
}

// run takes the survey. What is unmanaged is an error.
func (s *survey) run() error {
	err := s.take()
	if err == nil && len(s.unmanaged.Paths) > 0 {
		err = &s.unmanaged
	}
	return err
}

// take takes the survey, whatever it finds.
func (s *survey) take() error {
	if s.live != nil {
		info, err := s.live.Stat(".")
		if err != nil {
			return err
		}
		s.dev, s.unmanaged.Root = info.Dev, s.live.Name(".")
		if err := s.folder(".", false, false); err != nil {
			return err
		}
	}
	s.addMissing()
	return nil
}

func find(ix *release.Index, path string) *release.Entry {
	if ix == nil {
		return nil
	}
	return ix.Find(path)
}

// folder goes through one folder; newCarry and oldCarry say that it lies
// within a path that the release carries.
func (s *survey) folder(dir string, newCarry, oldCarry bool) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	all, err := s.live.Entries(dir)
	if isGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range all {
		if err := s.entry(within(dir, e.Name()), e.Type(), newCarry, oldCarry); err != nil {
			return err
		}
	}
	return nil
}

// within is the path of a name in a folder.
func within(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// rooted returns why a tree with such a path cannot be moved or dropped.
func rooted(tree *at.Tree, p string, info at.Info) error {
	switch {
	case info.MountRoot:
		return fmt.Errorf("%w: %s is a mount point", ErrLayout, tree.Name(p))
	case info.Locked:
		return fmt.Errorf("%w: %s is immutable or append-only, so that its tree could not be dropped", ErrReadOnly, tree.Name(p))
	}
	return nil
}

func (s *survey) entry(p string, typ fs.FileMode, newCarry, oldCarry bool) error {
	o, n := find(s.old, p), (*release.Entry)(nil)
	if i, ok := s.next.Search(p); ok {
		n = &s.next.Entries[i]
		if s.leave != nil && o != nil && typ.IsRegular() && o.Type == release.File && n.Type == release.File && s.leave(o, i) {
			return nil
		}
	}
	info, err := s.live.Stat(p)
	if isGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	info.MountRoot = info.MountRoot || !info.MountSaid && info.IsDir() && info.Dev != s.dev
	if err := rooted(s.live, p, info); err != nil {
		return err
	}
	newCarry = newCarry || n != nil && n.Type == release.Carry
	oldCarry = oldCarry || o != nil && o.Type == release.Carry
	managed := o != nil && o.Type != release.Carry
	switch {
	case newCarry && managed:
		s.copies = append(s.copies, p)
	case newCarry:
		s.moves = append(s.moves, move{Path: p, ID: &info.ID, Back: true})
		return nil
	case managed || n != nil || oldCarry:
	case strings.HasPrefix(path.Base(p), tempPrefix):
	default:
		s.unlisted(p)
		return nil
	}
	if !info.IsDir() || !managed && n == nil {
		return nil
	}
	return s.folder(p, newCarry, oldCarry)
}

func (s *survey) unlisted(p string) { s.unmanaged.add(p) }

func (e *UnmanagedError) add(p string) {
	if len(e.Paths) < maxUnmanaged {
		e.Paths = append(e.Paths, p)
		return
	}
	e.More++
}

// addMissing adds the carried paths that are not there: the app may make them
// until the exchange, or in the trial.
func (s *survey) addMissing() {
	planned := map[string]bool{}
	for _, m := range s.moves {
		planned[m.Path] = true
	}
	for i := range s.next.Entries {
		e := &s.next.Entries[i]
		if e.Type != release.Carry || planned[e.Path] {
			continue
		}
		o := find(s.old, e.Path)
		if o == nil || o.Type == release.Carry {
			s.moves = append(s.moves, move{Path: e.Path, Back: o != nil || s.oldCarries(e.Path)})
		}
	}
}

// oldCarries reports whether the old release carries p or a folder above it.
func (s *survey) oldCarries(p string) bool {
	for ; p != "."; p = path.Dir(p) {
		if o := find(s.old, p); o != nil {
			return o.Type == release.Carry
		}
	}
	return false
}

// movable checks that the moves of the survey will be possible: both ways, for
// this user.
func (s *survey) movable(euid int) error {
	for i := range s.next.Entries {
		e := &s.next.Entries[i]
		holder := e.Path
		if e.Type == release.Carry {
			holder = path.Dir(e.Path)
		} else if e.Path != "." {
			continue
		}
		if d := s.next.Find(holder); euid != 0 && d.Mode&0o200 == 0 {
			return fmt.Errorf("%w: the release gives %q mode %o, and only root can move what is in it", ErrReadOnly, holder, d.Mode)
		}
	}
	for _, m := range s.moves {
		if m.ID == nil {
			continue
		}
		if err := s.movableOne(m.Path); err != nil {
			return err
		}
	}
	return nil
}

func (s *survey) movableOne(p string) error {
	for _, q := range []string{p, path.Dir(p)} {
		info, err := s.live.Stat(q)
		if isGone(err) {
			return nil
		}
		if err == nil && info.Locked {
			err = errors.New("it is immutable or append-only")
		}
		if err == nil && info.IsDir() {
			err = s.live.Writable(q)
		}
		if err != nil {
			return fmt.Errorf("%w: %s cannot be moved: %w", ErrReadOnly, s.live.Name(p), err)
		}
	}
	return nil
}
