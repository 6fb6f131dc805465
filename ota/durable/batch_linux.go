package durable

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// maxBatchDirs bounds how many folders of one file system a Batch syncs one by
// one. Where there are more, one call for the file system costs less.
const maxBatchDirs = 16

// Batch gives names like the functions that end in At, but makes them durable
// together: nothing of it is promised to survive before [Batch.Flush] has
// returned nil, and after a power cut any part of it may have happened. It is
// for changes that a record, written before them, can tell apart and take back
// one by one. A Batch is used by one goroutine; its zero value is ready.
type Batch struct {
	systems map[uint64]*batchSystem
}

// batchSystem is what was changed on one file system.
type batchSystem struct {
	dirs map[uint64]*os.File // by inode
	all  bool                // there were too many
}

// Move renames to a name that must be free.
func (b *Batch) Move(oldDir *os.File, oldName string, newDir *os.File, newName string) error {
	return b.renamed("rename", oldDir, oldName, newDir, newName, unix.RENAME_NOREPLACE)
}

// Swap exchanges two names. Its error wraps [ErrNoExchange] as that of
// [Exchange] does.
func (b *Batch) Swap(aDir *os.File, aName string, bDir *os.File, bName string) error {
	return noExchange(b.renamed("exchange", aDir, aName, bDir, bName, unix.RENAME_EXCHANGE))
}

func (b *Batch) renamed(op string, oldDir *os.File, oldName string, newDir *os.File, newName string, flags uint) error {
	if err := errors.Join(b.Note(oldDir), b.Note(newDir)); err != nil {
		return err
	}
	return renameAt(op, oldDir, oldName, newDir, newName, flags)
}

// Replace renames over what has the new name, if anything has.
func (b *Batch) Replace(oldDir *os.File, oldName string, newDir *os.File, newName string) error {
	return b.renamed("rename", oldDir, oldName, newDir, newName, 0)
}

// HardLink gives a file a second name, which must be free.
func (b *Batch) HardLink(oldDir *os.File, oldName string, newDir *os.File, newName string) error {
	if err := b.Note(newDir); err != nil {
		return err
	}
	return LinkAt(oldDir, oldName, newDir, newName)
}

// Note has Flush make the folder dir durable too. The caller may close it.
func (b *Batch) Note(dir *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return fmt.Errorf("cannot look at the folder %s: %w", dir.Name(), err)
	}
	if b.systems == nil {
		b.systems = map[uint64]*batchSystem{}
	}
	s := b.systems[uint64(st.Dev)]
	if s == nil {
		s = &batchSystem{dirs: map[uint64]*os.File{}}
		b.systems[uint64(st.Dev)] = s
	}
	if s.all || s.dirs[uint64(st.Ino)] != nil {
		return nil
	}
	if len(s.dirs) == maxBatchDirs {
		s.all = true
		return nil
	}
	fd, err := unix.FcntlInt(dir.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot hold the folder %s open: %w", dir.Name(), err)
	}
	s.dirs[uint64(st.Ino)] = os.NewFile(uintptr(fd), dir.Name())
	return nil
}

// Flush makes durable all that was done, and forgets it. After an error it is
// not known what is.
func (b *Batch) Flush() error {
	var all []error
	for _, s := range b.systems {
		all = append(all, s.flush())
	}
	return errors.Join(errors.Join(all...), b.Close())
}

func (s *batchSystem) flush() error {
	for _, dir := range s.dirs {
		var err error
		if s.all {
			err = syncWhole(dir, dir.Name())
		} else {
			err = syncFolder(dir, dir.Name())
		}
		if err != nil || s.all {
			return err
		}
	}
	return nil
}

// Close lets go of what the Batch holds open, without making it durable.
func (b *Batch) Close() error {
	var all []error
	for _, s := range b.systems {
		for _, dir := range s.dirs {
			all = append(all, dir.Close())
		}
	}
	b.systems = nil
	return errors.Join(all...)
}
