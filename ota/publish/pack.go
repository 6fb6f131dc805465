package publish

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/pawl-ota/pawl/internal/codec"
	"github.com/pawl-ota/pawl/ota/release"
)

// A pack file holds stored blobs back to back, then stored patches, then a
// list of its blobs for publishers, which devices do not fetch: for each blob
// its digest, its size and its stored length as varints, and a byte for the
// codec. The length of the list (8 bytes, big-endian) and packEnd are last.
const packEnd = "pawl-pack/0\n"

const packTail = 8 + int64(len(packEnd))

// packCodecs gives the codecs their bytes in the list.
var packCodecs = [...]release.Codec{release.Raw, release.Zstd}

// spot is where a blob lies.
type spot struct {
	pack           release.Digest // of the pack; zero while that is being written
	offset, length int64
	size           int64 // of the blob
	codec          release.Codec
}

// wholeLimit is the size up to which a blob is compressed in one go.
const wholeLimit = codec.MaxWindow

// maxPackList bounds the list of a pack in bytes.
const maxPackList = 128 << 20

// packer writes a pack.
type packer struct {
	f    *os.File
	n    int64 // bytes written
	list []byte
	enc  *zstd.Encoder
	in   bytes.Buffer
	out  []byte
	buf  []byte
}

func newPacker(f *os.File) (*packer, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(codec.MaxWindow))
	if err != nil {
		return nil, err
	}
	return &packer{f: f, enc: enc, buf: make([]byte, 256<<10)}, nil
}

// add stores the blob b that open gives, and checks that it does.
func (p *packer) add(b release.Blob, open func() (io.ReadCloser, error)) (spot, error) {
	store := p.stream
	if b.Size <= wholeLimit {
		store = p.whole
	}
	s := spot{offset: p.n, size: b.Size}
	c, err := p.read(b, open, store)
	if err == nil && c == release.Zstd && p.n-s.offset >= b.Size && b.Size > wholeLimit {
		// Compression gained nothing: once more, as it is.
		if err = p.back(s.offset); err == nil {
			c, err = p.read(b, open, p.copy)
		}
	}
	if err != nil {
		return spot{}, err
	}
	s.length, s.codec = p.n-s.offset, c
	p.list = append(p.list, b.Digest[:]...)
	p.list = binary.AppendUvarint(p.list, uint64(b.Size))
	p.list = binary.AppendUvarint(p.list, uint64(s.length))
	p.list = append(p.list, byte(slices.Index(packCodecs[:], c)))
	return s, nil
}

// read has store write what open gives, and checks that it is b.
func (p *packer) read(b release.Blob, open func() (io.ReadCloser, error), store func(io.Reader) (release.Codec, error)) (release.Codec, error) {
	r, err := open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	h := sha256.New()
	n := int64(0)
	c, err := store(counted{io.TeeReader(io.LimitReader(r, b.Size+1), h), func(k int) { n += int64(k) }})
	if err == nil && (n != b.Size || release.Digest(h.Sum(nil)) != b.Digest) {
		err = ErrChanged
	}
	return c, err
}

// whole stores a blob that fits into memory.
func (p *packer) whole(in io.Reader) (release.Codec, error) {
	p.in.Reset()
	if _, err := p.in.ReadFrom(in); err != nil {
		return "", err
	}
	p.out = p.enc.EncodeAll(p.in.Bytes(), p.out[:0])
	if len(p.out) < p.in.Len() {
		return release.Zstd, p.write(p.out)
	}
	return release.Raw, p.write(p.in.Bytes())
}

// stream compresses a long blob without holding it.
func (p *packer) stream(in io.Reader) (release.Codec, error) {
	p.enc.Reset(writerFunc(func(b []byte) (int, error) { return len(b), p.write(b) }))
	if _, err := io.CopyBuffer(writerFunc(p.enc.Write), in, p.buf); err != nil {
		return "", errors.Join(err, p.enc.Close())
	}
	return release.Zstd, p.enc.Close()
}

// copy stores a long blob as it is.
func (p *packer) copy(in io.Reader) (release.Codec, error) {
	_, err := io.CopyBuffer(writerFunc(func(b []byte) (int, error) { return len(b), p.write(b) }), in, p.buf)
	return release.Raw, err
}

