//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// volume is a mount that entries lie on.
type volume struct {
	Top   string `json:"top"`   // the folder where the mount begins
	Spool string `json:"spool"` // on that mount
	ID    at.ID  `json:"id"`    // of the spool
	By    way    `json:"by,omitempty"`
	// Loose is set where inode numbers do not last: FAT, most of FUSE. What is
	// there is told by names, sizes and times then.
	Loose bool `json:"loose,omitempty"`
}

// way is how the entries of a volume are switched. It is stored as its word.
type way string

const (
	// byExchange is one call per entry: no name is ever missing, and each is
	// the old one or the new one.
	byExchange way = ""
	// byReplace is for kernels and file systems that cannot exchange names, and
	// where inode numbers do not last. Stage gives the old file a second name
	// in the spool, or makes a copy of it where it cannot have one (the budget
	// counts copies where it can know), and the switch renames the new one over
	// it, so that a file never lacks its name. It is weaker in this:
	//
	//   - Where a folder takes the place of something else, or something else
	//     that of a folder, nothing has the name between two renames. A power
	//     cut there leaves it so until Resume.
	//   - Where the file is a copy, a Revert brings back content, metadata and
	//     times, but another inode: a second name that it had is another file
	//     then.
	//   - On FAT no rename is safe from a power cut: what the file system itself
	//     loses then is lost.
	//   - Where inode numbers do not last, a local change that keeps size and
	//     time is not noticed between Stage and Activate.
	byReplace way = "replace"
)

// modeFits reports whether a mode that the file system gives to all its files
// will do for e: nobody else may read or write more than e lets them, and what e
// lets anybody read or start can be.
func modeFits(tree *at.Tree, p string, info at.Info, e *release.Entry) bool {
	wider, less := info.Perm()&^e.Mode&0o066, e.Mode&^info.Perm()&0o555
	if wider|less|e.Mode&0o7000 != 0 {
		return false
	}
	dir, _, err := tree.Parent(p)
	return err == nil && isLoose(dir)
}

// suffixOld ends the name of the old entry in the spool of such a volume.
const suffixOld = ".old"

// oldName is the name that the old entry has in the spool.
func (v volume) oldName(p string) string {
	if v.By == byExchange {
		return nameInSpool(p)
	}
	return nameInSpool(p) + suffixOld
}

// isLoose reports whether inode numbers last on the file system of an opened
// folder.
func isLoose(dir *os.File) bool {
	var fs unix.Statfs_t
	info, err := at.StatFile(dir)
	if err != nil || unix.Fstatfs(int(dir.Fd()), &fs) != nil {
		return false
	}
	switch uint32(fs.Type) {
	case unix.MSDOS_SUPER_MAGIC, unix.EXFAT_SUPER_MAGIC:
		return true
	case unix.FUSE_SUPER_MAGIC:
		return info.Birth == 0
	}
	return false
}

// on returns the base whose spool is on v.
func (f *base) on(v volume) *base {
	b := *f
	b.opts.Spool = v.Spool
	return &b
}

// volumes finds out which mount a folder is on.
type volumes struct {
	f     *inPlaceFiles
	all   []volume
	seen  map[string]int // by path
	needs []ota.Need
}

// newVolumes begins with the mount of the spool itself.
func (f *inPlaceFiles) newVolumes() (*volumes, error) {
	vs := &volumes{f: f, seen: map[string]int{}}
	above, err := existing(f.opts.Spool)
	if err != nil {
		return nil, err
	}
	top, err := mountTop(above)
	vs.all = []volume{{Top: top, Spool: f.opts.Spool}}
	return vs, err
}

// existing returns the nearest folder at or above dir that is there, without
// symbolic links.
func existing(dir string) (string, error) {
	for {
		real, err := filepath.EvalSymlinks(dir)
		if !errors.Is(err, os.ErrNotExist) || dir == "/" {
			return real, err
		}
		dir = filepath.Dir(dir)
	}
}

// mountTop returns where the mount of dir begins.
func mountTop(dir string) (string, error) {
	info, err := at.Lstat(dir)
	for err == nil && dir != "/" && !info.MountRoot {
		var up at.Info
		if up, err = at.Lstat(filepath.Dir(dir)); err != nil {
			break
		}
		if !info.MountSaid && up.Dev != info.Dev {
			break
		}
		dir, info = filepath.Dir(dir), up
	}
	return dir, err
}

// of returns the number of the volume that entries of the folder rel lie on.
// Where the folder is still to be made, that of the nearest one above counts.
func (vs *volumes) of(tree *at.Tree, rel string) (int, error) {
	if n, ok := vs.seen[rel]; ok {
		return n, nil
	}
	info, err := tree.Stat(rel)
	if rel != "." && (isGone(err) || err == nil && !info.IsDir()) {
		return vs.of(tree, path.Dir(rel))
	}
	if err != nil {
		return 0, err
	}
	real, err := filepath.EvalSymlinks(tree.Name(rel))
	if err != nil {
		return 0, err
	}
	top, err := mountTop(real)
	if err != nil {
		return 0, err
	}
	vs.seen[rel] = vs.add(top)
	return vs.seen[rel], nil
}

