package ota

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/pawl-ota/pawl/internal/chunk"
	"github.com/pawl-ota/pawl/internal/codec"
	"github.com/pawl-ota/pawl/ota/release"
)

// longPiece is the longest piece that is verified before a byte of it is given
// out, so that a wrong one can be fetched again.
const longPiece = release.MaxPiece

// maxAlike is how many installed blobs are searched for pieces of a new one.
const maxAlike = 4

// maxWrong is how often one blob may come wrong.
const maxWrong = 2

// lent is a piece that an installed blob holds.
type lent struct {
	blob   release.Blob
	offset int64
}

// borrow looks for pieces of b in installed blobs that resemble it, cut in the
// same way.
func (c *content) borrow(ctx context.Context, b release.Blob, pieces []release.Piece) {
	r, ok := c.backend.(Resembler)
	if !ok || len(pieces) < 2 {
		return
	}
	wanted := map[release.PieceSum]int64{}
	for _, p := range pieces {
		if _, have := c.lent[p.Sum]; !have {
			wanted[p.Sum] = p.Size
		}
	}
	alike, err := r.Similar(ctx, c.part, b, c)
	if err != nil {
		return
	}
	for _, old := range alike[:min(len(alike), maxAlike)] {
		if len(wanted) == 0 || ctx.Err() != nil {
			return
		}
		if !c.cut[old.Digest] {
			c.borrowFrom(ctx, old, wanted)
		}
	}
}

// borrowFrom cuts old and notes where the wanted pieces are.
func (c *content) borrowFrom(ctx context.Context, old release.Blob, wanted map[release.PieceSum]int64) {
	in, ok := c.input(ctx, old)
	if !ok {
		return
	}
	defer func() { _ = in.Close() }()
	cutter := chunk.NewCutter(io.NewSectionReader(in, 0, old.Size))
	for at := int64(0); ctx.Err() == nil; {
		data, err := cutter.Next()
		if err != nil {
			return
		}
		sum := release.SumPiece(data)
		if size, ok := wanted[sum]; ok && size == int64(len(data)) {
			c.lent[sum] = lent{old, at}
			delete(wanted, sum)
		}
		at += int64(len(data))
	}
}

// open returns the bytes of an item that is one blob, unverified.
func (c *content) open(ctx context.Context, in *intake, it *item) (io.ReadCloser, error) {
	if it.form == bySplice {
		return c.openSplice(ctx, in, it.blob)
	}
	pieces, ok := c.table.Pieces(it.blob)
	if !ok {
		return nil, fmt.Errorf("%s: %w: the locator does not name it", it.blob.Digest.Short(), ErrNotLocal)
	}
	return &pieceReader{c: c, ctx: ctx, in: in, pieces: pieces}, nil
}

func (c *content) openSplice(ctx context.Context, in *intake, b release.Blob) (io.ReadCloser, error) {
	patch, ok := c.spliceOf(b)
	if !ok {
		return nil, fmt.Errorf("%s: %w", b.Digest.Short(), ErrNotLocal)
	}
	from, err := c.u.store().get(patch.From, maxDocument)
	if err != nil {
		return nil, err
	}
	at := c.locator.Place(patch)
	return newDecoded(in.read(ctx, at.Pack, at.Offset, at.Length), at.Codec, from)
}

// decoded is a stored form and what it decodes to. An error of the former goes
// before what the decoder makes of it.
type decoded struct {
	io.ReadCloser
	stored *intakeReader
}

func newDecoded(stored *intakeReader, c release.Codec, from []byte) (*decoded, error) {
	r, err := codec.NewReader(c, stored, from)
	if err != nil {
		return nil, errors.Join(err, stored.Close())
	}
	return &decoded{r, stored}, nil
}

func (d *decoded) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	if err != nil && d.stored.err != nil {
		err = d.stored.err
	}
	return n, err
}

func (d *decoded) Close() error { return errors.Join(d.ReadCloser.Close(), d.stored.Close()) }

// bringBlob hands put one blob. One that comes wrong is left for another way.
func (c *content) bringBlob(ctx context.Context, in *intake, it *item, put func(release.Blob, io.Reader) error) error {
	v, r, err := c.verifiedItem(ctx, in, it)
	if err == nil {
		err = errors.Join(c.hand(it.blob, v, put), r.Close())
	}
	if wrong, ok := errors.AsType[*contentError](err); ok && !isFetch(err) && ctx.Err() == nil {
		return c.wrong(in, it, wrong)
	}
	return err
}