// addPatch stores a splice script and returns where.
func (p *packer) addPatch(script []byte) (spot, error) {
	s := spot{offset: p.n, codec: release.Splice}
	p.out = p.enc.EncodeAll(script, p.out[:0])
	s.length = int64(len(p.out))
	return s, p.write(p.out)
}

// finish ends the pack and returns its digest and size.
func (p *packer) finish() (release.Blob, error) {
	tail := binary.BigEndian.AppendUint64(p.list, uint64(len(p.list)))
	if err := p.write(append(tail, packEnd...)); err != nil {
		return release.Blob{}, err
	}
	h := sha256.New()
	n, err := io.CopyBuffer(writerFunc(h.Write), io.NewSectionReader(p.f, 0, p.n), p.buf)
	return release.Blob{Digest: release.Digest(h.Sum(nil)), Size: n}, err
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func (p *packer) write(b []byte) error {
	n, err := p.f.Write(b)
	p.n += int64(n)
	return err
}

// back drops what was written from offset on.
func (p *packer) back(offset int64) error {
	p.n = offset
	_, err := p.f.Seek(offset, io.SeekStart)
	return errors.Join(err, p.f.Truncate(offset))
}

// readPack calls each for the blobs that the list of the pack p holds.
func (d *disk) readPack(pack release.Pack, each func(release.Digest, spot)) error {
	digest, err := pack.Digest()
	if err != nil {
		return err
	}
	list, err := d.readPackList(pack)
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", pack.Name, err)
	}
	offset := int64(0)
	for len(list) > 0 {
		s := spot{pack: digest, offset: offset}
		var b release.Digest
		if len(list) < len(b) {
			return fmt.Errorf("cannot read %s: %w", pack.Name, errPack)
		}
		list = list[copy(b[:], list):]
		size, n := binary.Uvarint(list)
		length, m := binary.Uvarint(list[max(n, 0):])
		if n <= 0 || m <= 0 || n+m >= len(list) || size > release.MaxBlob || length > uint64(pack.Size-offset) ||
			int(list[n+m]) >= len(packCodecs) {
			return fmt.Errorf("cannot read %s: %w", pack.Name, errPack)
		}
		s.size, s.length, s.codec = int64(size), int64(length), packCodecs[list[n+m]]
		list = list[n+m+1:]
		offset += s.length
		each(b, s)
	}
	return nil
}

var errPack = errors.New("its list of blobs is damaged")

func (d *disk) readPackList(pack release.Pack) ([]byte, error) {
	f, err := os.Open(d.path(pack.Name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() != pack.Size || pack.Size < packTail {
		return nil, fmt.Errorf("it has %d bytes, not %d", info.Size(), pack.Size)
	}
	tail := make([]byte, packTail)
	if _, err := f.ReadAt(tail, pack.Size-packTail); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint64(tail)
	if string(tail[8:]) != packEnd || n > uint64(pack.Size-packTail) || n > maxPackList {
		return nil, errPack
	}
	list := make([]byte, n)
	_, err = f.ReadAt(list, pack.Size-packTail-int64(n))
	return list, err
}

// openPlace opens the blob b that lies at p, and returns a reader that ends in
// an error where it is not b. from is what a patch starts from.
func (d *disk) openPlace(b release.Blob, p release.Place, from []byte) (io.ReadCloser, error) {
	f, err := os.Open(d.path(p.Pack))
	if err != nil {
		return nil, err
	}
	r, err := codec.NewReader(p.Codec, io.NewSectionReader(f, p.Offset, p.Length), from)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &checked{r: r, f: f, left: b.Size, h: sha256.New(), want: b}, nil
}

// checked reads exactly the blob want.
type checked struct {
	r    io.ReadCloser
	f    io.Closer
	left int64
	h    hash.Hash
	want release.Blob
}

var errBlob = errors.New("the stored content is not what was signed")

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.h.Write(p[:n])
	c.left -= int64(n)
	if c.left < 0 || errors.Is(err, io.EOF) && (c.left != 0 || release.Digest(c.h.Sum(nil)) != c.want.Digest) {
		return 0, fmt.Errorf("%w: blob %s", errBlob, c.want.Digest.Short())
	}
	return n, err
}

func (c *checked) Close() error { return errors.Join(c.r.Close(), c.f.Close()) }
