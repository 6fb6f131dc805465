package durable

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// reserveName is a file whose only use is the room it takes: a journal has to
// be written on a full disk too, or nothing could be brought to its end there.
const (
	reserveName = ".pawl-reserve"
	reserveSize = 64 << 10
)

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// spend gives the reserve up, and reports whether that made room. The fsync
// has the file system let go of the blocks before they are asked for.
func (d *Dir) spend() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reserve = false
	if err := d.root.Remove(reserveName); err != nil {
		return false
	}
	return syncRoot(d.root) == nil
}

// replenish makes the reserve again when it is missing and there is room for
// it. Without room there is none: that is no error, but what it is for.
func (d *Dir) replenish() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reserve {
		return
	}
	if info, err := d.root.Lstat(reserveName); err == nil && info.Size() == reserveSize {
		d.reserve = true
		return
	}
	d.reserve = d.makeReserve() == nil
}

func (d *Dir) makeReserve() error {
	_ = d.root.Remove(reserveName)
	f, err := d.root.OpenFile(reserveName, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("cannot make the reserve: %w", err)
	}
	err = allocate(f, reserveSize)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err != nil {
		err = errors.Join(err, d.root.Remove(reserveName))
	}
	return err
}

// fill is allocate for file systems without it. The bytes differ, because a
// file system may store equal ones as nothing.
func fill(f *os.File, size int64) error {
	data := make([]byte, size)
	for i, x := 0, uint32(1); i < len(data); i++ {
		x = x*1664525 + 1013904223
		data[i] = byte(x >> 24)
	}
	_, err := f.Write(data)
	return err
}
