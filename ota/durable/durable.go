// Package durable changes files so that a power cut leaves either the old
// state or the new one, and never the old one after a call returned nil.
//
// Every function here does three things in this order: it makes the new
// content durable under a temporary name, it changes names with one atomic
// call, and it makes the folders durable whose entries changed. Leaving out
// the first shows empty files after a power cut, leaving out the last shows
// the old ones. A backend that needs a promise of this kind for a folder of
// its own can use these functions, or [Dir] for a folder of small state files.
//
// What no program can promise: that the drive keeps what it acknowledged, and
// anything at all on a file system for which [Durable] answers [ErrVolatile].
package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"

	"github.com/pawl-ota/pawl/internal/seam"
)

// Errors that a caller branches on.
var (
	// ErrSync is returned when fsync failed. What is on the disk is unknown
	// then, and stays unknown: a second fsync of the same file reports
	// success without having written. The bytes have to be written again,
	// into a new file, or given up.
	ErrSync = errors.New("cannot make it durable")
	// ErrNoExchange is returned by Exchange where the kernel or the file
	// system cannot swap these two names: an old kernel, two file systems, a
	// mount point, a folder of a lower layer of an overlay.
	ErrNoExchange = errors.New("these two names cannot be exchanged")
	// ErrVolatile is returned by Durable for a mount on which nothing
	// survives a power cut for certain.
	ErrVolatile = errors.New("the file system does not keep what it acknowledges")
)

// tempPrefix begins the name of every file that has no final name yet. What
// carries it after a power cut is garbage.
const tempPrefix = ".pawl-tmp-"

// watched reports whether anybody is told of steps.
func watched() bool { return seam.Leave.Load() != nil || seam.Step.Load() != nil }

// step makes one call that changes what a power cut leaves behind.
func step(op, path string, call func() error) error {
	if leave := seam.Leave.Load(); leave != nil && (*leave)(op) {
		return nil
	}
	if h := seam.Step.Load(); h != nil {
		return (*h)(op, path, call)
	}
	return call()
}

// WriteFile replaces the file path by data with exactly the mode perm. The
// file is new: it belongs to this process's user and has no extended
// attributes, and a symbolic link at path is replaced, not followed. A reader
// sees the old content or the new, at any time.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	defer func() { _ = root.Close() }()
	return writeIn(root, filepath.Base(path), data, perm)
}

// writeIn replaces the file name in the folder root.
func writeIn(root *os.Root, name string, data []byte, perm os.FileMode) error {
	f, err := createIn(root, name, perm)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, bytes.NewReader(data)); err != nil {
		return errors.Join(err, f.Abort())
	}
	return f.Commit()
}

// pending is a file without a name. It implements the File of internal/seam.
type pending struct {
	root *os.Root
	name string
	tmp  *renameio.PendingFile
	temp string // its name in root
	done bool
}

// createIn begins the file name in the folder root, under a temporary name
// beside it: only within one folder is a rename certain to be possible.
func createIn(root *os.Root, name string, perm os.FileMode) (*pending, error) {
	tmp, err := renameio.NewPendingFile(tempPrefix[1:],
		renameio.WithRoot(root), renameio.WithPermissions(0o600), renameio.WithStaticPermissions(perm))
	if err != nil {
		return nil, fmt.Errorf("cannot create a file in %s: %w", root.Name(), err)
	}
	return &pending{root: root, name: name, tmp: tmp, temp: filepath.Base(tmp.Name())}, nil
}

// Write implements io.Writer.
func (p *pending) Write(b []byte) (int, error) {
	n, err := p.tmp.Write(b)
	if err != nil {
		err = fmt.Errorf("cannot write %s: %w", p.path(), err)
	}
	return n, err
}

// Commit makes the bytes durable before the name exists, and the name before
// it returns. renameio would stop after the rename.
func (p *pending) Commit() error {
	if err := p.place(func() error { return syncFile(p.tmp.File, p.path()) }); err != nil {
		return err
	}
	return syncRoot(p.root)
}

// Place gives the bytes the name and leaves both to a later Sync.
func (p *pending) Place() error { return p.place(func() error { return nil }) }

func (p *pending) place(sync func() error) error {
	if p.done {
		return fmt.Errorf("cannot write %s: %w", p.path(), os.ErrClosed)
	}
	err := sync()
	if err == nil {
		err = p.tmp.Close()
	}
	if err == nil {
		err = step("rename", p.path(), func() error { return p.root.Rename(p.temp, p.name) })
	}
	if err != nil {
		return errors.Join(fmt.Errorf("cannot write %s: %w", p.path(), err), p.Abort())
	}
	p.done = true
	return nil
}

// Abort drops the bytes.
func (p *pending) Abort() error {
	if p.done {
		return nil
	}
	p.done = true
	if err := p.tmp.Cleanup(); err != nil && !errors.Is(err, os.ErrClosed) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot drop a temporary file in %s: %w", p.root.Name(), err)
	}
	return nil
}

func (p *pending) path() string { return filepath.Join(p.root.Name(), p.name) }

