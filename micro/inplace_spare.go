//go:build linux

package micro

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// prepareOld has Stage do to what will leave its place all that can be done
// before it leaves, so that what stands against it is found here: the second
// name or the copy that byReplace needs, and on an overlay the copy in the upper
// layer that the kernel would make then.
func (s *switcher) prepareOld(ch *entryChange) error {
	switch {
	case ch.NewMeta != nil:
		return s.keepsMeta(ch)
	case ch.Old == nil:
		return nil
	case ch.Old.Dir:
		return s.tryLeave(ch)
	}
	if err := s.copyUp(ch); err != nil {
		return err
	}
	_, err := s.secure(ch, true)
	return err
}

// keepsMeta refuses new metadata for a folder on a file system that has none.
func (s *switcher) keepsMeta(ch *entryChange) error {
	dir, err := s.tree.OpenDir(ch.Path)
	if err != nil {
		return err
	}
	if isLoose(dir) {
		err = notKept(s.tree.Name(ch.Path), "the metadata of a folder")
	}
	return errors.Join(err, dir.Close())
}

func notKept(name, what string) error {
	return fmt.Errorf("%w: the file system of %s does not keep what the release says: %s", ErrNoExchange, name, what)
}

// tryLeave tries to rename the folder over one in the spool that is not empty.
// That is never possible, and the error says whether something else stands
// against it too: a lower layer of an overlay, another project's quota.
func (s *switcher) tryLeave(ch *entryChange) error {
	const full = tempPrefix + "full"
	st := s.stores[ch.Vol]
	for _, dir := range []string{full, path.Join(full, "x")} {
		if err := st.tree.Mkdir(dir); err != nil && !errors.Is(err, os.ErrExist) {
			return explain(err)
		}
	}
	err := s.between(ch, func(dir *os.File, base string, spool *os.File) error {
		return s.batch.Replace(dir, base, spool, full)
	})
	if err == nil { // no file system should, and then the folder goes back
		err = s.between(ch, func(dir *os.File, base string, spool *os.File) error {
			return s.batch.Replace(spool, full, dir, base)
		})
		return errors.Join(fmt.Errorf("%w: a folder that is not empty was renamed over", ErrNoExchange), err)
	}
	if isErrno(err, unix.EXDEV, unix.EBUSY) {
		err = fmt.Errorf("%w: a mount point, or a folder of a lower layer of an overlay: %w", ErrNoExchange, err)
	} else if isErrno(err, unix.ENOTEMPTY, unix.EEXIST) {
		err = nil
	}
	return errors.Join(err, st.tree.RemoveAll(full))
}

// copyUp has an overlay copy a file of a lower layer to the upper one, which
// needs room and gives it another inode: both have to be over before the plan
// is made. Elsewhere it does nothing.
func (s *switcher) copyUp(ch *entryChange) error {
	dir, base, err := s.tree.Parent(ch.Path)
	if err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &fs); err != nil || uint32(fs.Type) != unix.OVERLAYFS_SUPER_MAGIC {
		return err
	}
	before, err := s.tree.Stat(ch.Path)
	if err != nil {
		return err
	}
	if before.IsSymlink() {
		err = unix.Fchownat(int(dir.Fd()), base, int(before.UID), int(before.GID), unix.AT_SYMLINK_NOFOLLOW)
	} else {
		err = unix.Fchmodat(int(dir.Fd()), base, before.Perm(), 0)
	}
	if err != nil {
		return &os.PathError{Op: "copy up", Path: s.tree.Name(ch.Path), Err: err}
	}
	after, err := s.tree.Stat(ch.Path)
	if err == nil && ch.Old.is(before, volume{}) {
		ch.Old = stampOf(after)
	}
	return err
}

// secure sees to it that a file which the new one will be renamed over has a
// second name in the spool, or a copy there. It reports whether it had to do
// something, which has to be durable before the switch.
func (s *switcher) secure(ch *entryChange, anew bool) (bool, error) {
	if s.vol(ch).By == byExchange || ch.Old == nil || ch.New == nil || ch.NewMeta != nil || ch.Away || !s.hasNew(ch) {
		return false, nil
	}
	old := s.vol(ch).oldName(ch.Path)
	now, err := s.tree.Stat(ch.Path)
	if isGone(err) {
		return false, nil // put finds it
	}
	if err != nil {
		return false, err
	}
	spare, there, err := s.inSpool(ch, old)
	if err != nil || there && !anew && (spare.Like(now.ID) || likeCopy(spare, now)) {
		return false, err
	}
	if err := s.w.step("secure", ch.Path); err != nil {
		return false, err
	}
	if err := s.stores[ch.Vol].tree.RemoveAll(old); err != nil {
		return false, err
	}
	err = s.link(ch, old)
	if isLinkRefusal(err) || isErrno(err, unix.ENOSYS, unix.EINVAL) {
		err = s.copyOld(ch, old, now)
	}
	return true, explain(err)
}

