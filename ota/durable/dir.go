package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/pawl-ota/pawl/internal/seam"
)

// ErrName is returned by a [Dir] for a name that it does not take.
var ErrName = errors.New("not a name in this folder")

// Dir is a folder of state files that belongs to one program: small files
// that are replaced as a whole, at the top or in a folder directly below it.
// Nothing in it is followed out of it. Reading is safe at any time, while
// another process holds the lock too; changes are for the holder of the lock,
// and safe for concurrent use.
type Dir struct {
	root *os.Root

	mu      sync.Mutex
	reserve bool // the reserve file is there, as far as is known
}

var _ seam.Dir = (*Dir)(nil)

// OpenDir opens the folder path, and makes it with mode 0700 if it is missing.
// It refuses, with an error that wraps [ErrInsecure], a folder that another
// user could change. Errors of the file system come wrapped.
func OpenDir(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open the state folder: %w", err)
	}
	if err := makeState(path); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open the state folder: %w", err)
	}
	if err := checkOwner(root, path); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &Dir{root: root}, nil
}

func makeState(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Close lets go of the folder. A lock that is held stays held.
func (d *Dir) Close() error { return d.root.Close() }

// ReadFile returns the content of name, and refuses a file that is longer
// than max bytes.
func (d *Dir) ReadFile(name string, max int64) ([]byte, error) {
	f, size, err := d.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if size > max {
		return nil, fmt.Errorf("cannot read %s: it has %d bytes, more than %d", name, size, max)
	}
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(data)) > max {
		err = fmt.Errorf("it has more than %d bytes", max)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	return data, nil
}

// Open opens name for reading.
func (d *Dir) Open(name string) (io.ReadCloser, error) {
	f, _, err := d.open(name)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Size returns the length of name in bytes.
func (d *Dir) Size(name string) (int64, error) {
	if err := checkName(name); err != nil {
		return 0, err
	}
	info, err := d.root.Lstat(name)
	if err != nil {
		return 0, fmt.Errorf("cannot look at %s: %w", name, err)
	}
	return info.Size(), onlyRegular(name, info)
}

// open opens a regular file; it neither follows a link nor waits for the
// other end of a pipe.
func (d *Dir) open(name string) (*os.File, int64, error) {
	if _, err := d.Size(name); err != nil {
		return nil, 0, err
	}
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("cannot read %s: %w", name, err)
	}
	info, err := f.Stat()
	if err == nil {
		err = onlyRegular(name, info)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

func onlyRegular(name string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is not a regular file but %v", ErrName, name, info.Mode())
	}
	return nil
}

// WriteFile replaces name by data, with mode 0600. On a full disk it gives up
// the reserve for it; no other file may use that.
func (d *Dir) WriteFile(name string, data []byte) error {
	folder, base, err := d.folder(name, true)
	if err != nil {
		return err
	}
	defer func() { _ = folder.Close() }()
	if err := d.keep(name); err != nil {
		return err
	}
	err = writeIn(folder, base, data, 0o600)
	if isFull(err) && d.spend() {
		err = writeIn(folder, base, data, 0o600)
	}
	d.replenish()
	return err
}

// keep makes the folder itself durable before it gets a file of a new name at the
// top: the process that made the folder may have been killed before it could.
func (d *Dir) keep(name string) error {
	if _, err := d.root.Lstat(name); strings.Contains(name, "/") || !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := SyncDir(filepath.Dir(d.root.Name()))
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

// Create begins a file of mode 0600 that gets its name at Commit.
func (d *Dir) Create(name string) (seam.File, error) {
	folder, base, err := d.folder(name, true)
	if err != nil {
		return nil, err
	}
	p, err := createIn(folder, base, 0o600)
	if err != nil {
		return nil, errors.Join(err, folder.Close())
	}
	return &created{pending: p}, nil
}

// created is a pending file that closes its folder with itself.
type created struct{ *pending }

func (c *created) Commit() error { return errors.Join(c.pending.Commit(), c.root.Close()) }

func (c *created) Place() error { return errors.Join(c.pending.Place(), c.root.Close()) }

func (c *created) Abort() error {
	if c.done {
		return nil
	}
	return errors.Join(c.pending.Abort(), c.root.Close())
}

// Sync makes durable what files of Create were placed before, and everything
// else on the same file system.
func (d *Dir) Sync() error {
	return SyncTree(d.root.Name())
}

// SyncNames makes durable the names in folder, "." for the top. A process that
// finds a file there, and goes by it, cannot know whether the one that made it was
// killed before it could do so. A folder that is not there is no error.
func (d *Dir) SyncNames(folder string) error {
	if folder != "." {
		if err := checkName(folder); err != nil {
			return err
		}
	}
	root, err := d.root.OpenRoot(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot open the folder %s: %w", folder, err)
	}
	return errors.Join(syncRoot(root), root.Close())
}

// Remove removes name; a name that is not there is no error.
func (d *Dir) Remove(name string) error {
	folder, base, err := d.folder(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = folder.Close() }()
	return removeIn(folder, filepath.Dir(name), base)
}

// RemoveEach removes names of folder as Remove does, and makes that durable as a
// whole: a power cut in the middle may bring any of them back.
func (d *Dir) RemoveEach(folder string, names []string) error {
	for _, name := range names {
		if err := checkName(folder + "/" + name); err != nil {
			return err
		}
	}
	if len(names) == 0 {
		return nil
	}
	in, _, err := d.folder(folder+"/"+names[0], false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	return removeIn(in, folder, names...)
}

// removeIn removes files of an opened folder, whose name is path.
func removeIn(folder *os.Root, path string, names ...string) error {
	for _, base := range names {
		name := filepath.Join(path, base)
		err := step("remove", name, func() error { return folder.Remove(base) })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot remove %s: %w", name, err)
		}
	}
	return syncRoot(folder)
}

// List returns the names in folder, "." or "" for the top, sorted, without
// those that only this package uses; none when it is not there.
func (d *Dir) List(folder string) ([]string, error) {
	if folder == "" {
		folder = "."
	}
	if folder != "." {
		if err := checkName(folder); err != nil {
			return nil, err
		}
	}
	entries, err := fs.ReadDir(d.root.FS(), folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot list %s: %w", folder, err)
	}
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".pawl-") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// folder opens the folder that name lies in, and makes it when asked to.
func (d *Dir) folder(name string, create bool) (*os.Root, string, error) {
	if err := checkName(name); err != nil {
		return nil, "", err
	}
	dir, base, below := strings.Cut(name, "/")
	if !below {
		dir, base = ".", name
	}
	root, err := d.root.OpenRoot(dir)
	if create && errors.Is(err, fs.ErrNotExist) {
		if err := d.mkdir(dir); err != nil {
			return nil, "", err
		}
		root, err = d.root.OpenRoot(dir)
	}
	if err != nil {
		return nil, "", fmt.Errorf("cannot open the folder of %s: %w", name, err)
	}
	return root, base, nil
}

func (d *Dir) mkdir(name string) error {
	err := step("mkdir", name, func() error { return d.root.Mkdir(name, 0o700) })
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot make a folder: %w", err)
	}
	return syncRoot(d.root)
}

// checkName takes "name" and "folder/name", none of them hidden.
func checkName(name string) error {
	parts := strings.Split(name, "/")
	bad := func(p string) bool {
		return p == "" || p[0] == '.' || len(p) > 255 || strings.ContainsAny(p, "\x00\\")
	}
	if len(parts) > 2 || slices.ContainsFunc(parts, bad) {
		return fmt.Errorf("%w: %.80q", ErrName, name)
	}
	return nil
}