func (vs *volumes) add(top string) int {
	for i, v := range vs.all {
		if v.Top == top {
			return i
		}
	}
	vs.all = append(vs.all, volume{Top: top, Spool: filepath.Join(top, ".pawl."+vs.f.opts.Name)})
	return len(vs.all) - 1
}

// store is the folder on one volume that holds what is exchanged.
type store struct {
	vol volume
	*worker
}

// openStores opens the folders of tx. One that is not there is nil.
func (f *inPlaceFiles) openStores(ctx context.Context, tx ota.TxID, vols []volume) ([]*store, error) {
	var all []*store
	for _, v := range vols {
		info, err := at.Lstat(v.Spool)
		if err != nil || !v.Loose && !info.Like(v.ID) {
			return all, errors.Join(err, notMounted(v))
		}
		tree, err := at.Open(f.on(v).txPath(tx, dirContent))
		switch {
		case errors.Is(err, os.ErrNotExist) && v.Loose:
			return all, notMounted(v)
		case errors.Is(err, os.ErrNotExist):
			all = append(all, nil)
		case err != nil:
			return all, err
		default:
			all = append(all, &store{v, f.newWorker(ctx, tree)})
		}
	}
	return all, nil
}

func notMounted(v volume) error {
	return fmt.Errorf("%w: %s is not the spool that was there; is its file system mounted?", ErrForeign, v.Spool)
}

func closeStores(all []*store) {
	for _, s := range all {
		if s != nil {
			_ = s.tree.Close()
		}
	}
}

// prepareStores makes the spools and the folders of tx, and finds out how names
// can be switched there. Which ones there are is written down first, where
// there are others than that of the records.
func (f *inPlaceFiles) prepareStores(ctx context.Context, tx ota.TxID, vols []volume) ([]*store, error) {
	var all []*store
	for i := range vols {
		b := f.on(vols[i])
		if i > 0 {
			if err := b.prepareSpool(string(tx)); err != nil {
				return all, fmt.Errorf("cannot prepare the spool: %w", err)
			}
		} else if err := f.writeVolumes(tx, vols); err != nil {
			return all, err
		}
		s, err := b.prepareContent(ctx, tx, &vols[i])
		if s != nil {
			all = append(all, s)
		}
		if err == nil && i == 0 && s.vol.Loose {
			err = fmt.Errorf("%w: inode numbers do not last on the file system of the spool %s; put it on another with the option Spool", ErrNoExchange, f.path())
		}
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// writeVolumes writes down which spools tx uses.
func (f *inPlaceFiles) writeVolumes(tx ota.TxID, vols []volume) error {
	if len(vols) == 1 {
		return nil
	}
	if err := durable.SyncDir(f.path(dirTx)); err != nil {
		return err
	}
	return f.writeRecord(f.txPath(tx, "volumes"), formatChanges, changes{Volumes: vols})
}

// prepareContent makes the store of tx on v, and fills in what v is.
func (f *base) prepareContent(ctx context.Context, tx ota.TxID, v *volume) (*store, error) {
	if err := os.Mkdir(f.txPath(tx, dirContent), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, explain(err)
	}
	info, err := at.Lstat(v.Spool)
	if err != nil {
		return nil, err
	}
	tree, err := at.Open(f.txPath(tx, dirContent))
	if err != nil {
		return nil, err
	}
	v.ID = info.ID
	err = f.probeWay(tree, v)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) {
		err = fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return &store{*v, f.newWorker(ctx, tree)}, explain(err)
}

// probeWay finds out how names can be switched in the folder that tree is, with
// two files made for the purpose.
func (f *base) probeWay(tree *at.Tree, v *volume) error {
	dir, _, err := tree.Parent(tempPrefix)
	if err != nil {
		return err
	}
	a, b := tempPrefix+"probe-a", tempPrefix+"probe-b"
	for _, name := range []string{a, b} {
		file, err := tree.Create(name)
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if err == nil {
			_ = file.Close()
		}
	}
	var batch durable.Batch
	err = batch.Swap(dir, a, dir, b)
	if err == nil && f.cannot != nil {
		err = f.cannot("exchange")
	}
	v.By, v.Loose = byExchange, isLoose(dir)
	if errors.Is(err, durable.ErrNoExchange) || v.Loose {
		v.By, err = byReplace, nil
	}
	return errors.Join(err, batch.Close(), tree.Unlink(a), tree.Unlink(b))
}

// moveOwn renames within the spool to a name that is free. Not every file system
// can be asked to look whether it is.
func (f *base) moveOwn(from, to string) error {
	err := durable.RenameNew(from, to)
	if !isErrno(err, unix.EINVAL, unix.ENOSYS) {
		return err
	}
	if there, err := look(to); err != nil || there.there {
		return errors.Join(err, fmt.Errorf("cannot rename %s to %s: %w", from, to, os.ErrExist))
	}
	return durable.Rename(from, to)
}