func (s *switcher) link(ch *entryChange, old string) error {
	if s.f.cannot != nil {
		if err := s.f.cannot("link"); err != nil {
			return err
		}
	}
	return s.between(ch, func(dir *os.File, base string, spool *os.File) error {
		return s.batch.HardLink(dir, base, spool, old)
	})
}

// likeCopy reports whether spare looks like a whole copy: its time is set last.
func likeCopy(spare, now at.Info) bool {
	return spare.Mode == now.Mode && spare.Size == now.Size && spare.Mtime == now.Mtime
}

// copyOld makes a copy of the entry in the spool.
func (s *switcher) copyOld(ch *entryChange, old string, now at.Info) error {
	st := s.stores[ch.Vol]
	list, err := s.tree.Xattrs(ch.Path, now, nil)
	if err != nil {
		return err
	}
	e := &release.Entry{Path: ch.Path, Type: release.File, Mode: now.Perm(), UID: now.UID, GID: now.GID, Xattrs: list}
	if e.Size = now.Size; now.IsSymlink() {
		if e.Target, err = s.tree.Readlink(ch.Path); err == nil {
			err = st.symlink(old, e)
		}
	} else if now.IsFile() {
		err = s.copyFile(ch, old, e)
	} else {
		err = fmt.Errorf("%w: it is neither a file nor a symbolic link, and cannot be copied", ErrNoExchange)
	}
	if err != nil {
		return err
	}
	return st.tree.SetMtime(old, now.Mtime)
}

func (s *switcher) copyFile(ch *entryChange, old string, e *release.Entry) error {
	in, err := s.tree.OpenFile(ch.Path)
	if err != nil {
		return err
	}
	return errors.Join(s.stores[ch.Vol].write(old, e, io.LimitReader(in, e.Size)), in.Close())
}

// secureAll is secure for all that changed since Stage. What could not be made
// durable is not relied on later.
func (s *switcher) secureAll(p *changes) error {
	made := map[int][]*entryChange{}
	for i := range p.Changes {
		ch := &p.Changes[i]
		did, err := s.secure(ch, false)
		if err != nil {
			return fmt.Errorf("%s: %w", ch.Path, err)
		}
		if did {
			made[ch.Vol] = append(made[ch.Vol], ch)
		}
	}
	for vol, all := range made {
		err := s.stores[vol].sync()
		for i := 0; i < len(all) && err != nil; i++ {
			err = errors.Join(err, s.stores[vol].tree.RemoveAll(s.vol(all[i]).oldName(all[i].Path)))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sync makes durable what is in a store. What FUSE does not hand on from a call
// for a whole file system it does from one for a file.
func (s *store) sync() error {
	if err := s.step("sync", "."); err != nil {
		return err
	}
	if err := durable.SyncTree(s.tree.Name(".")); err != nil || !s.vol.Loose {
		return err
	}
	names, err := s.tree.ReadDir(".")
	for _, name := range names {
		if err == nil {
			err = durable.SyncFile(s.tree.Name(name))
		}
	}
	if err != nil {
		return err
	}
	return durable.SyncDir(s.tree.Name("."))
}

// tryKeep makes an entry like e, but empty, and sees whether it is what e says
// then.
func (s *store) tryKeep(e *release.Entry) error {
	const name = tempPrefix + "like"
	like := *e
	if like.Blob = (release.Blob{}); e.Type == release.File {
		like.Digest = release.Sum(nil)
	}
	err := s.tree.RemoveAll(name)
	if err == nil {
		err = s.make(name, &like)
	}
	if err == nil {
		var why string
		if why, _, err = s.differs(s.tree, name, &like); why != "" {
			err = errors.New(why)
		}
	}
	if err != nil && !errors.Is(err, ota.ErrNoSpace) && s.ctx.Err() == nil {
		err = notKept(e.Path, err.Error())
	}
	return errors.Join(err, s.tree.RemoveAll(name))
}

func (s *store) make(name string, e *release.Entry) error {
	switch e.Type {
	case release.Symlink:
		return s.symlink(name, e)
	case release.Dir:
		if err := s.tree.Mkdir(name); err != nil {
			return err
		}
		return s.setDir(name, e)
	}
	return s.write(name, e, strings.NewReader(""))
}
