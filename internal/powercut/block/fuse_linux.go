package block

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The requests of the kernel's FUSE protocol (include/uapi/linux/fuse.h) that a
// mounted file and no folder meets.
const (
	fuseForget      = 2
	fuseGetattr     = 3
	fuseSetattr     = 4
	fuseOpen        = 14
	fuseRead        = 15
	fuseWrite       = 16
	fuseStatfs      = 17
	fuseRelease     = 18
	fuseFsync       = 20
	fuseFlush       = 25
	fuseInit        = 26
	fuseInterrupt   = 36
	fuseDestroy     = 38
	fuseBatchForget = 42
	fuseFallocate   = 43
)

const (
	fuseMinor    = 31 // of version 7: what is used here is in Linux 5.4
	fuseMaxWrite = 1 << 20
	fuseRoot     = 1

	initAsyncRead = 1 << 0
	initBigWrites = 1 << 5
	initAsyncDIO  = 1 << 15
	initMaxPages  = 1 << 22

	openDirectIO             = 1 << 0
	openParallelDirectWrites = 1 << 6
)

type fuseHeader struct {
	Len, Opcode    uint32
	Unique, NodeID uint64
	UID, GID, PID  uint32
	_              uint32
}

type fuseReply struct {
	Len    uint32
	Error  int32
	Unique uint64
}

type fuseInitOut struct {
	Major, Minor, MaxReadahead, Flags uint32
	MaxBackground, Congestion         uint16
	MaxWrite, TimeGran                uint32
	MaxPages, MapAlignment            uint16
	Flags2                            uint32
	_                                 [7]uint32
}

type fuseAttrOut struct {
	Valid, _            uint64
	Ino, Size, Blocks   uint64
	_                   [3]uint64 // times
	_                   [3]uint32
	Mode, Nlink         uint32
	_                   [3]uint32 // owner, group, device
	Blksize, FlagsOfAtt uint32
}

type fuseOpenOut struct {
	Handle    uint64
	OpenFlags uint32
	_         uint32
}

// fuseRange begins the body of read, write and fallocate; Size is 64 bits wide
// in fallocate alone.
type fuseRange struct {
	Handle, Offset uint64
	Size           uint32
	_              uint32
}

// fuseWriteBody is how much stands before the data of a write.
const fuseWriteBody = 40

type fuseWriteOut struct{ Size, _ uint32 }

type fuseStatfsOut struct {
	Blocks, Bfree, Bavail, Files, Ffree uint64
	Bsize, Namelen, Frsize              uint32
	_                                   [7]uint32
}

// mountFile mounts the disk over the file at target and returns the descriptor
// on which the kernel asks. The mount ends when the descriptor is closed.
func mountFile(target string) (int, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot open /dev/fuse: %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=100600,user_id=0,group_id=0", fd)
	if err := unix.Mount("pawl-recorder", target, "fuse", unix.MS_NODEV|unix.MS_NOSUID, options); err != nil {
		return -1, errors.Join(fmt.Errorf("cannot mount on %s: %w", target, err), unix.Close(fd))
	}
	return fd, nil
}

// serve answers the kernel until the file is unmounted.
func (r *Recorder) serve(fd int) error {
	buf := make([]byte, fuseMaxWrite+pageSize)
	for {
		n, err := unix.Read(fd, buf)
		switch err {
		case nil:
		case unix.EINTR, unix.EAGAIN, unix.ENOENT:
			continue
		case unix.ENODEV:
			return nil
		default:
			return fmt.Errorf("cannot read from /dev/fuse: %w", err)
		}
		var h fuseHeader
		body := buf[decode(buf[:n], &h):n]
		if err := r.answer(fd, h, body); err != nil {
			return err
		}
	}
}

// answer does one request. What the kernel wants no answer to gets none.
func (r *Recorder) answer(fd int, h fuseHeader, body []byte) error {
	switch h.Opcode {
	case fuseForget, fuseBatchForget, fuseInterrupt:
		return nil
	case fuseInit:
		return reply(fd, h, fuseInitOut{
			Major: 7, Minor: fuseMinor, Flags: initAsyncRead | initBigWrites | initAsyncDIO | initMaxPages,
			MaxBackground: 64, Congestion: 48, MaxWrite: fuseMaxWrite, MaxPages: fuseMaxWrite / pageSize, TimeGran: 1,
		})
	case fuseGetattr, fuseSetattr:
		return reply(fd, h, fuseAttrOut{
			Valid: 1 << 30, Ino: fuseRoot, Size: uint64(r.now.Size()), Blocks: uint64(r.now.Size() / sectorSize),
			Mode: unix.S_IFREG | 0o600, Nlink: 1, Blksize: pageSize,
		})
	case fuseOpen:
		return reply(fd, h, fuseOpenOut{Handle: 1, OpenFlags: openDirectIO | openParallelDirectWrites})
	case fuseStatfs:
		return reply(fd, h, fuseStatfsOut{Bsize: pageSize, Frsize: pageSize, Namelen: 255})
	case fuseFlush, fuseRelease, fuseDestroy:
		return reply(fd, h, nil)
	case fuseRead, fuseWrite, fuseFallocate:
		return r.transfer(fd, h, body)
	case fuseFsync:
		r.add(Entry{Op: Flush})
		time.AfterFunc(r.delay, func() { _ = reply(fd, h, nil) })
		return nil
	}
	return refuse(fd, h, unix.ENOSYS)
}

func (r *Recorder) transfer(fd int, h fuseHeader, body []byte) error {
	var at fuseRange
	decode(body, &at)
	switch h.Opcode {
	case fuseRead:
		data := make([]byte, at.Size)
		r.read(data, int64(at.Offset))
		return reply(fd, h, data)
	case fuseWrite:
		data := bytes.Clone(body[fuseWriteBody:])
		r.add(Entry{Op: Write, Offset: int64(at.Offset), Length: int64(len(data)), Data: data})
		return reply(fd, h, fuseWriteOut{Size: at.Size})
	}
	length := int64(binary.NativeEndian.Uint64(body[16:]))
	r.add(Entry{Op: Discard, Offset: int64(at.Offset), Length: length})
	return reply(fd, h, nil)
}

func decode(b []byte, v any) int {
	n, err := binary.Decode(b, binary.NativeEndian, v)
	if err != nil {
		panic(fmt.Sprintf("a request of %d bytes: %v", len(b), err)) // the kernel never sends one
	}
	return n
}

// reply answers with v, which is nil, bytes, or a struct of the protocol.
func reply(fd int, h fuseHeader, v any) error {
	out := new(bytes.Buffer)
	if v != nil {
		if err := binary.Write(out, binary.NativeEndian, v); err != nil {
			return err
		}
	}
	return send(fd, fuseReply{Len: uint32(16 + out.Len()), Unique: h.Unique}, out.Bytes())
}

func refuse(fd int, h fuseHeader, errno unix.Errno) error {
	return send(fd, fuseReply{Len: 16, Error: -int32(errno), Unique: h.Unique}, nil)
}

func send(fd int, head fuseReply, body []byte) error {
	b, err := binary.Append(make([]byte, 0, 16+len(body)), binary.NativeEndian, head)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, append(b, body...))
	if errors.Is(err, unix.ENOENT) { // the request was given up meanwhile
		return nil
	}
	return os.NewSyscallError("write to /dev/fuse", err)
}
