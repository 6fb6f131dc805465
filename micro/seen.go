//go:build linux

package micro

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// dirSeen holds, by component digest, what the files of a tree were when Stage
// knew that their content, owner, mode and attributes are right.
const dirSeen = "seen"

// seenFile is what an inode was then. Whatever is done to it gives it another
// time of change, and what a write gives it a program would have to set back: so
// a file that is what it was needs not be read again. What leaves no trace, like
// a bad block, is for Verify to find.
//
// The kernel changes that time too when the file gets or loses a name. Such a
// file is read again.
type seenFile struct {
	ino          uint64
	mtime, ctime int64
}

// readSeen returns what is known of the files of a tree by their places in its
// index, nil where that is nothing.
func (f *base) readSeen(d release.Digest, ix *release.Index) []seenFile {
	if ix == nil || d.IsZero() {
		return nil
	}
	seen, err := readInodes(f.path(dirSeen, d.String()), ix)
	if err != nil {
		return nil
	}
	return seen
}

// readInodes reads what Stage wrote down of a tree with the index ix, by their
// places there.
func readInodes(path string, ix *release.Index) ([]seenFile, error) {
	seen := make([]seenFile, len(ix.Entries))
	err := eachFile(path, ix, func(i int, s *shared) error {
		seen[i] = seenFile{s.Ino, s.Mtime, s.Ctime}
		return nil
	})
	return seen, err
}

// is reports whether the inode was not touched since.
func (s seenFile) is(info at.Info) bool {
	return info.IsFile() && s == seenFile{info.Ino, info.Mtime, info.Ctime}
}

// vouches reports whether the file i of the source is right as it is there: it
// is what it was when that was known, and what it was is what e wants.
func (s *source) vouches(i int, info at.Info, e *release.Entry) bool {
	if s.seen == nil || !s.seen[i].is(info) {
		return false
	}
	was := &s.ix.Entries[i]
	return was.Blob == e.Blob && info.Size == was.Size && at.SameXattrs(was.Xattrs, e.Xattrs)
}

// keepSeen has what Stage wrote down of the tree of tx outlast the transaction.
// It saves work, so that nothing waits until it is durable.
func (f *treeFiles) keepSeen(from string, d release.Digest) error {
	to := f.path(dirSeen, d.String())
	if err := f.step("seen", to); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Dir(to), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := moveLater(from, to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// moveLater gives a file of the spool another name, and leaves it to a later
// sync.
func moveLater(from, to string) error {
	var b durable.Batch
	a, err := os.Open(filepath.Dir(from))
	if err != nil {
		return err
	}
	defer a.Close()
	z, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer z.Close()
	return errors.Join(b.Replace(a, filepath.Base(from), z, filepath.Base(to)), b.Close())
}
