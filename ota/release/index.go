package release

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// IndexFormat is the word that the index of a component of kind "files" starts
// with.
const IndexFormat = "pawl-index/1"

// EntryType says what an entry is. It is stored as its word.
type EntryType string

// The values of [EntryType].
const (
	File    EntryType = "f"
	Dir     EntryType = "d"
	Symlink EntryType = "l"
	// Carry is a path that belongs to the app: what is there, file or folder,
	// is carried over from tree to tree. No field but Path is set.
	Carry EntryType = "c"
	// Absent is a path that has to be free, whatever was there before. No
	// field but Path is set.
	Absent EntryType = "a"
)

// Entry is one path of a tree.
type Entry struct {
	// Path is relative to the root of the component, clean, with '/' between
	// names, and UTF-8. The root itself is ".".
	Path   string
	Type   EntryType
	Mode   uint32 // permission, setuid, setgid and sticky bits as in chmod(2); means nothing for a Symlink
	UID    uint32
	GID    uint32
	Blob          // content of a File
	Target string // of a Symlink: data, which need not resolve to anything
	Xattrs []Xattr
}

// Xattr is one extended attribute.
type Xattr struct {
	Name  string `json:"n"`
	Value []byte `json:"v,omitempty"`
}

// Index lists the entries of a component of kind "files": the root first, if it
// is listed, the others sorted by the bytes of their path. An index that lists
// a whole tree ([Index.Whole]) begins with the root and has every folder. One
// that leaves folders out says nothing of them but that they are folders.
//
// Its file is a line of JSON with the format and the number of entries, then
// one line of JSON per entry. There is one file for one index.
type Index struct {
	Entries []Entry
}

type indexHead struct {
	Format  string `json:"format"`
	Entries int    `json:"entries"`
}

// wireEntry is an Entry as its line holds it.
type wireEntry struct {
	Path   string    `json:"p"`
	Type   EntryType `json:"t"`
	Mode   octal     `json:"m,omitempty"`
	UID    uint32    `json:"u,omitempty"`
	GID    uint32    `json:"g,omitempty"`
	Digest *Digest   `json:"d,omitempty"`
	Size   int64     `json:"s,omitempty"`
	Target string    `json:"l,omitempty"`
	Xattrs []Xattr   `json:"x,omitempty"`
}

// octal is a file mode, written as people read it.
type octal uint32

func (o octal) MarshalText() ([]byte, error) {
	return strconv.AppendUint(nil, uint64(o), 8), nil
}

func (o *octal) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 8, 12)
	*o = octal(n)
	return err
}

// maxLine holds the longest entry that can be valid, escapes included.
const maxLine = 1 << 20

// ReadIndex reads an index of at most maxEntries entries (0: [MaxEntries]),
// line by line. Only what [Index.Encode] writes is taken; errors wrap
// [ErrInvalid] or [ErrFormat] and name the line. r has to end with the index.
func ReadIndex(r io.Reader, maxEntries int) (*Index, error) {
	if maxEntries <= 0 || maxEntries > MaxEntries {
		maxEntries = MaxEntries
	}
	lines := bufio.NewReaderSize(r, 64<<10)
	n, err := readIndexHead(lines, maxEntries)
	if err != nil {
		return nil, fmt.Errorf("cannot read index: line 1: %w", err)
	}
	ix := &Index{}
	var long, canonical []byte
	for i := range n {
		line, err := readLine(lines, &long)
		if err == nil {
			ix.Entries = grow(ix.Entries, n)
			ix.Entries = append(ix.Entries, Entry{})
			canonical, err = ix.Entries[i].parse(line, canonical)
		}
		if err == nil {
			err = ix.check(i)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read index: line %d: %w", i+2, err)
		}
	}
	if _, err := lines.ReadByte(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = fmt.Errorf("%w: more than %d entries", ErrInvalid, n)
		}
		return nil, fmt.Errorf("cannot read index: %w", err)
	}
	return ix, nil
}

// grow makes room for one more of n entries, doubling what lines have paid
// for: a header that promises much costs nothing.
func grow(entries []Entry, n int) []Entry {
	if len(entries) < cap(entries) {
		return entries
	}
	bigger := make([]Entry, len(entries), min(n, max(64, 2*len(entries))))
	copy(bigger, entries)
	return bigger
}

