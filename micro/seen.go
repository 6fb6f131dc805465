//go:build linux

package micro

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// seenSuffix ends, beside the index of a tree, the name of the file that says what
// the files of the tree were when Stage knew that their content, owner, mode and
// attributes are right.
const seenSuffix = ".seen"

func (f *base) seenPath(d release.Digest) string { return f.indexPath(d) + seenSuffix }

// seenFile is what an inode was then. Whatever is done to it gives it another
// time of change, and what a write gives it a program would have to set back: so
// a file that is what it was needs not be read again. What leaves no trace, like
// a bad block, is for Verify to find. The file of it has a checksum, and no need to
// be durable.
//
// The kernel's clock for these times stands still for a tick. What is written to
// within the tick of the look shows by its other time, if that was long past; and
// a file of the tree's own cannot be written to by others until [treeFiles.tick].
// A time of change that lies in the future was given by another clock.
//
// The kernel changes that time too when the file gets or loses a name. Such a
// file is read again, but for what [dropping] saw go. So all is after a revert.
type seenFile struct {
	ino          uint64
	mtime, ctime int64
}

const (
	// longPast tells a time from that of a look for certain, on every file system
	// that can exchange names.
	longPast = 2 * time.Second
	// oneTick is longer than that clock stands still.
	oneTick = 20 * time.Millisecond
)

// tick returns when the clock of the file system has gone on since Stage looked at
// the files of tx.
func (f *treeFiles) tick(ctx context.Context, tx ota.TxID) error {
	log, err := os.Stat(f.txPath(tx, "shared"))
	if err != nil {
		return err
	}
	left := oneTick - time.Since(log.ModTime())
	if left <= 0 {
		return nil
	}
	select {
	case <-time.After(min(left, oneTick)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// trusted reports whether a file that still is what s says was not written to since.
func (s *shared) trusted(now time.Time) bool {
	return s.Ctime <= now.UnixNano() && (s.Own || s.Ctime-s.Mtime > int64(longPast))
}

// readSeen returns what is known of the files of a tree by their places in its
// index, nil where that is nothing.
func (f *base) readSeen(d release.Digest, ix *release.Index) []seenFile {
	if ix == nil || d.IsZero() {
		return nil
	}
	now := time.Now()
	seen, err := readInodes(f.seenPath(d), ix, func(s *shared) bool { return s.trusted(now) })
	if err != nil {
		return nil
	}
	return seen
}

// readInodes reads what Stage wrote down of a tree with the index ix, by their
// places there, of those that are wanted.
func readInodes(path string, ix *release.Index, wanted func(*shared) bool) ([]seenFile, error) {
	seen := make([]seenFile, len(ix.Entries))
	err := eachFile(path, ix, func(i int, s *shared) error {
		if wanted(s) {
			seen[i] = seenFile{s.Ino, s.Mtime, s.Ctime}
		}
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

// keepSeen has what Stage wrote down of the tree of tx, which is of d, outlast the
// transaction. Where a file cannot have two names it does not: it saves work, no
// more. What makes the tree durable does so for it.
func (f *base) keepSeen(tx ota.TxID, d release.Digest) error {
	to := f.seenPath(d)
	if err := f.step("seen", to); err != nil {
		return err
	}
	temp := filepath.Join(filepath.Dir(to), tempPrefix+filepath.Base(to))
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	from, err := os.Open(f.txPath(tx))
	if err != nil {
		return err
	}
	err = linkLater(from, "shared", temp)
	if err = errors.Join(err, from.Close()); isLinkRefusal(err) {
		return nil
	}
	return cmp.Or(err, placeLater(temp, to))
}

// linkLater gives a file another name, and leaves it to a later sync.
func linkLater(dir *os.File, name, to string) error {
	in, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	return errors.Join(durable.LinkAt(dir, name, in, filepath.Base(to)), in.Close())
}
