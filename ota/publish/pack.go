package publish

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"

	"github.com/pawl-ota/pawl/ota/release"
)

// A pack file holds indexes, each with the patches of it and the directories of
// deltas to it behind it, those from the last release at the end, then the groups
// of deltas, those from the last release first, then pieces of files in the order
// in which the indexes list them. Behind that is a list of all this for publishers, which devices do not
// fetch: for each stretch a byte for its codec and its stored length as a
// varint, and for pieces their digest and their size as a varint between the
// two. The length of the list (8 bytes, big-endian) and packEnd are last.
const packEnd = "pawl-pack/1\n"

const packTail = 8 + int64(len(packEnd))

// packCodecs gives the codecs their bytes in the list. packOther stands for what
// is no piece: patches, directories, groups.
var packCodecs = [...]release.Codec{release.Raw, release.Zstd}

const packOther = 0xff

// maxPackList bounds the list of a pack in bytes.
const maxPackList = 128 << 20

// spot is where a piece lies.
type spot struct {
	pack           release.Digest // of the pack; zero while that is being written
	offset, length int64
	size           int64 // of the piece
	codec          release.Codec
}

// place returns the spot as a device sees it.
func (s spot) place() release.Place {
	return release.Place{Pack: release.PackName(s.pack), Offset: s.offset, Length: s.length, Codec: s.codec}
}

// packer writes a pack.
type packer struct {
	f    *os.File
	n    int64 // bytes written
	h    hash.Hash
	list []byte
	buf  []byte
}

func newPacker(f *os.File) *packer {
	return &packer{f: f, h: sha256.New(), buf: make([]byte, 256<<10)}
}

// piece stores the piece b, whose stored form r holds.
func (p *packer) piece(b release.Blob, c release.Codec, r io.Reader) (spot, error) {
	s := spot{offset: p.n, size: b.Size, codec: c}
	if err := p.copy(r); err != nil {
		return spot{}, err
	}
	s.length = p.n - s.offset
	p.list = append(p.list, byte(slices.Index(packCodecs[:], c)))
	p.list = append(p.list, b.Digest[:]...)
	p.list = binary.AppendUvarint(p.list, uint64(b.Size))
	p.list = binary.AppendUvarint(p.list, uint64(s.length))
	return s, nil
}

// other stores what is no piece, and returns where it begins.
func (p *packer) other(r io.Reader) (offset, length int64, err error) {
	offset = p.n
	if err := p.copy(r); err != nil {
		return 0, 0, err
	}
	p.list = binary.AppendUvarint(append(p.list, packOther), uint64(p.n-offset))
	return offset, p.n - offset, nil
}

// finish ends the pack and returns its digest and size.
func (p *packer) finish() (release.Blob, error) {
	tail := binary.BigEndian.AppendUint64(p.list, uint64(len(p.list)))
	err := p.write(append(tail, packEnd...))
	return release.Blob{Digest: release.Digest(p.h.Sum(nil)), Size: p.n}, err
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func (p *packer) copy(r io.Reader) error {
	_, err := io.CopyBuffer(writerFunc(func(b []byte) (int, error) { return len(b), p.write(b) }), onlyReader{r}, p.buf)
	return err
}

// onlyReader hides what would do without a buffer.
type onlyReader struct{ io.Reader }

func (p *packer) write(b []byte) error {
	n, err := p.f.Write(b)
	p.h.Write(b[:n])
	p.n += int64(n)
	return err
}

// readPack calls each for the pieces that the list of the pack p holds.
func (d *disk) readPack(pack release.Pack, each func(release.Digest, spot)) error {
	digest, err := pack.Digest()
	if err != nil {
		return err
	}
	list, err := d.readPackList(pack)
	if err == nil {
		err = parsePackList(list, digest, pack.Size-packTail-int64(len(list)), each)
	}
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", pack.Name, err)
	}
	return nil
}

var errPack = errors.New("its list of pieces is damaged")

// parsePackList reads the list of a pack of size bytes of content.
func parsePackList(list []byte, pack release.Digest, size int64, each func(release.Digest, spot)) error {
	offset := int64(0)
	number := func(limit int64) int64 {
		v, n := binary.Uvarint(list)
		if n <= 0 || v > uint64(limit) {
			list = nil
			return -1
		}
		list = list[n:]
		return int64(v)
	}
	for len(list) > 0 {
		kind := list[0]
		list = list[1:]
		s, b := spot{pack: pack, offset: offset}, release.Digest{}
		if kind != packOther {
			if int(kind) >= len(packCodecs) || len(list) < len(b) {
				return errPack
			}
			s.codec = packCodecs[kind]
			list = list[copy(b[:], list):]
			s.size = number(release.MaxBlob)
		}
		s.length = number(size - offset)
		if s.size < 0 || s.length < 0 {
			return errPack
		}
		offset += s.length
		if kind != packOther {
			each(b, s)
		}
	}
	if offset != size {
		return errPack
	}
	return nil
}

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
