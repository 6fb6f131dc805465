//go:build linux

package micro

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota/durable"
)

// prepare makes the spool and the folder of a transaction, and the folder that
// the root is in, which is on the same file system: the call that makes the
// tree durable makes them durable too.
func (f *treeFiles) prepare(tx string) error {
	if err := os.MkdirAll(filepath.Dir(f.opts.Root), 0o755); err != nil {
		return explain(err)
	}
	return f.prepareSpool(tx)
}

func (f *base) prepareSpool(tx string) error {
	if err := f.step("mkdir", f.txPath("x")); err != nil {
		return err
	}
	return placeSpool(f.path(), f.path(dirTx), f.path(dirKept), f.path(dirIndex), f.path(dirTrash), f.path(dirTx, tx))
}

// makeSpool makes folders of the spool durable.
func (f *base) makeSpool(dirs ...string) error {
	for _, dir := range dirs {
		// One that is there may be younger than the last power cut: the call
		// that makes the tree durable makes it durable too.
		if _, err := at.Lstat(dir); errors.Is(err, os.ErrNotExist) {
			if err := durable.MkdirAll(dir, 0o700); err != nil {
				return explain(err)
			}
		}
		if err := checkOwn(dir); err != nil {
			return err
		}
	}
	return nil
}

// placeSpool makes folders of the spool for Stage: the call that makes durable
// what that puts there does so for them.
func placeSpool(dirs ...string) error {
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return explain(err)
		}
		if err := checkOwn(dir); err != nil {
			return err
		}
	}
	return nil
}

// checkOwn refuses a spool that somebody else could change: what is in it gets
// the root's name.
func checkOwn(dir string) error {
	info, err := at.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() || info.Perm()&0o022 != 0 || info.UID != uint32(os.Geteuid()) {
		return fmt.Errorf("cannot use the spool: %s is not a folder that only this user can change", dir)
	}
	return nil
}

// probe finds out whether the exchange will be possible, with folders made for
// the purpose: one in the spool, one where the root is.
func (f *treeFiles) probe(root place) error {
	if err := f.probeRoot(root); err != nil {
		return err
	}
	a := f.path(tempPrefix + "probe")
	b := filepath.Join(filepath.Dir(f.opts.Root), tempPrefix+filepath.Base(f.opts.Root))
	err := probePair(a, b)
	switch err = explain(err); {
	case errors.Is(err, durable.ErrNoExchange) || errors.Is(err, unix.EXDEV):
		return fmt.Errorf("%w: %s and the spool %s cannot exchange names: %w", ErrLayout, f.opts.Root, f.opts.Spool, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return err
}

func probePair(a, b string) error {
	for _, dir := range []string{a, b} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	err := exchangeOnce(a, b)
	return errors.Join(err, os.Remove(a), os.Remove(b))
}

// exchangeOnce swaps two names that need not survive.
func exchangeOnce(a, b string) error {
	inA, err := os.Open(filepath.Dir(a))
	if err != nil {
		return err
	}
	defer inA.Close()
	inB, err := os.Open(filepath.Dir(b))
	if err != nil {
		return err
	}
	defer inB.Close()
	var batch durable.Batch
	err = batch.Swap(inA, filepath.Base(a), inB, filepath.Base(b))
	return errors.Join(err, batch.Close())
}

// probeRoot finds what stands against moving the root itself.
func (f *treeFiles) probeRoot(root place) error {
	if !root.there {
		return nil
	}
	parent, err := at.Lstat(filepath.Dir(f.opts.Root) + "/.")
	if err != nil {
		return err
	}
	switch {
	case root.info.MountRoot || !root.info.MountSaid && root.info.Dev != parent.Dev:
		return fmt.Errorf("%w: %s is a mount point", ErrLayout, f.opts.Root)
	case root.info.Locked:
		return fmt.Errorf("%w: %s is immutable or append-only", ErrReadOnly, f.opts.Root)
	}
	if err := unix.Faccessat(unix.AT_FDCWD, f.opts.Root, unix.W_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrReadOnly, f.opts.Root, err)
	}
	return f.probeOverlay(root)
}

// probeOverlay refuses a folder of a lower layer: the kernel gives it a new
// name only with redirect_dir. A tree that this package built is in the upper
// layer. Of others the layers tell, where they can be read.
func (f *treeFiles) probeOverlay(root place) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(f.opts.Root, &fs); err != nil {
		return fmt.Errorf("cannot look at the file system of %s: %w", f.opts.Root, err)
	}
	if int64(fs.Type) != unix.OVERLAYFS_SUPER_MAGIC {
		return nil
	}
	for _, k := range f.readState().Trees {
		if root.is(&k) {
			return nil
		}
	}
	return f.probeLayers()
}

func (f *treeFiles) probeLayers() error {
	real, err := filepath.EvalSymlinks(f.opts.Root)
	if err != nil {
		return err
	}
	point, options, err := overlayMount(real)
	if err != nil {
		return err
	}
	if slices.Contains(options, "redirect_dir=on") {
		return nil
	}
	rel, _ := strings.CutPrefix(strings.TrimPrefix(real, point), "/")
	known := false
	for _, o := range options {
		for layer := range strings.SplitSeq(lowerDirs(o), ":") {
			if layer == "" {
				continue
			}
			if _, err := os.Lstat(filepath.Join(layer, rel)); err == nil {
				return fmt.Errorf("%w: %s is a folder of a lower layer of an overlay", ErrLayout, f.opts.Root)
			}
			_, err := os.Lstat(layer)
			known = err == nil
		}
	}
	if !known {
		return fmt.Errorf("%w: %s is on an overlay whose layers cannot be read", ErrLayout, f.opts.Root)
	}
	return nil
}

// lowerDirs returns the folders of an option that names lower layers.
func lowerDirs(option string) string {
	for _, key := range []string{"lowerdir=", "lowerdir+=", "datadir+="} {
		if dirs, ok := strings.CutPrefix(option, key); ok {
			return dirs
		}
	}
	return ""
}

// overlayMount returns the mount point above path and the options of its file
// system.
func overlayMount(path string) (string, []string, error) {
	data, err := readFile("/proc/self/mountinfo", 16<<20)
	if err != nil {
		return "", nil, fmt.Errorf("cannot tell the layers of the overlay at %s: %w", path, err)
	}
	point, options := "", []string(nil)
	for line := range strings.Lines(string(data)) {
		before, after, ok := strings.Cut(line, " - ")
		b, a := strings.Fields(before), strings.Fields(after)
		if !ok || len(b) < 5 || len(a) < 3 || a[0] != "overlay" {
			continue
		}
		where := unescape(b[4])
		if inside(where, path) && len(where) >= len(point) {
			point, options = where, strings.Split(unescape(a[2]), ",")
		}
	}
	return point, options, nil
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
