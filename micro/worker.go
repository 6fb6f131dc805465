//go:build linux

package micro

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// copyBuffer is how much of a file is in memory at a time.
const copyBuffer = 128 << 10

// worker makes files in one tree. It is used by one goroutine, but for write.
type worker struct {
	f    *base
	ctx  context.Context
	tree *at.Tree
	hash hash.Hash
	buf  []byte
	mu   sync.Mutex // of the tree, and of bufs
	bufs [][]byte   // that write is not using
	// clone says that the file system can share bytes between files; it is
	// cleared when it turns out that it cannot.
	clone bool
}

func (f *base) newWorker(ctx context.Context, tree *at.Tree) *worker {
	return &worker{f: f, ctx: ctx, tree: tree, hash: sha256.New(), buf: make([]byte, copyBuffer), clone: true}
}

// step ends the work when ctx has ended.
func (w *worker) step(op, path string) error {
	if err := w.ctx.Err(); err != nil || w.f.before == nil {
		return err
	}
	return w.f.step(op, w.tree.Name(path))
}

// drop removes what a failed step left, and keeps the step's error.
func (w *worker) drop(path string, err error) error {
	if w.f.step("drop", w.tree.Name(path)) != nil {
		return err
	}
	return errors.Join(err, w.tree.Unlink(path))
}

// write makes the file path with the content of r and the metadata of e. The
// reader verifies: a file stays only if it ended well and is as long as the
// index says. Several goroutines may each write a file.
func (w *worker) write(path string, e *release.Entry, r io.Reader) error {
	file, buf, err := w.create(path)
	if err != nil {
		return err
	}
	n, err := at.CopyTo(file, r, buf)
	if err == nil && n != e.Size {
		err = fmt.Errorf("%s: %w: %d bytes instead of %d", e.Path, ota.ErrLength, n, e.Size)
	}
	if err == nil {
		err = w.setFile(file, e)
	}
	err = errors.Join(err, file.Close())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bufs = append(w.bufs, buf)
	if err != nil {
		return w.drop(path, explain(err))
	}
	return nil
}

// create makes the file path, and finds a buffer to write it through.
func (w *worker) create(path string) (*os.File, []byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.step("create", path); err != nil {
		return nil, nil, err
	}
	file, err := w.tree.Create(path)
	if err != nil {
		return nil, nil, explain(err)
	}
	if n := len(w.bufs) - 1; n >= 0 {
		buf := w.bufs[n]
		w.bufs = w.bufs[:n]
		return file, buf, nil
	}
	return file, make([]byte, copyBuffer), nil
}

// copyFrom makes the file path with the bytes of in, if they are e's content:
// by sharing them where the file system can.
func (w *worker) copyFrom(path string, e *release.Entry, in *os.File) (bool, error) {
	if err := w.step("copy", path); err != nil {
		return false, err
	}
	file, err := w.tree.Create(path)
	if err != nil {
		return false, explain(err)
	}
	same, err := w.fill(file, in, e.Blob)
	if err == nil && same {
		err = w.setFile(file, e)
	}
	if err = errors.Join(err, file.Close()); err != nil || !same {
		return false, w.drop(path, explain(err))
	}
	return true, nil
}

// fill copies in to file and reports whether the copy is b.
func (w *worker) fill(file, in *os.File, b release.Blob) (bool, error) {
	if w.clone {
		if at.Clone(file, in) == nil {
			return w.holds(file, b)
		}
		w.clone = false
	}
	w.hash.Reset()
	h := &hashing{h: w.hash, r: io.LimitReader(in, b.Size+1)}
	if _, err := at.CopyTo(file, h, w.buf); err != nil {
		return false, err
	}
	return h.blob() == b, nil
}

// setFile gives an opened file or folder the metadata of e, in the order in
// which no call undoes what another did: a new owner clears setuid and the
// capabilities, a new mode changes an ACL.
func (w *worker) setFile(file *os.File, e *release.Entry) error {
	if !w.f.opts.IgnoreOwner {
		err := unix.Fchown(int(file.Fd()), int(int32(e.UID)), int(int32(e.GID)))
		if err != nil && !isLoose(file) { // what it has is looked at afterwards
			return w.ownerError(e, err)
		}
	}
	if err := fchmod(file, e.Mode); err != nil && !isLoose(file) {
		return err
	}
	err := at.SetXattrs(file, e.Xattrs)
	if !errors.Is(err, os.ErrPermission) || e.Mode&0o200 != 0 {
		return err
	}
	// Whoever is not root may set attributes only of what its mode lets it
	// write to.
	if err := fchmod(file, e.Mode|0o600); err != nil {
		return err
	}
	return errors.Join(at.SetXattrs(file, e.Xattrs), fchmod(file, e.Mode))
}

