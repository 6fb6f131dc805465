package durable

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The functions of this file do what their namesakes do, with names relative
// to opened folders. Whoever can change what lies between a root and a file,
// such as an app that is being updated, cannot lead them elsewhere by putting
// a symbolic link in the way. A name here is one name, without a slash.

// RenameNewAt is [RenameNew] from one opened folder to another.
func RenameNewAt(oldDir *os.File, oldName string, newDir *os.File, newName string) error {
	return renamedAt("rename", oldDir, oldName, newDir, newName, unix.RENAME_NOREPLACE)
}

// RenameAt is [Rename] from one opened folder to another.
func RenameAt(oldDir *os.File, oldName string, newDir *os.File, newName string) error {
	return renamedAt("rename", oldDir, oldName, newDir, newName, 0)
}

// ExchangeAt is [Exchange] between two opened folders.
func ExchangeAt(aDir *os.File, aName string, bDir *os.File, bName string) error {
	return noExchange(renamedAt("exchange", aDir, aName, bDir, bName, unix.RENAME_EXCHANGE))
}

func renamedAt(op string, oldDir *os.File, oldName string, newDir *os.File, newName string, flags uint) error {
	if err := renameAt(op, oldDir, oldName, newDir, newName, flags); err != nil {
		return err
	}
	if err := syncFolder(newDir, newDir.Name()); err != nil || oldDir == newDir {
		return err
	}
	return syncFolder(oldDir, oldDir.Name())
}

func renameAt(op string, oldDir *os.File, oldName string, newDir *os.File, newName string, flags uint) error {
	oldPath, newPath := filepath.Join(oldDir.Name(), oldName), filepath.Join(newDir.Name(), newName)
	err := step(op, newPath, func() error {
		switch flags {
		case 0:
			return unix.Renameat(int(oldDir.Fd()), oldName, int(newDir.Fd()), newName)
		case unix.RENAME_NOREPLACE:
			return renameNewAt(int(oldDir.Fd()), oldName, int(newDir.Fd()), newName)
		}
		return unix.Renameat2(int(oldDir.Fd()), oldName, int(newDir.Fd()), newName, flags)
	})
	if err != nil {
		return fmt.Errorf("cannot %s %s and %s: %w", op, oldPath, newPath, err)
	}
	return nil
}

// LinkAt gives the file oldName a second name in an opened folder. It syncs
// nothing: it is for trees that one [SyncTree] makes durable as a whole.
func LinkAt(oldDir *os.File, oldName string, newDir *os.File, newName string) error {
	link := func() error { return unix.Linkat(int(oldDir.Fd()), oldName, int(newDir.Fd()), newName, 0) }
	var err error
	if watched() {
		err = step("link", filepath.Join(newDir.Name(), newName), link)
	} else {
		err = link() // a tree has many
	}
	if err != nil {
		return fmt.Errorf("cannot link %s: %w", filepath.Join(newDir.Name(), newName), err)
	}
	return nil
}

// SyncOpen makes the content of an opened file durable, or the entries of an
// opened folder.
func SyncOpen(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSync, err)
	}
	if info.IsDir() {
		return syncFolder(f, f.Name())
	}
	return syncFile(f, f.Name())
}
