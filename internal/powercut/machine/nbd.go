package machine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The part of the NBD protocol that QEMU needs: the fixed newstyle handshake,
// and simple replies. See doc/proto.md of the NBD project.
const (
	magicServer  = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption  = 0x49484156454f5054 // "IHAVEOPT"
	magicAnswer  = 0x0003e889045565a9
	magicRequest = 0x25609513
	magicReply   = 0x67446698

	optAbort, optInfo, optGo = 2, 6, 7
	answerAck, answerInfo    = 1, 3
	answerUnsupported        = 1<<31 + 1

	cmdRead, cmdWrite, cmdClose, cmdFlush = 0, 1, 2, 3
	flagFUA                               = 1

	hasFlags, hasFlush, hasFUA = 1 << 0, 1 << 2, 1 << 3

	errnoIO, errnoInvalid = 5, 22
	maxRequest            = 32 << 20
)

var big = binary.BigEndian

// serve is the disk for whoever is at the other end of c, until it says
// goodbye (nil), the power is cut (errCut) or the connection breaks.
func serve(c io.ReadWriter, d *disk) error {
	if err := greet(c, d.size()); err != nil {
		return err
	}
	for {
		var r struct {
			Magic       uint32
			Flags, Kind uint16
			Cookie      uint64
			At          uint64
			Length      uint32
		}
		if err := binary.Read(c, big, &r); err != nil {
			return err
		}
		if r.Magic != magicRequest || r.Length > maxRequest {
			return fmt.Errorf("cannot serve a disk: the request is %+v", r)
		}
		if r.Kind == cmdClose {
			return nil
		}
		data := make([]byte, r.Length)
		if r.Kind == cmdWrite {
			if _, err := io.ReadFull(c, data); err != nil {
				return err
			}
		}
		errno, err := d.do(r.Kind, data, int64(r.At), r.Flags&flagFUA != 0)
		if err != nil {
			return err
		}
		reply := big.AppendUint64(big.AppendUint32(big.AppendUint32(nil, magicReply), errno), r.Cookie)
		if r.Kind == cmdRead && errno == 0 {
			reply = append(reply, data...)
		}
		if _, err := c.Write(reply); err != nil {
			return err
		}
	}
}

func (d *disk) do(kind uint16, data []byte, at int64, fua bool) (errno uint32, err error) {
	if kind != cmdFlush && !d.inside(at, len(data)) {
		return errnoInvalid, nil
	}
	switch kind {
	case cmdRead:
		err = d.read(data, at)
	case cmdWrite:
		err = d.write(data, at, fua)
	case cmdFlush:
		err = d.flush()
	default:
		return errnoInvalid, nil
	}
	if err != nil && !errors.Is(err, errCut) {
		return errnoIO, nil
	}
	return 0, err
}

// greet goes through the handshake.
func greet(c io.ReadWriter, size int64) error {
	const fixedNewstyle, noZeroes = 1, 2
	hello := big.AppendUint16(big.AppendUint64(big.AppendUint64(nil, magicServer), magicOption), fixedNewstyle|noZeroes)
	if _, err := c.Write(hello); err != nil {
		return err
	}
	var flags uint32
	if err := binary.Read(c, big, &flags); err != nil {
		return err
	}
	for range 32 {
		var o struct {
			Magic          uint64
			Option, Length uint32
		}
		if err := binary.Read(c, big, &o); err != nil {
			return err
		}
		if o.Magic != magicOption || o.Length > maxRequest {
			return fmt.Errorf("cannot serve a disk: the option is %+v", o)
		}
		if _, err := io.CopyN(io.Discard, c, int64(o.Length)); err != nil {
			return err
		}
		var answer []byte
		switch o.Option {
		case optGo, optInfo:
			export := big.AppendUint16(nil, 0)
			export = big.AppendUint16(big.AppendUint64(export, uint64(size)), hasFlags|hasFlush|hasFUA)
			answer = append(answerTo(o.Option, answerInfo, export), answerTo(o.Option, answerAck, nil)...)
		case optAbort:
			answer = answerTo(o.Option, answerAck, nil)
		default:
			answer = answerTo(o.Option, answerUnsupported, nil)
		}
		if _, err := c.Write(answer); err != nil {
			return err
		}
		switch o.Option {
		case optGo:
			return nil
		case optAbort:
			return io.EOF
		}
	}
	return errors.New("cannot serve a disk: there is no end to the options")
}

func answerTo(option, kind uint32, data []byte) []byte {
	b := big.AppendUint32(big.AppendUint32(big.AppendUint64(nil, magicAnswer), option), kind)
	return append(big.AppendUint32(b, uint32(len(data))), data...)
}
