package block

import (
	"bytes"
	"errors"
	"os"
)

const (
	pageSize   = 4096
	sectorSize = 512
)

type page [pageSize]byte

// Image is the content of a disk: its pages, nil where only zeros are. Pages
// are never changed, but replaced, so that a Clone shares them.
type Image struct {
	pages []*page
}

// NewImage returns a disk of size bytes, full of zeros. The size is rounded up
// to whole pages of 4096 bytes.
func NewImage(size int64) *Image {
	return &Image{pages: make([]*page, (size+pageSize-1)/pageSize)}
}

// Size returns the length of the disk in bytes.
func (m *Image) Size() int64 { return int64(len(m.pages)) * pageSize }

// Clone returns a disk with the same content, that changes for itself.
func (m *Image) Clone() *Image {
	return &Image{pages: append([]*page(nil), m.pages...)}
}

// Read fills b with what is at the offset off; beyond the end are zeros.
func (m *Image) Read(b []byte, off int64) {
	for len(b) > 0 {
		n := min(len(b), int(pageSize-off%pageSize))
		if p := m.page(off); p != nil {
			copy(b[:n], p[off%pageSize:])
		} else {
			clear(b[:n])
		}
		b, off = b[n:], off+int64(n)
	}
}

func (m *Image) page(off int64) *page {
	if i := off / pageSize; i < int64(len(m.pages)) {
		return m.pages[i]
	}
	return nil
}

// Write puts b at the offset off; what is beyond the end is dropped.
func (m *Image) Write(b []byte, off int64) {
	for len(b) > 0 && off < m.Size() {
		n := min(len(b), int(pageSize-off%pageSize))
		p := new(page)
		if old := m.page(off); old != nil && n < pageSize {
			*p = *old
		}
		copy(p[off%pageSize:], b[:n])
		if bytes.Equal(p[:], zeroPage[:]) {
			p = nil
		}
		m.pages[off/pageSize] = p
		b, off = b[n:], off+int64(n)
	}
}

var zeroPage = page{}

// Zero puts length zeros at the offset off.
func (m *Image) Zero(off, length int64) {
	for length > 0 {
		n := min(length, pageSize-off%pageSize)
		m.Write(zeroPage[:n], off)
		off, length = off+n, length-n
	}
}

// WriteFile writes the disk into the file path, with holes where zeros are.
func (m *Image) WriteFile(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = m.runs(1, func(first int, pages []*page) error {
		_, err := f.WriteAt(pages[0][:], int64(first)*pageSize)
		return err
	})
	return errors.Join(err, f.Truncate(m.Size()), f.Close())
}

// runs calls f for each run of at most most pages that are not all zeros.
func (m *Image) runs(most int, f func(first int, pages []*page) error) error {
	for i := 0; i < len(m.pages); {
		if m.pages[i] == nil {
			i++
			continue
		}
		end := i + 1
		for end < len(m.pages) && m.pages[end] != nil && end-i < most {
			end++
		}
		if err := f(i, m.pages[i:end]); err != nil {
			return err
		}
		i = end
	}
	return nil
}
