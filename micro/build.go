//go:build linux

package micro

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// builder builds the tree of one release in the spool. Over a tree that an
// interrupted try left it keeps what is right, by content, and makes the rest
// anew. It never changes a file that is there: the file may be shared.
type builder struct {
	*worker
	of      release.Digest // the component
	next    *release.Index
	sources []*source
	log     *sharedLog
	check   *checker // of files that were shared
	fresh   bool     // the tree was empty at the start
	tried   bool     // whether bytes can be shared
	copies  bool     // no file gets a second name
	need    []int32
	got     []bool // by position in need
}

// build builds next in the builder's tree, which is an empty folder or what an
// earlier build left.
func (b *builder) build(content ota.Content, s *survey) error {
	if err := b.clean("."); err != nil {
		return err
	}
	if err := b.entries(); err != nil {
		return err
	}
	if err := b.fetch(content); err != nil {
		return err
	}
	if err := b.copyCarried(s); err != nil {
		return err
	}
	return b.finish()
}

// clean makes every folder of the tree one that can be changed, and removes
// what the release does not list.
func (b *builder) clean(dir string) error {
	if b.fresh {
		return nil
	}
	if err := b.tree.Unlock(dir); err != nil {
		return err
	}
	names, err := b.tree.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		p := path.Join(dir, name)
		e := b.next.Find(p)
		info, err := b.tree.Stat(p)
		switch {
		case err != nil:
		case e == nil || !isType(info, e.Type):
			err = b.remove(p)
		case info.IsDir():
			err = b.clean(p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) remove(p string) error {
	if err := b.step("remove", p); err != nil {
		return err
	}
	return b.tree.RemoveAll(p)
}

// entries makes all entries, except files whose content has to come from
// elsewhere.
func (b *builder) entries() (err error) {
	b.check = b.newChecker()
	for _, list := range b.inOrder() {
		if err == nil {
			err = b.makeAll(list)
		}
	}
	if err := cmp.Or(err, b.check.end()); err != nil {
		return err
	}
	return b.shareAgain()
}

// inOrder returns the entries in lists, each of what can be made at once when those
// before it are there: what is no file, one level after the other, and the files.
func (b *builder) inOrder() (lists [][]int32) {
	var files []int32
	for i := range b.next.Entries {
		e := &b.next.Entries[i]
		if e.Type == release.File {
			files = append(files, int32(i))
			continue
		}
		depth := strings.Count(e.Path, "/")
		for len(lists) <= depth {
			lists = append(lists, nil)
		}
		lists[depth] = append(lists[depth], int32(i))
	}
	return append(lists, files)
}

// some makes those of a list.
func (b *builder) some(list []int32) error {
	for _, i := range list {
		if err := b.entry(int(i)); err != nil {
			return notStaged(b.next.Entries[i].Path, err)
		}
	}
	return nil
}

// entry makes one entry, except a file whose content has to come from
// elsewhere.
func (b *builder) entry(i int) error {
	e := &b.next.Entries[i]
	if e.Path == "." || e.Type == release.Carry {
		return nil
	}
	if right, err := b.isRight(i); err != nil || right {
		return err
	}
	switch e.Type {
	case release.Dir:
		if err := b.step("mkdir", e.Path); err != nil {
			return err
		}
		return explain(b.tree.Mkdir(e.Path))
	case release.Symlink:
		return b.symlink(e.Path, e)
	}
	return b.share(i)
}

// isRight reports whether e is in the tree already, and removes what is there
// in its place. A folder is right as soon as it is one.
func (b *builder) isRight(i int) (bool, error) {
	if b.fresh {
		return false, nil
	}
	e := &b.next.Entries[i]
	why, info, err := b.differs(b.tree, e.Path, e)
	if err != nil || e.Type == release.Dir && info.IsDir() {
		return err == nil, err
	}
	if why == "" && e.Type == release.File {
		same, err := b.hasContent(b.tree, e.Path, e.Blob)
		if err == nil && same {
			return true, b.noteFound(i, info)
		}
		why = "its content differs"
	}
	if why == "" {
		return true, nil
	}
	return false, b.remove(e.Path)
}

// fetch brings the content that the device does not have in its trees.
func (b *builder) fetch(content ota.Content) error {
	if len(b.need) == 0 {
		return nil
	}
	var blobs []release.Blob
	order := slices.Clone(b.need)
	slices.SortStableFunc(b.need, func(x, y int32) int {
		return compareDigest(b.next.Entries[x].Digest, b.next.Entries[y].Digest)
	})
	for _, i := range order {
		e := &b.next.Entries[i]
		if withBlob(b.next, b.need, e.Blob)[0] == i {
			blobs = append(blobs, e.Blob)
		}
	}
	b.got = make([]bool, len(b.next.Entries))
	each := content.Each
	if c, ok := content.(ota.Concurrent); ok {
		each = c.EachAtOnce
	}
	if err := each(b.ctx, blobs, b.put); err != nil {
		return notStaged(b.f.opts.Name, err)
	}
	for _, i := range b.need {
		if err := b.putAgain(i); err != nil {
			return err
		}
	}
	return nil
}

// put writes the first file that has the content of blob. Calls for different
// blobs may overlap.
func (b *builder) put(blob release.Blob, r io.Reader) error {
	same := withBlob(b.next, b.need, blob)
	if len(same) == 0 {
		return fmt.Errorf("got %s, which was not asked for", blob.Digest.Short())
	}
	e := &b.next.Entries[same[0]]
	if b.got[same[0]] {
		return nil
	}
	if err := b.write(e.Path, e, r); err != nil {
		return err
	}
	b.got[same[0]] = true
	return b.noteOwn(int(same[0]))
}

// putAgain makes a further file with the same content: a copy, so that writing
// to one never changes the other.
func (b *builder) putAgain(i int32) error {
	e := &b.next.Entries[i]
	if b.got[i] {
		return nil
	}
	first := withBlob(b.next, b.need, e.Blob)[0]
	if !b.got[first] {
		return fmt.Errorf("cannot stage %s: its content %s did not come", e.Path, e.Digest.Short())
	}
	in, err := b.tree.OpenFile(b.next.Entries[first].Path)
	if err != nil {
		return err
	}
	done, err := b.copyFrom(e.Path, e, in)
	if err = errors.Join(err, in.Close()); err == nil && !done {
		err = notStaged(e.Path, ota.ErrDigest)
	}
	if err != nil {
		return err
	}
	b.got[i] = true
	return b.noteOwn(int(i))
}

// copyCarried gives the app's paths of the new release what the old release
// managed there. It is a copy, so that the old tree stays what it is.
func (b *builder) copyCarried(s *survey) error {
	for _, p := range s.copies {
		if err := b.copyOne(s.live, p); err != nil {
			return fmt.Errorf("cannot stage the carried path %s: %w", p, err)
		}
	}
	return nil
}

func (b *builder) copyOne(live *at.Tree, p string) error {
	info, err := live.Stat(p)
	if isGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	e := &release.Entry{Path: p, Mode: info.Perm(), UID: info.UID, GID: info.GID}
	if e.Xattrs, err = live.Xattrs(p, info, nil); err != nil {
		return err
	}
	switch {
	case info.IsDir():
		e.Type = release.Dir
		if err := b.tree.Mkdir(p); err != nil {
			return explain(err)
		}
		return b.setDir(p, &release.Entry{Path: p, Mode: info.Perm() | 0o300, UID: info.UID, GID: info.GID, Xattrs: e.Xattrs})
	case info.IsSymlink():
		if e.Target, err = live.Readlink(p); err != nil {
			return err
		}
		return b.symlink(p, e)
	case info.IsFile():
		return b.copyAsIs(live, p, e)
	}
	return nil
}

// copyAsIs copies a file that is the app's from now on, whatever it holds.
func (b *builder) copyAsIs(live *at.Tree, p string, e *release.Entry) error {
	in, err := live.OpenFile(p)
	if err != nil {
		return err
	}
	info, err := at.StatFile(in)
	if err == nil {
		e.Size = info.Size
		err = b.write(p, e, io.LimitReader(in, e.Size))
	}
	return errors.Join(err, in.Close())
}

// finish gives the folders their metadata, from the deepest up: a folder that
// its owner may not write to gets that mode when all in it is done.
func (b *builder) finish() error {
	for i := len(b.next.Entries) - 1; i >= 0; i-- {
		e := &b.next.Entries[i]
		if e.Type != release.Dir {
			continue
		}
		if err := b.setDir(e.Path, e); err != nil {
			return err
		}
	}
	return nil
}

// sweepTemp removes what interrupted work left in the spool's own folders.
func (f *base) sweepTemp(dirs ...string) error {
	for _, dir := range dirs {
		names, err := f.listDir(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			if !strings.HasPrefix(name, tempPrefix) {
				continue
			}
			if err := os.RemoveAll(f.path(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// openTree makes the folder of a tree if it is missing, and opens it.
func (f *treeFiles) openTree(ctx context.Context, path string) (*at.Tree, bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	if err := f.step("mkdir", path); err != nil {
		return nil, false, err
	}
	err := os.Mkdir(path, 0o700)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return nil, false, explain(err)
	}
	tree, openErr := at.Open(path)
	return tree, err == nil, openErr
}
