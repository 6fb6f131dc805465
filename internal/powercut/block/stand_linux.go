package block

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// Stand is a disk in memory onto which one state after the other is put.
type Stand struct {
	Place
	file *os.File
	loop *Loop
}

// NewStand returns an empty disk for fs, to be mounted on the folder dir.
func NewStand(fs FS, dir string) (*Stand, error) {
	fd, err := unix.MemfdCreate("pawl-disk", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot make a file in memory: %w", err)
	}
	s := &Stand{Place: Place{FS: fs, Dir: dir}, file: os.NewFile(uintptr(fd), "disk")}
	if err := s.file.Truncate(fs.Size); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	if s.loop, err = attach(fd, 0); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	s.Device = s.loop.Path
	return s, nil
}

// Close gives the disk up. It must not be mounted.
func (s *Stand) Close() error { return errors.Join(s.loop.Close(), s.file.Close()) }

// Make makes the file system.
func (s *Stand) Make() error { return s.run(s.FS.Make) }

// Check looks for damage in the file system, which must not be mounted.
func (s *Stand) Check() error { return s.run(s.FS.Check) }

// Repair does what a boot does with a file system that cannot be mounted. What
// the program says is worth nothing: whether it can be mounted then is.
func (s *Stand) Repair() error {
	err := s.forget()
	if err == nil {
		err = s.run(s.FS.Repair)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	return err
}

func (s *Stand) run(command []string) error {
	cmd := exec.Command(command[0], append(command[1:len(command):len(command)], "/proc/self/fd/3")...)
	cmd.ExtraFiles = []*os.File{s.file}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", command[0], err, out)
	}
	return nil
}

// forget drops what the kernel remembers of the disk, which is about to change
// behind its back, or just did.
func (s *Stand) forget() error {
	if err := unix.IoctlSetInt(int(s.loop.file.Fd()), unix.BLKFLSBUF, 0); err != nil {
		return fmt.Errorf("cannot drop the buffers of %s: %w", s.Device, err)
	}
	return nil
}

// Load puts m on the disk.
func (s *Stand) Load(m *Image) error {
	if err := errors.Join(s.forget(), s.file.Truncate(0), s.file.Truncate(s.FS.Size)); err != nil {
		return err
	}
	return m.runs(512, func(first int, pages []*page) error {
		vector := make([][]byte, len(pages))
		for i, p := range pages {
			vector[i] = p[:]
		}
		n, err := unix.Pwritev(int(s.file.Fd()), vector, int64(first)*pageSize)
		if err == nil && n < len(pages)*pageSize {
			err = unix.ENOSPC
		}
		return err
	})
}

// Save returns what is on the disk.
func (s *Stand) Save() (*Image, error) {
	m := NewImage(s.FS.Size)
	buf := make([]byte, 1<<20)
	for off := int64(0); off < s.FS.Size; {
		data, err := unix.Seek(int(s.file.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		} else if err != nil {
			return nil, err
		}
		data &^= pageSize - 1
		n, err := unix.Pread(int(s.file.Fd()), buf, data)
		if err != nil {
			return nil, err
		}
		m.Write(buf[:n], data)
		off = data + int64(n)
	}
	return m, nil
}
