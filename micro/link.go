//go:build linux

package micro

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"slices"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// newShared is the entry i, of which it is known that it is right as info says.
func (b *builder) newShared(i int, info at.Info) shared {
	return shared{New: b.next.Entries[i].Path, Ino: info.Ino, Size: info.Size, Mtime: info.Mtime, Ctime: info.Ctime}
}

// noteFound writes down a file that an interrupted try has made.
func (b *builder) noteFound(i int, info at.Info) error {
	s := b.newShared(i, info)
	s.Own = info.Links < 2
	for _, src := range b.sources {
		if s.Own || !src.live {
			continue
		}
		for q := range src.places(s.New, b.next.Entries[i].Blob) {
			if other, err := src.tree.Stat(q); err == nil && other.Ino == info.Ino {
				s.Old = q
			}
		}
	}
	return explain(b.log.add(i, s))
}

// noteOwn writes down a file that this Stage has written. Nobody else reaches it
// before it is switched to.
func (b *builder) noteOwn(i int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	info, err := b.tree.Stat(b.next.Entries[i].Path)
	if err != nil {
		return err
	}
	s := b.newShared(i, info)
	s.Own = true
	return explain(b.log.add(i, s))
}

// share makes the file i out of a file that is on the device, or notes that its
// content is needed.
func (b *builder) share(i int) error {
	e := &b.next.Entries[i]
	for _, src := range b.sources {
		for p, n := range src.places(e.Path, e.Blob) {
			done, err := b.shareOne(i, src, p, n)
			if err != nil || done {
				return err
			}
		}
	}
	b.need = append(b.need, int32(i))
	return nil
}

// shareAgain finds another way to the files that were shared and turned out to
// have other content than they should.
func (b *builder) shareAgain() error {
	for _, i := range b.check.wrong {
		p := b.next.Entries[i].Path
		err := b.remove(p)
		if err == nil {
			b.copies = true
			err = b.share(i)
			b.copies = false
		}
		if err != nil {
			return notStaged(p, err)
		}
	}
	slices.Sort(b.need)
	return nil
}

// shareOne shares the bytes alone where the file system can: the two files
// stay independent then. Otherwise it makes one file with two names where all
// metadata is the same, and a copy where it is not. p is the file n of src.
func (b *builder) shareOne(i int, src *source, p string, n int) (bool, error) {
	e := &b.next.Entries[i]
	info, err := src.tree.Stat(p)
	if err != nil {
		return false, nil
	}
	if src.live {
		if err := rooted(src.tree, p, info); err != nil {
			return false, err
		}
	}
	if !info.IsFile() || info.Size != e.Size {
		return false, nil
	}
	if !info.Locked && !b.copies && !b.canClone(src.tree, p) {
		done, err := b.link(i, src, p, n, info)
		if done || err != nil && !isLinkRefusal(err) {
			return done, err
		}
	}
	done, err := b.shareCopy(e, src, p)
	if done && err == nil {
		err = b.noteOwn(i)
	}
	return done, err
}

// link makes the entry i a second name of the file p of src, if its metadata is
// right. Its content is read where nobody vouches for it.
func (b *builder) link(i int, src *source, p string, n int, info at.Info) (bool, error) {
	e := &b.next.Entries[i]
	if src.vouches(n, info, e) && b.f.looksOther(info, e, nil) == "" {
		return b.linkFrom(i, src, p, nil, info)
	}
	in, info, err := src.tree.Read(p)
	if err != nil {
		return false, nil
	}
	if !b.sameMeta(in, info, e) {
		return false, in.Close()
	}
	done, err := b.linkFrom(i, src, p, in, info)
	if !done {
		err = errors.Join(err, in.Close())
	}
	return done, err
}

// sameMeta reports whether the metadata of an opened file is as e says.
func (w *worker) sameMeta(in *at.File, info at.Info, e *release.Entry) bool {
	if w.f.looksOther(info, e, nil) != "" {
		return false
	}
	got, err := in.Xattrs(e.Xattrs)
	return err == nil && at.SameXattrs(got, e.Xattrs)
}

