package machine

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDisk: what was flushed, or written with FUA, is there after every cut;
// of the rest any sector may be old or new, and each is sometimes.
func TestDisk(t *testing.T) {
	const pages = 8
	page := func(b byte) []byte { return bytes.Repeat([]byte{b}, sector) }
	var kept, lost int
	for seed := range uint64(64) {
		d := newDisk(make([]byte, pages*sector), rand.New(rand.NewPCG(seed, 0)))
		require.NoError(t, d.write(page(1), 0, false))
		require.NoError(t, d.flush())
		require.NoError(t, d.write(page(2), sector, true))
		require.NoError(t, d.write(page(3), sector, false))
		require.NoError(t, d.write(page(4), sector, true)) // over one that is not flushed
		d.arm(2)
		require.NoError(t, d.write(bytes.Repeat([]byte{5}, 3*sector), 2*sector-100, false))
		require.ErrorIs(t, d.write(page(6), 6*sector, true), errCut)
		require.ErrorIs(t, d.read(page(0), 0), errCut)
		require.ErrorIs(t, d.flush(), errCut)
		lost += d.on()

		got := make([]byte, pages*sector)
		require.NoError(t, d.read(got, 0))
		require.Equal(t, page(1), got[:sector])
		require.Equal(t, page(4)[:sector-100], got[sector:2*sector-100])
		for n := 2; n < 4; n++ {
			one := got[n*sector : (n+1)*sector]
			require.Contains(t, [][]byte{page(0), page(5)}, one)
			kept += int(one[0] / 5)
		}
		require.Equal(t, page(0), got[7*sector:])
		require.Zero(t, d.cutAfter(t))
	}
	require.NotZero(t, kept)
	require.NotZero(t, lost)
}

// cutAfter cuts the power of a disk that nothing was written to.
func (d *disk) cutAfter(*testing.T) int {
	d.cut()
	return d.on()
}

// TestServe talks to the disk as QEMU does.
func TestServe(t *testing.T) {
	d := newDisk(make([]byte, 4*sector), rand.New(rand.NewPCG(1, 0)))
	ours, theirs := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- serve(theirs, d) }()
	read := func(n int) []byte {
		t.Helper()
		b := make([]byte, n)
		for at := 0; at < n; {
			k, err := ours.Read(b[at:])
			require.NoError(t, err)
			at += k
		}
		return b
	}
	send := func(b []byte) {
		t.Helper()
		_, err := ours.Write(b)
		require.NoError(t, err)
	}
	option := func(o uint32, data ...byte) []byte {
		b := big.AppendUint32(big.AppendUint64(nil, magicOption), o)
		return append(big.AppendUint32(b, uint32(len(data))), data...)
	}
	require.Equal(t, []byte("NBDMAGICIHAVEOPT\x00\x03"), read(18))
	send([]byte{0, 0, 0, 3})
	send(option(8)) // structured replies
	require.Equal(t, answerTo(8, answerUnsupported, nil), read(20))
	send(option(optGo, 0, 0, 0, 0, 0, 0))
	export := read(20 + 12)
	require.Equal(t, uint64(4*sector), big.Uint64(export[22:]))
	require.Equal(t, answerTo(optGo, answerAck, nil), read(20))

	request := func(kind uint16, at, length int) {
		t.Helper()
		b := big.AppendUint16(big.AppendUint16(big.AppendUint32(nil, magicRequest), 0), kind)
		send(big.AppendUint32(big.AppendUint64(big.AppendUint64(b, 77), uint64(at)), uint32(length)))
	}
	reply := func(errno uint32) {
		t.Helper()
		require.Equal(t, big.AppendUint64(big.AppendUint32(big.AppendUint32(nil, magicReply), errno), 77), read(16))
	}
	request(cmdWrite, 100, 3)
	send([]byte("abc"))
	reply(0)
	request(cmdFlush, 0, 0)
	reply(0)
	request(cmdRead, 99, 5)
	reply(0)
	require.Equal(t, []byte("\x00abc\x00"), read(5))
	request(cmdRead, 4*sector-1, 2)
	reply(errnoInvalid)
	d.arm(1)
	request(cmdWrite, 0, 1)
	send([]byte("x"))
	require.True(t, errors.Is(<-ended, errCut))
}
