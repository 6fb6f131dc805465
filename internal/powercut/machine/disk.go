package machine

import (
	"errors"
	"math/rand/v2"
	"sync"
)

// sector is what the disk writes whole or not at all: a page of flash. With
// sectors of 512 bytes ext4's super block has two under one checksum, and does
// not mount without a repair when it is torn between them; package block has
// those.
const sector = 4096

// errCut is returned by a disk without power.
var errCut = errors.New("the power is cut")

// disk is a disk in memory with a volatile cache. Its methods may be called
// concurrently.
type disk struct {
	mu     sync.Mutex
	random *rand.Rand
	stable []byte  // what was flushed
	view   []byte  // what reads see
	cache  []write // since the last flush, in order
	writes int     // since the last arm
	cutAt  int     // the write at which the power goes; 0 for none
	off    bool
}

// write is one that was not flushed. One with FUA is as good as flushed, but
// keeps its place among the others.
type write struct {
	at   int64
	data []byte
	fua  bool
}

func newDisk(image []byte, random *rand.Rand) *disk {
	return &disk{stable: image, view: append([]byte(nil), image...), random: random}
}

// arm has the power go at the nth write from now on, or not by itself for 0.
func (d *disk) arm(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writes, d.cutAt = 0, n
}

// written returns how many writes there were since the last arm.
func (d *disk) written() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writes
}

func (d *disk) size() int64 { return int64(len(d.stable)) }

func (d *disk) inside(at int64, n int) bool { return at >= 0 && at+int64(n) <= d.size() }

func (d *disk) read(p []byte, at int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return errCut
	}
	copy(p, d.view[at:])
	return nil
}

// write keeps data. The write at which the power goes is in the cache then, as
// others are, and nobody is told that it is done.
func (d *disk) write(data []byte, at int64, fua bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return errCut
	}
	d.writes++
	last := d.writes == d.cutAt
	d.cache = append(d.cache, write{at, data, fua && !last})
	copy(d.view[at:], data)
	if last {
		d.off = true
		return errCut
	}
	return nil
}

func (d *disk) flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return errCut
	}
	for _, w := range d.cache {
		copy(d.stable[w.at:], w.data)
	}
	d.cache = nil
	return nil
}

// cut takes the power away now, if it is not gone.
func (d *disk) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = true
}

// on gives the power back after a cut, which decides what the cache has kept.
// It returns how many sectors were lost.
func (d *disk) on() (lost int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	keeps := []float64{0, 0.5, 0.9, 1}[d.random.IntN(4)]
	for _, w := range d.cache {
		for at, rest := w.at, w.data; len(rest) > 0; {
			n := min(int64(len(rest)), sector-at%sector)
			if w.fua || d.random.Float64() < keeps {
				copy(d.stable[at:], rest[:n])
			} else {
				lost++
			}
			at, rest = at+n, rest[n:]
		}
	}
	copy(d.view, d.stable)
	d.cache, d.off = nil, false
	return lost
}