// Rename gives oldpath the name newpath, replacing what has it. The old name
// is gone for certain only after the new one is there for certain.
func Rename(oldpath, newpath string) error {
	return renamed("rename", oldpath, newpath, func() error { return os.Rename(oldpath, newpath) })
}

// RenameNew is Rename that fails with [fs.ErrExist] when newpath is there. Where
// both are names of one file, as a power cut in the middle of an earlier call
// can leave it on btrfs, the old name goes.
func RenameNew(oldpath, newpath string) error {
	return renamed("rename", oldpath, newpath, func() error { return renameNew(oldpath, newpath) })
}

// Exchange swaps the names of a and b, which may be files or folders, in one
// call: at no moment is one of them missing. It returns an error that wraps
// ErrNoExchange where that is not possible; nothing was changed then.
func Exchange(a, b string) error {
	return renamed("exchange", a, b, func() error { return exchange(a, b) })
}

// renamed makes a call that changes the entries oldpath and newpath and makes
// both folders durable, that of newpath first.
func renamed(op, oldpath, newpath string, call func() error) error {
	if err := step(op, newpath, call); err != nil {
		return fmt.Errorf("cannot %s %s and %s: %w", op, oldpath, newpath, err)
	}
	to, from := filepath.Dir(newpath), filepath.Dir(oldpath)
	if err := SyncDir(to); err != nil || to == from {
		return err
	}
	return SyncDir(from)
}

// Mkdir makes one folder.
func Mkdir(path string, perm os.FileMode) error {
	if err := step("mkdir", path, func() error { return os.Mkdir(path, perm) }); err != nil {
		return fmt.Errorf("cannot make a folder: %w", err)
	}
	return SyncDir(filepath.Dir(path))
}

// MkdirAll makes a folder with those above it that are missing. Each is
// durable before the next is made, so that an earlier call that was cut short
// left at most one that is not: the deepest that is there, which is made
// durable here too.
func MkdirAll(path string, perm os.FileMode) error {
	path = filepath.Clean(path)
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		return fmt.Errorf("cannot make the folder %s: %w", path, syscall.ENOTDIR)
	}
	parent := filepath.Dir(path)
	if err == nil {
		if err := SyncDir(parent); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot make a folder: %w", err)
	}
	if parent != path {
		if err := MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	if err := Mkdir(path, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Remove removes a file or an empty folder. That it is not there is no error.
func Remove(path string) error { return removed(path, os.Remove) }

// RemoveAll removes path and everything below it. That it is not there is no
// error. A power cut in the middle leaves a part of it.
func RemoveAll(path string) error { return removed(path, os.RemoveAll) }

// removed syncs the folder even when path was gone already: an earlier call
// may have been cut short in between.
func removed(path string, remove func(string) error) error {
	err := step("remove", path, func() error { return remove(path) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove: %w", err)
	}
	err = SyncDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// SyncFile makes the content of a file durable that something else wrote.
func SyncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSync, err)
	}
	return errors.Join(syncFile(f, path), f.Close())
}

// SyncDir makes the entries of a folder durable.
func SyncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSync, err)
	}
	return errors.Join(syncFolder(f, path), f.Close())
}

// SyncTree makes everything below path durable, and the rest of its file
// system with it: one call costs far less than one fsync for each file. A
// kernel before 5.8 does not report what it could not write.
func SyncTree(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSync, err)
	}
	err = syncWhole(f, path)
	if err := errors.Join(err, f.Close()); !errors.Is(err, syscall.ENOSYS) {
		return err
	}
	return syncWalk(path)
}

func syncWhole(f *os.File, path string) error {
	if err := step("syncfs", path, func() error { return syncfs(f) }); err != nil {
		return fmt.Errorf("%w: the file system of %s: %w", ErrSync, path, err)
	}
	return nil
}

// syncWalk is SyncTree one by one: content before the entries that name it.
func syncWalk(path string) error {
	var folders []string
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			folders = append(folders, p)
		case d.Type().IsRegular():
			return SyncFile(p)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSync, err)
	}
	for i := len(folders) - 1; i >= 0; i-- {
		if err := SyncDir(folders[i]); err != nil {
			return err
		}
	}
	return nil
}

func syncRoot(root *os.Root) error {
	f, err := root.Open(".")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSync, err)
	}
	return errors.Join(syncFolder(f, root.Name()), f.Close())
}

func syncFile(f *os.File, path string) error {
	if err := step("fsync", path, f.Sync); err != nil {
		return fmt.Errorf("%w: %w", ErrSync, err)
	}
	return nil
}

// syncFolder falls back to the whole file system where folders have no fsync
// of their own.
func syncFolder(f *os.File, path string) error {
	err := step("fsyncdir", path, f.Sync)
	if errors.Is(err, syscall.EINVAL) {
		err = step("syncfs", path, func() error { return syncfs(f) })
	}
	if err != nil {
		return fmt.Errorf("%w: the folder %s: %w", ErrSync, path, err)
	}
	return nil
}
