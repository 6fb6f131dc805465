package block

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Disk is a recorded disk with a file system, which is mounted at its Place.
// This process must not work there; a process that it starts may.
type Disk struct {
	*Recorder
	Place

	file   string
	served chan error
	loop   *Loop
}

// Record mounts base, a disk with a file system of the kind fs, and records
// what is asked of it from before the mount on the folder dir. The file of the
// disk is made in the folder files.
func Record(fs FS, base *Image, delay time.Duration, dir, files string) (*Disk, error) {
	d := &Disk{
		Recorder: NewRecorder(base, delay), Place: Place{FS: fs, Dir: dir},
		file: filepath.Join(files, "disk"), served: make(chan error, 1),
	}
	if err := os.WriteFile(d.file, nil, 0o600); err != nil {
		return nil, err
	}
	fd, err := mountFile(d.file)
	if err != nil {
		return nil, err
	}
	go func() { d.served <- errors.Join(d.serve(fd), unix.Close(fd)) }()
	if err := d.attach(); err != nil {
		return nil, errors.Join(err, d.unserve())
	}
	return d, nil
}

func (d *Disk) attach() error {
	fd, err := unix.Open(d.file, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open the recorded disk: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if d.loop, err = attach(fd, unix.LO_FLAGS_DIRECT_IO); err != nil {
		return err
	}
	flags, err := d.loop.flags()
	if err == nil && flags&unix.LO_FLAGS_DIRECT_IO == 0 {
		err = errors.New("the loop device does not do direct I/O: writes would not arrive in the order of the file system")
	}
	if err == nil {
		d.Device = d.loop.Path
		err = d.mount(options(d.FS.Options, d.FS.Record))
	}
	if err != nil {
		return errors.Join(err, d.loop.Close())
	}
	return nil
}

func options(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "," + b
}

// Close unmounts the file system and returns the whole log.
func (d *Disk) Close() (*Log, error) {
	err := d.Unmount()
	return d.Log(), errors.Join(err, d.loop.Close(), d.unserve())
}

// unserve ends the server. The loop device lets go of its file a moment after
// it was closed, and only then the mount is gone.
func (d *Disk) unserve() error {
	if err := unix.Unmount(d.file, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("cannot unmount the recorder: %w", err)
	}
	select {
	case err := <-d.served:
		return err
	case <-time.After(10 * time.Second):
		return errors.New("the recorded disk is still in use")
	}
}
