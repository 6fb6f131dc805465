//go:build linux

package micro

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota/release"
)

// inPlaceFiles is the layout InPlace.
//
// Stage makes each new entry in a spool on the entry's own file system. The
// switch exchanges it with what has its name, so that the old entry lies where
// the new one was: what the spool holds says, entry by entry, on which side the
// device is, and is the backup. A small file, the mark, is exchanged last, both
// ways: it says which release the entries should be.
//
// Where a kernel or a file system cannot exchange names, or where inode numbers
// do not last, Stage has the old entry kept in the spool under a name of its
// own beside the new one, as a second name of the same file or else as a copy,
// and the new one is renamed over it: see [byReplace] for what is weaker then.
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

// is reports whether the inode is still as it was found on v. The times of a
// folder say nothing of the folder itself.
func (s *stamp) is(i at.Info, v volume) bool {
	return (v.Loose || i.Like(s.ID)) && s.Dir == i.IsDir() && (s.Dir || i.Size == s.Size && i.Mtime == s.Mtime)
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
	// Away is set where the old entry has to leave before the new one can
	// come, so that for a moment nothing has the name.
	Away bool `json:"away,omitempty"`
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

// nameInSpool is the name that the new entry has before the switch, and where
// names are exchanged the old one after it.
func nameInSpool(p string) string {
	sum := sha256.Sum256([]byte(p))
	return hex.EncodeToString(sum[:16])
}

// dirContent holds, in a transaction's folder, what is exchanged.
const dirContent = "content"

// fileMark is the name of the mark in the spool and in a transaction's folder.
const fileMark = "mark"

// openRoot opens the root, which has to be there.
func (f *inPlaceFiles) openRoot() (*at.Tree, error) {
	tree, err := at.Open(f.opts.Root)
	if err != nil {
		return nil, fmt.Errorf("cannot use the root %s, which the in-place layout does not make: %w", f.opts.Root, err)
	}
	return tree, nil
}

// isSpool reports whether the entry p lies in one of our own folders.
func (f *inPlaceFiles) isSpool(p string) bool {
	full := filepath.Join(f.opts.Root, p)
	return inside(f.opts.Spool, full) || strings.Contains("/"+p+"/", "/.pawl."+f.opts.Name+"/")
}
