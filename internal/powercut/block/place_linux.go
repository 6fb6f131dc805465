package block

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Place is a disk and the folder on which it is mounted. A device keeps its
// paths over a boot: a state has to be mounted where the disk was recorded.
type Place struct {
	FS     FS
	Device string
	Dir    string
}

// Mount mounts the disk.
func (p Place) Mount() error { return p.mount(p.FS.Options) }

func (p Place) mount(options string) error {
	if err := unix.Mount(p.Device, p.Dir, p.FS.Name, unix.MS_NOATIME, options); err != nil {
		return fmt.Errorf("cannot mount %s: %w", p.FS.Name, err)
	}
	return nil
}

// Unmount unmounts it, with everything written. Nobody may be in it, but a
// program that is just starting has the files of the one that started it open
// for a moment.
func (p Place) Unmount() error {
	for range 2000 {
		err := unix.Unmount(p.Dir, 0)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("cannot unmount %s: %w", p.FS.Name, err)
		}
		<-time.After(time.Millisecond)
	}
	return errors.Join(fmt.Errorf("cannot unmount %s: it stays in use", p.FS.Name), unix.Unmount(p.Dir, unix.MNT_DETACH))
}