func readIndexHead(lines *bufio.Reader, maxEntries int) (int, error) {
	var long []byte
	line, err := readLine(lines, &long)
	if err != nil {
		return 0, err
	}
	var head indexHead
	if err := decode(line, maxLine, IndexFormat, &head); err != nil {
		return 0, err
	}
	if head.Entries < 1 || head.Entries > maxEntries {
		return 0, fmt.Errorf("%w: %d entries; 1 to %d are allowed", ErrInvalid, head.Entries, maxEntries)
	}
	return head.Entries, sameBytes(line, head)
}

// readLine returns the next line with its end. The line is valid until the
// next call; long is used for one that does not fit the reader's buffer.
func readLine(lines *bufio.Reader, long *[]byte) ([]byte, error) {
	line, err := lines.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		*long = append((*long)[:0], line...)
		for errors.Is(err, bufio.ErrBufferFull) && len(*long) <= maxLine {
			line, err = lines.ReadSlice('\n')
			*long = append(*long, line...)
		}
		line = *long
	}
	switch {
	case len(line) > maxLine:
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrInvalid, maxLine)
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: %w", ErrInvalid, io.ErrUnexpectedEOF)
	}
	return line, err
}

// parse reads one line. It returns buf, which it uses to compare the line
// with its canonical form: that finds unknown keys and those that stand twice.
func (e *Entry) parse(line, buf []byte) ([]byte, error) {
	if e.plainLine(line) {
		return buf, nil
	}
	return e.parseLong(line, buf)
}

// parseLong is parse for any line.
func (e *Entry) parseLong(line, buf []byte) ([]byte, error) {
	var w wireEntry
	if err := json.Unmarshal(line, &w); err != nil {
		return buf, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	*e = Entry{Path: w.Path, Type: w.Type.intern(), Mode: uint32(w.Mode), UID: w.UID, GID: w.GID, Target: w.Target, Xattrs: w.Xattrs}
	e.Size = w.Size
	if w.Digest != nil {
		e.Digest = *w.Digest
	}
	buf, err := e.appendLine(buf[:0])
	if err == nil && !bytes.Equal(line, buf) {
		err = fmt.Errorf("%w: not in canonical form", ErrInvalid)
	}
	return buf, err
}

// intern returns the constant, so that an entry does not keep a text alive.
func (t EntryType) intern() EntryType {
	for _, known := range []EntryType{File, Dir, Symlink, Carry, Absent} {
		if t == known {
			return known
		}
	}
	return t
}

func (e *Entry) appendLine(b []byte) ([]byte, error) {
	w := wireEntry{Path: e.Path, Type: e.Type, Mode: octal(e.Mode), UID: e.UID, GID: e.GID, Size: e.Size, Target: e.Target, Xattrs: e.Xattrs}
	if !e.Digest.IsZero() {
		w.Digest = &e.Digest
	}
	line, err := json.Marshal(w)
	if err != nil {
		return b, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return append(append(b, line...), '\n'), nil
}

// Encode checks ix and writes its file.
func (ix *Index) Encode(w io.Writer) error {
	if err := ix.Validate(); err != nil {
		return err
	}
	buf := bufio.NewWriterSize(w, 64<<10)
	line, err := encode(indexHead{IndexFormat, len(ix.Entries)})
	if err != nil {
		return err
	}
	if _, err := buf.Write(line); err != nil {
		return err
	}
	for i := range ix.Entries {
		if line, err = ix.Entries[i].appendLine(line[:0]); err != nil {
			return err
		}
		if _, err := buf.Write(line); err != nil {
			return err
		}
	}
	return buf.Flush()
}

// Blobs returns the content of all files, each blob once, in the order of
// their paths.
func (ix *Index) Blobs() []Blob {
	seen := make(map[Digest]bool, len(ix.Entries))
	blobs := make([]Blob, 0, len(ix.Entries))
	for i := range ix.Entries {
		e := &ix.Entries[i]
		if e.Type == File && !seen[e.Digest] {
			seen[e.Digest] = true
			blobs = append(blobs, e.Blob)
		}
	}
	return blobs
}
