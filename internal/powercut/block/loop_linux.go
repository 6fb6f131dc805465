package block

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Loop is a loop device that is ours. It goes when it is closed and nothing is
// mounted from it, also when this process is killed.
type Loop struct {
	Path string
	file *os.File
}

// attach puts a free loop device over the file fd.
func attach(fd int, flags uint32) (*Loop, error) {
	control, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open /dev/loop-control: %w", err)
	}
	defer func() { _ = unix.Close(control) }()
	for range 100 { // others may take the one that was free
		n, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("cannot find a free loop device: %w", err)
		}
		l, err := attachTo(fmt.Sprintf("/dev/loop%d", n), fd, flags)
		if !errors.Is(err, unix.EBUSY) {
			return l, err
		}
	}
	return nil, errors.New("cannot get a loop device: each was taken by somebody else meanwhile")
}

func attachTo(path string, fd int, flags uint32) (*Loop, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(fd), Size: sectorSize, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR | flags}}
	if err := unix.IoctlLoopConfigure(int(file.Fd()), &config); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot attach %s: %w", path, err), file.Close())
	}
	return &Loop{Path: path, file: file}, nil
}

// flags returns the LO_FLAGS_ of the device as the kernel took them.
func (l *Loop) flags() (uint32, error) {
	info, err := unix.IoctlLoopGetStatus64(int(l.file.Fd()))
	if err != nil {
		return 0, err
	}
	return info.Flags, nil
}

// Close lets go of the device.
func (l *Loop) Close() error { return l.file.Close() }