func fchmod(file *os.File, mode uint32) error {
	if err := unix.Fchmod(int(file.Fd()), mode); err != nil {
		return &os.PathError{Op: "chmod", Path: file.Name(), Err: err}
	}
	return nil
}

func (w *worker) ownerError(e *release.Entry, err error) error {
	return fmt.Errorf("cannot give %s to user %d and group %d, as the release says: %w; only root can, or use IgnoreOwner", e.Path, e.UID, e.GID, err)
}

// symlink makes the symbolic link path.
func (w *worker) symlink(path string, e *release.Entry) error {
	if err := w.step("symlink", path); err != nil {
		return err
	}
	if err := w.tree.Symlink(e.Target, path); err != nil {
		return explain(err)
	}
	err := w.setSymlink(path, e)
	if err != nil {
		return w.drop(path, explain(err))
	}
	return nil
}

func (w *worker) setSymlink(path string, e *release.Entry) error {
	if !w.f.opts.IgnoreOwner {
		if err := w.tree.Chown(path, e.UID, e.GID); err != nil {
			return w.ownerError(e, err)
		}
	}
	info, err := w.tree.Stat(path)
	if err != nil {
		return err
	}
	return w.tree.SetXattrs(path, info, e.Xattrs)
}

// setDir gives the folder path the metadata of e.
func (w *worker) setDir(path string, e *release.Entry) error {
	if err := w.step("finish", path); err != nil {
		return err
	}
	dir, err := w.tree.OpenDir(path)
	if err != nil {
		return err
	}
	return explain(errors.Join(w.setFile(dir, e), dir.Close()))
}

// differs says what of path is not as e says, content left out; empty when
// nothing is.
func (w *worker) differs(tree *at.Tree, path string, e *release.Entry) (string, at.Info, error) {
	info, err := tree.Stat(path)
	switch {
	case isGone(err):
		return "it is missing", info, nil
	case err != nil:
		return "", info, err
	}
	if why := w.f.looksOther(info, e, func() bool { return modeFits(tree, path, info, e) }); why != "" {
		return why, info, nil
	}
	if e.Type == release.Symlink {
		if target, err := tree.Readlink(path); err != nil || target != e.Target {
			return "it points elsewhere", info, err
		}
	}
	got, err := tree.Xattrs(path, info, e.Xattrs)
	if err == nil && !at.SameXattrs(got, e.Xattrs) {
		return "its extended attributes differ", info, nil
	}
	return "", info, err
}

// looksOther says what an inode's numbers have that is not as e says. fits, if
// there is one, says that a mode is as near as it can be.
func (f *base) looksOther(info at.Info, e *release.Entry, fits func() bool) string {
	switch {
	case !isType(info, e.Type):
		return "it is of another type"
	case !f.opts.IgnoreOwner && (info.UID != e.UID || info.GID != e.GID):
		return fmt.Sprintf("it belongs to %d:%d instead of %d:%d", info.UID, info.GID, e.UID, e.GID)
	case e.Type != release.Symlink && info.Perm() != e.Mode && (fits == nil || !fits()):
		return fmt.Sprintf("its mode is %o instead of %o", info.Perm(), e.Mode)
	case e.Type == release.File && info.Size != e.Size:
		return fmt.Sprintf("it has %d bytes instead of %d", info.Size, e.Size)
	}
	return ""
}

func isType(info at.Info, t release.EntryType) bool {
	switch t {
	case release.File:
		return info.IsFile()
	case release.Dir:
		return info.IsDir()
	case release.Symlink:
		return info.IsSymlink()
	}
	return false
}

// hasContent reports whether the file path of tree is b.
func (w *worker) hasContent(tree *at.Tree, path string, b release.Blob) (bool, error) {
	file, err := tree.OpenFile(path)
	if err != nil {
		return false, err
	}
	same, err := w.holds(file, b)
	return same, errors.Join(err, file.Close())
}

// settleForks returns when no child process can hold a descriptor that was
// open for writing before. Between fork and exec a child has all of them, and
// a program that somebody has open for writing cannot be started. The files
// are closed by now, and forks that begin later do not have them.
func settleForks() {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
}