// shareCopy makes a file of its own with the bytes of the file p of src.
func (b *builder) shareCopy(e *release.Entry, src *source, p string) (bool, error) {
	in, err := src.tree.OpenFile(p)
	if err != nil {
		return false, nil
	}
	done, err := b.copyFrom(e.Path, e, in)
	if err != nil && !errors.Is(err, ota.ErrNoSpace) && b.ctx.Err() == nil {
		done, err = false, nil
	}
	return done, errors.Join(err, in.Close())
}

// canClone tries once, on a file of its own.
func (b *builder) canClone(tree *at.Tree, p string) bool {
	if b.tried || !b.clone {
		return b.clone
	}
	in, err := tree.OpenFile(p)
	if err != nil {
		return b.clone
	}
	defer func() { _ = in.Close() }()
	b.tried = true
	file, err := os.CreateTemp(b.f.path(), tempPrefix)
	if err != nil {
		return b.clone
	}
	b.clone = at.Clone(file, in) == nil
	_ = file.Close()
	_ = os.Remove(file.Name())
	return b.clone
}

// isLinkRefusal reports that the file can be read but not linked: too many
// names, another user's file, another mount.
func isLinkRefusal(err error) bool {
	return errors.Is(err, os.ErrPermission) || isErrno(err, linkRefusals...)
}

// linkFrom makes the entry i a second name of the file p of src, which is as was
// says. If it is open as in, it is left to the checker, which then closes in. It
// is not done where p is another file by now.
func (b *builder) linkFrom(i int, src *source, p string, in *at.File, was at.Info) (bool, error) {
	path := b.next.Entries[i].Path
	if err := b.step("link", path); err != nil {
		return false, err
	}
	// The two parents come from two trees, so that neither call closes the
	// other's folder.
	from, base, err := src.tree.Parent(p)
	if err != nil {
		return false, err
	}
	to, name, err := b.tree.Parent(path)
	if err != nil {
		return false, err
	}
	if err := durable.LinkAt(from, base, to, name); err != nil {
		return false, explain(err)
	}
	info, err := b.tree.Stat(path)
	if err != nil || !info.Same(was.ID) || info.Size != was.Size || in == nil && info.Mtime != was.Mtime {
		return false, b.drop(path, err)
	}
	s := b.newShared(i, info)
	if src.live {
		s.Old = p
	}
	if in == nil {
		return true, explain(b.log.add(i, s))
	}
	b.check.files <- sharedFile{i, s, in}
	return true, nil
}

// checker reads what was shared, beside the work on the names, and has those
// that are right written down. What an inode was is noted before its content is
// read: a write after that shows.
type checker struct {
	ctx   context.Context
	log   *sharedLog
	next  *release.Index
	files chan sharedFile
	done  chan struct{}
	err   error
	wrong []int // entries with other content
}

// sharedFile is a file that waits to be read.
type sharedFile struct {
	i  int
	s  shared
	in *at.File
}

// checkAhead bounds how many files wait, each with a descriptor.
const checkAhead = 64

func (b *builder) newChecker() *checker {
	c := &checker{ctx: b.ctx, log: b.log, next: b.next, files: make(chan sharedFile, checkAhead), done: make(chan struct{})}
	go c.run()
	return c
}

func (c *checker) run() {
	defer close(c.done)
	sum, buf := sha256.New(), make([]byte, copyBuffer)
	for f := range c.files {
		same, err := false, error(nil)
		b := c.next.Entries[f.i].Blob
		if c.err == nil && c.ctx.Err() == nil {
			same, err = holds(sum, buf, f.in, b, b.Size)
		}
		err = errors.Join(err, f.in.Close())
		switch {
		case c.err != nil:
		case err != nil || !same:
			c.wrong = append(c.wrong, f.i)
		default:
			c.err = c.log.add(f.i, f.s)
		}
	}
}

// end waits until all was read.
func (c *checker) end() error {
	close(c.files)
	<-c.done
	if c.err != nil {
		return explain(c.err)
	}
	return c.ctx.Err()
}
