//go:build linux

package micro

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// inPlaceFiles is the layout InPlace.
//
// Stage makes each new entry in a spool on the entry's own file system. The
// switch exchanges it with what has its name, so that the old entry lies where
// the new one was: what the spool holds says, entry by entry, on which side the
// device is, and is the backup. A small file, the mark, is exchanged last, both
// ways: it says which release the entries should be.
type inPlaceFiles struct {
	base

	mu    sync.Mutex
	seeds []*lender
}

// The formats of the records of this layout.
const (
	formatPlaced  = "pawl-micro-inplace/0"
	formatChanges = "pawl-micro-inplace-plan/0"
)

// volume is a mount that entries lie on.
type volume struct {
	Top   string `json:"top"`   // the folder where the mount begins
	Spool string `json:"spool"` // on that mount
	ID    at.ID  `json:"id"`    // of the spool
}

// Why a path is among the placed ones though no index lists it that way.
const (
	asImplied = "implied" // a folder above an entry, made for it
	asBeside  = "beside"  // the release's own version of an entry that was kept
	asKept    = "kept"    // a local change that stayed
)

// placed is one path that a release put on the device.
type placed struct {
	Path string `json:"p"`
	ID   at.ID  `json:"i,omitzero"` // zero where nothing is to be
	As   string `json:"as,omitempty"`
}

// inPlace is what one release put on the device.
type inPlace struct {
	Digest  release.Digest `json:"component,omitzero"`
	Index   release.Blob   `json:"index,omitzero"`
	Mark    at.ID          `json:"mark,omitzero"`
	Entries []placed       `json:"entries,omitempty"`
}

// stamp is what was found at a path.
type stamp struct {
	at.ID
	Size  int64 `json:"size"`
	Mtime int64 `json:"mtime"`
	Dir   bool  `json:"dir,omitempty"`
}

func stampOf(i at.Info) *stamp { return &stamp{i.ID, i.Size, i.Mtime, i.IsDir()} }

// is reports whether the inode is still as it was found. The times of a folder
// say nothing of the folder itself.
func (s *stamp) is(i at.Info) bool {
	return i.Like(s.ID) && (s.Dir || i.Size == s.Size && i.Mtime == s.Mtime)
}

// meta is the metadata of a folder.
type meta struct {
	Mode   uint32          `json:"mode"`
	UID    uint32          `json:"uid"`
	GID    uint32          `json:"gid"`
	Xattrs []release.Xattr `json:"xattrs,omitempty"`
}

func (m *meta) entry(p string) *release.Entry {
	return &release.Entry{Path: p, Type: release.Dir, Mode: m.Mode, UID: m.UID, GID: m.GID, Xattrs: m.Xattrs}
}

// entryChange is what happens to one path: an exchange, a new name, a name less, or
// new metadata of a folder that stays.
type entryChange struct {
	Path string `json:"path"`
	Vol  int    `json:"vol"`
	Old  *stamp `json:"old,omitempty"` // what is there; nil for nothing
	New  *at.ID `json:"new,omitempty"` // what will be; nil for nothing
	// OldMeta and NewMeta are set where only they change.
	OldMeta *meta `json:"oldMeta,omitempty"`
	NewMeta *meta `json:"newMeta,omitempty"`
	// Over is set where a local change since Stage is replaced too.
	Over bool `json:"over,omitempty"`
}

// folderTime is the time of a folder whose entries change.
type folderTime struct {
	Path  string `json:"path"`
	Mtime int64  `json:"mtime"`
}

// changes is a transaction: Stage records it when all is there, and Activate
// when the switch begins, as what Revert goes by.
type changes struct {
	New     inPlace       `json:"new"`
	Old     inPlace       `json:"old"` // without its entries
	Same    bool          `json:"same,omitempty"`
	Volumes []volume      `json:"volumes"`
	Changes []entryChange `json:"changes,omitempty"`
	Folders []folderTime  `json:"folders,omitempty"`
}

// nameInSpool is the name that the new entry has before the switch, and the
// old one after it.
func nameInSpool(p string) string {
	sum := sha256.Sum256([]byte(p))
	return hex.EncodeToString(sum[:16])
}

// dirContent holds, in a transaction's folder, what is exchanged.
const dirContent = "content"

// fileMark is the name of the mark in the spool and in a transaction's folder.
const fileMark = "mark"

// on returns the base whose spool is on v.
func (f *base) on(v volume) *base {
	b := *f
	b.opts.Spool = v.Spool
	return &b
}

// openRoot opens the root, which has to be there.
func (f *inPlaceFiles) openRoot() (*at.Tree, error) {
	tree, err := at.Open(f.opts.Root)
	if err != nil {
		return nil, fmt.Errorf("cannot use the root %s, which the in-place layout does not make: %w", f.opts.Root, err)
	}
	return tree, nil
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

// isSpool reports whether the entry p lies in one of our own folders.
func (f *inPlaceFiles) isSpool(p string) bool {
	full := filepath.Join(f.opts.Root, p)
	return inside(f.opts.Spool, full) || strings.Contains("/"+p+"/", "/.pawl."+f.opts.Name+"/")
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
		if info, err := at.Lstat(v.Spool); err != nil || !info.Like(v.ID) {
			return all, errors.Join(err, fmt.Errorf("%w: %s is not the spool that was there; is its file system mounted?", ErrForeign, v.Spool))
		}
		tree, err := at.Open(f.on(v).txPath(tx, dirContent))
		if errors.Is(err, os.ErrNotExist) {
			all = append(all, nil)
			continue
		}
		if err != nil {
			return all, err
		}
		all = append(all, &store{v, f.newWorker(ctx, tree)})
	}
	return all, nil
}

func closeStores(all []*store) {
	for _, s := range all {
		if s != nil {
			_ = s.tree.Close()
		}
	}
}

// prepareStores makes the spools and the folders of tx, and finds out whether
// names can be exchanged there. Which ones there are is written down first.
func (f *inPlaceFiles) prepareStores(ctx context.Context, tx ota.TxID, vols []volume) ([]*store, error) {
	for i := range vols {
		b := f.on(vols[i])
		if err := b.prepareSpool(string(tx)); err != nil {
			return nil, fmt.Errorf("cannot prepare the spool: %w", err)
		}
		if i == 0 {
			if err := f.writeRecord(f.txPath(tx, "volumes"), formatChanges, changes{Volumes: vols}); err != nil {
				return nil, err
			}
		}
		if err := b.prepareContent(tx); err != nil {
			return nil, err
		}
		info, err := at.Lstat(vols[i].Spool)
		if err != nil {
			return nil, err
		}
		vols[i].ID = info.ID
	}
	return f.openStores(ctx, tx, vols)
}

func (f *base) prepareContent(tx ota.TxID) error {
	if err := os.Mkdir(f.txPath(tx, dirContent), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return explain(err)
	}
	err := explain(probePair(f.path(tempPrefix+"probe"), f.txPath(tx, tempPrefix+"probe")))
	if errors.Is(err, durable.ErrNoExchange) {
		return fmt.Errorf("%w: the file system of %s cannot exchange names: %w", ErrNoExchange, f.path(), err)
	}
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return err
}
