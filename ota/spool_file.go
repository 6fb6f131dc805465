package ota

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"github.com/pawl-ota/pawl/internal/seam"
)

// A file of the spool starts with spoolMagic. Then come records: the number of
// their bytes, from 1 to spoolRecord, a CRC-32C of that number and the bytes
// (both of 32 bits, little endian), and the bytes. The first record that is not
// whole ends the file.
const (
	spoolMagic  = "pawl-spool/1\n"
	spoolRecord = 64 << 10
	spoolHeader = 8
	// spoolMark is how far apart the records are whose places are remembered.
	spoolMark = 256 << 10
)

var (
	errSpoolSync = errors.New("sync failed")
	errSpoolBad  = errors.New("a record is damaged")
)

// spoolFile is one file of the spool.
type spoolFile struct {
	name   string
	number uint64
	// offset and end are the range of the repository's file that it holds, and
	// size is its length up to there.
	offset, end, size int64
	marks             []spoolPlace // rising
}

// spoolPlace is where in a spool file a record is that holds the bytes from
// offset on.
type spoolPlace struct{ offset, at int64 }

// mark remembers the record that begins where the file ends now.
func (f *spoolFile) mark() {
	if n := len(f.marks); n == 0 || f.end-f.marks[n-1].offset >= spoolMark {
		f.marks = append(f.marks, spoolPlace{f.end, f.size})
	}
}

func spoolSum(length, data []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(length, table), table, data)
}

// scan finds out how much of the file is whole.
func (f *spoolFile) scan(dir seam.Dir) error {
	r, err := dir.Open(f.name)
	if err != nil {
		return err
	}
	f.end, f.size, f.marks = f.offset, 0, nil
	records := recordReader{r: bufio.NewReaderSize(r, spoolRecord+spoolHeader)}
	magic := make([]byte, len(spoolMagic))
	if _, err := io.ReadFull(records.r, magic); err != nil || string(magic) != spoolMagic {
		return errors.Join(errSpoolBad, r.Close())
	}
	f.size = int64(len(magic))
	for {
		data, err := records.next()
		if err != nil {
			break
		}
		f.mark()
		f.end += int64(len(data))
		f.size += spoolHeader + int64(len(data))
	}
	return r.Close()
}

// recordReader reads records one by one.
type recordReader struct {
	r   *bufio.Reader
	buf []byte
}

// next returns the bytes of the next record, which are valid until it is
// called again.
func (r *recordReader) next() ([]byte, error) {
	var head [spoolHeader]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n == 0 || n > spoolRecord {
		return nil, errSpoolBad
	}
	if uint32(cap(r.buf)) < n {
		r.buf = make([]byte, spoolRecord)
	}
	data := r.buf[:n]
	if _, err := io.ReadFull(r.r, data); err != nil {
		return nil, err
	}
	if spoolSum(head[:4], data) != binary.LittleEndian.Uint32(head[4:]) {
		return nil, errSpoolBad
	}
	return data, nil
}

// spoolReader reads the bytes of a spool file from one offset on, checking
// each record again.
type spoolReader struct {
	records recordReader
	close   func() error
	skip    int64 // of the next record
	left    int64 // bytes to give out
	data    []byte
}

// open reads length bytes of the repository's file at offset.
func (f *spoolFile) open(dir seam.Dir, offset, length int64) (*spoolReader, error) {
	r, err := dir.Open(f.name)
	if err != nil {
		return nil, err
	}
	i, found := slices.BinarySearchFunc(f.marks, offset, func(m spoolPlace, o int64) int { return int(min(max(m.offset-o, -1), 1)) })
	if !found {
		i--
	}
	at, ok := r.(io.ReaderAt)
	if i < 0 || !ok {
		return nil, errors.Join(errSpoolBad, r.Close())
	}
	m := f.marks[i]
	section := io.NewSectionReader(at, m.at, f.size-m.at)
	return &spoolReader{
		records: recordReader{r: bufio.NewReaderSize(section, 16<<10)},
		close:   r.Close, skip: offset - m.offset, left: length,
	}, nil
}

// Read implements [io.Reader]. Damage is errSpoolBad.
func (r *spoolReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	for len(r.data) == 0 {
		data, err := r.records.next()
		if err != nil {
			return 0, fmt.Errorf("%w: %w", errSpoolBad, err)
		}
		n := min(r.skip, int64(len(data)))
		r.skip -= n
		r.data = data[n:]
	}
	n := copy(p[:min(int64(len(p)), r.left)], r.data)
	r.data = r.data[n:]
	r.left -= int64(n)
	return n, nil
}

func (r *spoolReader) Close() error { return r.close() }

// spoolWriter adds to a range that ends where its file does.
type spoolWriter struct {
	r      *spooled
	log    seam.Log
	buf    []byte
	synced int64 // the offset up to which all is durable
}

func (w *spoolWriter) write(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), spoolRecord)
		if err := w.record(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	if w.r.to-w.synced < spoolSync {
		return nil
	}
	if err := w.log.Persist(); err != nil {
		return fmt.Errorf("%w: %w", errSpoolSync, err)
	}
	w.synced = w.r.to
	return nil
}

// record writes one record with one call, so that a process that is killed
// leaves it or not.
func (w *spoolWriter) record(p []byte) error {
	f := w.r.spoolFile
	w.buf = w.buf[:0]
	if f.size == 0 {
		w.buf = append(w.buf, spoolMagic...)
	}
	head := len(w.buf)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(len(p)))
	w.buf = binary.LittleEndian.AppendUint32(w.buf, spoolSum(w.buf[head:], p))
	w.buf = append(w.buf, p...)
	if _, err := w.log.Write(w.buf); err != nil {
		return err
	}
	f.size += int64(head)
	f.mark()
	f.size += int64(len(w.buf) - head)
	f.end += int64(len(p))
	w.r.to = f.end
	return nil
}

func (w *spoolWriter) Close() error { return w.log.Close() }
