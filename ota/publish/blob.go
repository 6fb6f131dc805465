package publish

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/pawl-ota/pawl/internal/codec"
	"github.com/pawl-ota/pawl/ota/release"
)

var errBlob = errors.New("the stored content is not what was signed")

// table reads the table of a locator.
func (d *disk) table(l *release.Locator) (*release.Table, error) {
	data, err := d.readFile(release.TableName(l.Table.Digest), release.MaxTable)
	if err != nil {
		return nil, err
	}
	return release.ParseTable(data, l)
}

// openBlob opens a blob of the release whose table t is. The reader ends in an
// error where what is there is not b.
func (d *disk) openBlob(b release.Blob, t *release.Table) (io.ReadCloser, error) {
	pieces, ok := t.Pieces(b)
	if !ok {
		return nil, fmt.Errorf("blob %s is in no pack", b.Digest.Short())
	}
	return d.openPieces(b, pieces), nil
}

func (d *disk) openPieces(b release.Blob, pieces []release.Piece) io.ReadCloser {
	return check(&pieceReader{disk: d, rest: pieces, single: len(pieces) == 1}, b)
}

// readBlob reads a blob into memory.
func (d *disk) readBlob(b release.Blob, t *release.Table) ([]byte, error) {
	r, err := d.openBlob(b, t)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// openPlace opens what lies at p. from is what a patch starts from.
func (d *disk) openPlace(p release.Place, from []byte) (io.ReadCloser, error) {
	f, err := os.Open(d.path(p.Pack))
	if err != nil {
		return nil, err
	}
	r, err := codec.NewReader(p.Codec, io.NewSectionReader(f, p.Offset, p.Length), from)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &opened{r, f}, nil
}

type opened struct {
	io.ReadCloser
	f *os.File
}

func (o *opened) Close() error { return errors.Join(o.ReadCloser.Close(), o.f.Close()) }

// pieceReader reads the pieces of a blob one after the other. Where there are
// several it compares each with its sum.
type pieceReader struct {
	disk   *disk
	rest   []release.Piece
	single bool
	now    io.ReadCloser
	h      hash.Hash
	left   int64
}

func (r *pieceReader) Read(p []byte) (int, error) {
	for r.now == nil {
		if len(r.rest) == 0 {
			return 0, io.EOF
		}
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n, err := r.now.Read(p)
	r.h.Write(p[:n])
	r.left -= int64(n)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	want := r.rest[0]
	if !r.single && (r.left != 0 || release.PieceSum(r.h.Sum(nil)[:16]) != want.Sum) {
		return 0, fmt.Errorf("%w: a piece of %d bytes in %s", errBlob, want.Size, want.Pack)
	}
	err = r.now.Close()
	r.now, r.rest = nil, r.rest[1:]
	return n, err
}

func (r *pieceReader) next() (err error) {
	r.h, r.left = sha256.New(), r.rest[0].Size
	r.now, err = r.disk.openPlace(r.rest[0].Place, nil)
	return err
}

func (r *pieceReader) Close() error {
	if r.now == nil {
		return nil
	}
	return r.now.Close()
}

// checked reads exactly the blob want.
type checked struct {
	r    io.ReadCloser
	left int64
	h    hash.Hash
	want release.Blob
}

// check returns a reader that ends in an error where r is not b.
func check(r io.ReadCloser, b release.Blob) io.ReadCloser {
	return &checked{r: r, left: b.Size, h: sha256.New(), want: b}
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.h.Write(p[:n])
	c.left -= int64(n)
	if c.left < 0 || errors.Is(err, io.EOF) && (c.left != 0 || release.Digest(c.h.Sum(nil)) != c.want.Digest) {
		return 0, fmt.Errorf("%w: blob %s", errBlob, c.want.Digest.Short())
	}
	return n, err
}

func (c *checked) Close() error { return c.r.Close() }