// verifiedItem opens an item. A blob of one short piece is proved right at once.
func (c *content) verifiedItem(ctx context.Context, in *intake, it *item) (*verified, io.Closer, error) {
	r, err := c.open(ctx, in, it)
	if err != nil {
		return nil, nil, err
	}
	pr, ok := r.(*pieceReader)
	if !ok || len(pr.pieces) != 1 || it.blob.Size > longPiece {
		return newVerified(r, it.blob), r, nil
	}
	data, err := pr.next()
	if err != nil {
		return newVerified(failed{err}, it.blob), r, nil
	}
	if release.Sum(data) != it.blob.Digest {
		return newVerified(bytes.NewReader(data), it.blob), r, nil
	}
	return newProven(data, it.blob), r, nil
}

// wrong notes that a blob came wrong, and returns an error when there is no
// other way.
func (c *content) wrong(in *intake, it *item, err *contentError) error {
	c.tried[it.blob.Digest]++
	if it.form == bySplice {
		at, _ := c.splice(it.blob)
		in.forget(span{at.Pack, at.Offset, at.Offset + at.Length})
		c.avoid[it.blob.Digest] = c.tried[it.blob.Digest] == maxWrong
		return nil
	}
	pieces, _ := c.table.Pieces(it.blob)
	if len(pieces) == 0 || pieces[0].Size <= longPiece || c.tried[it.blob.Digest] > maxWrong {
		return err // each piece was fetched twice
	}
	for _, p := range pieces {
		in.forget(span{p.Pack, p.Offset, p.Offset + p.Length})
	}
	return nil
}

// pieceReader reads a blob piece by piece, each verified before a byte of it is
// given out, but for those that are too long to be held.
type pieceReader struct {
	c      *content
	ctx    context.Context
	in     *intake
	pieces []release.Piece
	rest   []byte   // of the piece that is held
	long   *decoded // of a piece that is not
	left   int64    // of long
}

// Read implements [io.Reader].
func (r *pieceReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.long != nil {
			if n, err := r.readLong(p); n > 0 || err != nil {
				return n, err
			}
			continue
		}
		if len(r.pieces) == 0 {
			return 0, io.EOF
		}
		if err := r.step(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// step begins the next piece.
func (r *pieceReader) step() (err error) {
	if p := r.pieces[0]; p.Size > longPiece {
		r.pieces, r.left = r.pieces[1:], p.Size
		r.long, err = newDecoded(r.in.read(r.ctx, p.Pack, p.Offset, p.Length), p.Codec, nil)
		return err
	}
	r.rest, err = r.next()
	return err
}

func (r *pieceReader) readLong(p []byte) (int, error) {
	n, err := r.long.Read(p)
	if r.left -= int64(n); err == io.EOF {
		err = r.Close()
	}
	return n, err
}

// next returns the next piece, verified: from the device, or else from the
// repository, where one that is wrong is fetched again, once. It is valid until
// the next one.
func (r *pieceReader) next() ([]byte, error) {
	p := r.pieces[0]
	r.pieces = r.pieces[1:]
	if data, ok := r.c.lentPiece(r.ctx, p); ok {
		return data, nil
	}
	data, err := r.fetch(p)
	if err == nil || isFetch(err) || r.ctx.Err() != nil {
		return data, err
	}
	r.in.forget(span{p.Pack, p.Offset, p.Offset + p.Length})
	return r.fetch(p)
}

// fetch reads and verifies one piece.
func (r *pieceReader) fetch(p release.Piece) ([]byte, error) {
	data, err := r.c.decoder.whole(r.in.read(r.ctx, p.Pack, p.Offset, p.Length), p.Codec, p.Size)
	if err == nil && release.SumPiece(data) != p.Sum {
		err = fmt.Errorf("a piece: %w", ErrDigest)
	}
	return data, err
}

// Close lets go of what is open.
func (r *pieceReader) Close() error {
	if r.long == nil {
		return nil
	}
	err := r.long.Close()
	r.long = nil
	return err
}

// lentPiece reads a piece from an installed blob, and verifies it.
func (c *content) lentPiece(ctx context.Context, p release.Piece) ([]byte, bool) {
	from, ok := c.lent[p.Sum]
	if !ok {
		return nil, false
	}
	in, ok := c.input(ctx, from.blob)
	if !ok {
		return nil, false
	}
	data := c.decoder.room(p.Size)
	_, err := in.ReadAt(data, from.offset)
	_ = in.Close()
	return data, (err == nil || err == io.EOF) && release.SumPiece(data) == p.Sum
}
