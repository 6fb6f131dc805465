//go:build linux

package micro

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"sync"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota/release"
)

// shared is a file of the new tree, and what its inode was when its content was
// known to be right. But for its Own it is the same inode as a file of the root
// or of a kept tree.
type shared struct {
	New   string
	Old   string // in the root; empty where it is of a kept tree
	Own   bool   // only the new tree has it
	Ino   uint64
	Size  int64
	Mtime int64
	Ctime int64
}

// is reports whether the inode was not touched since.
func (s *shared) is(info at.Info) bool {
	return info.IsFile() && s.Ino == info.Ino && s.Size == info.Size && s.Mtime == info.Mtime && s.Ctime == info.Ctime
}

// sharedLog writes the files of a tree down. It becomes durable with the tree.
// Several goroutines may add to it.
//
// There are as many of them as the tree has files, so that a record is short:
// a byte that says where Old is, then numbers as varints, each less that of the
// record before: the place of New in the index, inode, size, and the two times;
// then, for an Old of another name than New, its length and itself. The byte 0
// is the end; behind it is the CRC-32C of all of this, in 32 bits, little endian.
type sharedLog struct {
	mu   sync.Mutex
	file *os.File
	sum  hash.Hash32
	buf  *bufio.Writer
	last sharedNumbers
}

// sharedNumbers are the numbers of a record.
type sharedNumbers [5]int64

// Where Old is.
const (
	sharedEnd    = iota
	sharedSame   // it is New
	sharedNone   // not in the root
	sharedOther  // it follows
	sharedOwn    // nowhere: the file is shared with no tree
	sharedBuffer = 64 << 10
)

func createSharedLog(path string) (*sharedLog, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	sum := newSharedSum()
	return &sharedLog{file: file, sum: sum, buf: bufio.NewWriterSize(io.MultiWriter(file, sum), sharedBuffer)}, nil
}

func newSharedSum() hash.Hash32 { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }

// add writes down s, whose New is the entry i of the index.
func (l *sharedLog) add(i int, s shared) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := byte(sharedOther)
	switch {
	case s.Own:
		old = sharedOwn
	case s.Old == s.New:
		old = sharedSame
	case s.Old == "":
		old = sharedNone
	}
	now := sharedNumbers{int64(i), int64(s.Ino), s.Size, s.Mtime, s.Ctime}
	line := append(make([]byte, 0, 128), old)
	for k, n := range now {
		line = binary.AppendVarint(line, n-l.last[k])
	}
	l.last = now
	if old == sharedOther {
		line = append(binary.AppendUvarint(line, uint64(len(s.Old))), s.Old...)
	}
	_, err := l.buf.Write(line)
	return err
}

func (l *sharedLog) close() error {
	err := cmp.Or(l.buf.WriteByte(sharedEnd), l.buf.Flush())
	if err == nil {
		_, err = l.file.Write(binary.LittleEndian.AppendUint32(nil, l.sum.Sum32()))
	}
	return errors.Join(err, l.file.Close())
}

// eachShared calls use for every file that a tree with the index ix shares, as
// Stage wrote them down.
func eachShared(path string, ix *release.Index, use func(*shared) error) error {
	return eachFile(path, ix, func(_ int, s *shared) error {
		if s.Own {
			return nil
		}
		return use(s)
	})
}

// eachFile calls use for every file that Stage wrote down of a tree with the
// index ix, and says which entry it is. Only when it returns no error is it
// certain that these were right.
func eachFile(path string, ix *release.Index, use func(int, *shared) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	sum := newSharedSum()
	in := sharedReader{r: bufio.NewReader(io.TeeReader(file, sum)), sum: sum, ix: ix}
	for err == nil {
		var s *shared
		if s, err = in.next(); err != nil {
			err = fmt.Errorf("cannot read %s: %w: %w", path, errDamaged, err)
		} else if s == nil {
			break
		} else {
			err = use(int(in.last[0]), s)
		}
	}
	return errors.Join(err, file.Close())
}

// sharedReader reads what a sharedLog wrote.
type sharedReader struct {
	r    *bufio.Reader
	sum  hash.Hash32 // of all that r has read from the file
	ix   *release.Index
	last sharedNumbers
}

// next returns nil at the end.
func (in *sharedReader) next() (*shared, error) {
	old, err := in.r.ReadByte()
	if err == nil && old == sharedEnd {
		err = in.end()
	}
	if err != nil || old == sharedEnd {
		return nil, err
	}
	for k := range in.last {
		n, err := binary.ReadVarint(in.r)
		if err != nil {
			return nil, err
		}
		in.last[k] += n
	}
	i := in.last[0]
	if i < 0 || i >= int64(len(in.ix.Entries)) || old > sharedOwn {
		return nil, errors.New("a number is out of range")
	}
	p := in.ix.Entries[i].Path
	s := &shared{New: p, Own: old == sharedOwn, Ino: uint64(in.last[1]), Size: in.last[2], Mtime: in.last[3], Ctime: in.last[4]}
	switch old {
	case sharedSame:
		s.Old = p
	case sharedOther:
		s.Old, err = in.name()
	}
	return s, err
}

// end checks what is behind the last record. The CRC of anything with its own CRC
// behind it is that of an empty one with its own.
func (in *sharedReader) end() error {
	n, err := io.Copy(io.Discard, in.r)
	empty := newSharedSum()
	_, _ = empty.Write(make([]byte, empty.Size()))
	if err == nil && (n != int64(empty.Size()) || in.sum.Sum32() != empty.Sum32()) {
		err = errors.New("its checksum is wrong")
	}
	return err
}

func (in *sharedReader) name() (string, error) {
	n, err := binary.ReadUvarint(in.r)
	if err != nil {
		return "", err
	}
	if n == 0 || n > release.MaxPath {
		return "", errors.New("a path is too long")
	}
	name := make([]byte, n)
	_, err = io.ReadFull(in.r, name)
	return string(name), err
}
