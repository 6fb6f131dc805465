//go:build linux

package at

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/seam"
)

// ID tells one inode from every other that is or was on its file system.
type ID struct {
	Dev   uint64 `json:"dev"` // may be another after a boot
	Ino   uint64 `json:"ino"`
	Birth int64  `json:"birth,omitempty"` // nanoseconds since 1970; 0 where the file system keeps none
}

// Same reports whether both are the same inode for certain. A device number
// does not last: disks are numbered anew at each boot. An inode number may be
// given out again. Where a file system says when an inode was made, that and
// the inode number decide; else the device has to be the same too.
func (id ID) Same(other ID) bool {
	if id.Ino != other.Ino || id.Birth != other.Birth {
		return false
	}
	return id.Birth != 0 || id.Dev == other.Dev
}

// Like is Same without the device: for where only inodes of one file system
// come into question.
func (id ID) Like(other ID) bool { return id.Ino == other.Ino && id.Birth == other.Birth }

// Info is what is known of an inode.
type Info struct {
	ID
	Mode      uint32 // type and permission bits, as in stat(2)
	UID, GID  uint32
	Links     uint32
	Size      int64
	Mtime     int64 // nanoseconds since 1970
	Ctime     int64
	MountRoot bool // here begins a mount
	MountSaid bool // the kernel tells whether it does
	Locked    bool // immutable or append-only
}

// IsDir reports whether it is a folder.
func (i Info) IsDir() bool { return i.Mode&unix.S_IFMT == unix.S_IFDIR }

// IsFile reports whether it is a regular file.
func (i Info) IsFile() bool { return i.Mode&unix.S_IFMT == unix.S_IFREG }

// IsSymlink reports whether it is a symbolic link.
func (i Info) IsSymlink() bool { return i.Mode&unix.S_IFMT == unix.S_IFLNK }

// Perm returns the permission, setuid, setgid and sticky bits.
func (i Info) Perm() uint32 { return i.Mode & 0o7777 }

// Stat describes rel itself, symbolic link or not.
func (t *Tree) Stat(rel string) (Info, error) {
	if rel == "." {
		return StatFile(t.root)
	}
	parent, base, err := t.Parent(rel)
	if err != nil {
		return Info{}, err
	}
	info, err := stat(int(parent.Fd()), base)
	if err != nil {
		err = statError(t.Name(rel), err)
	}
	return info, err
}

// StatFile describes an opened file or folder.
func StatFile(f *os.File) (Info, error) {
	info, err := stat(int(f.Fd()), "")
	return info, statError(f.Name(), err)
}

// Lstat describes what has the given path, symbolic link or not.
func Lstat(name string) (Info, error) {
	info, err := stat(unix.AT_FDCWD, name)
	return info, statError(name, err)
}

func statError(name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: "stat", Path: name, Err: err}
}

func stat(fd int, base string) (Info, error) {
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if base == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	var sx unix.Statx_t
	err := unix.Statx(fd, base, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &sx)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return oldStat(fd, base, flags)
	}
	if err != nil {
		return Info{}, err
	}
	info := Info{
		ID:   ID{Dev: unix.Mkdev(sx.Dev_major, sx.Dev_minor), Ino: sx.Ino},
		Mode: uint32(sx.Mode), UID: sx.Uid, GID: sx.Gid, Links: sx.Nlink, Size: int64(sx.Size),
		Mtime: sx.Mtime.Sec*1e9 + int64(sx.Mtime.Nsec), Ctime: sx.Ctime.Sec*1e9 + int64(sx.Ctime.Nsec),
		MountRoot: sx.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0,
		MountSaid: sx.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0,
		Locked:    sx.Attributes&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0,
	}
	if sx.Mask&unix.STATX_BTIME != 0 {
		info.Birth = sx.Btime.Sec*1e9 + int64(sx.Btime.Nsec)
	}
	if h := seam.Inode.Load(); h != nil {
		id := seam.Ident{Ino: info.Ino, Birth: info.Birth, Ctime: info.Ctime}
		(*h)(&id)
		info.Ino, info.Birth, info.Ctime = id.Ino, id.Birth, id.Ctime
	}
	return info, nil
}

// oldStat serves kernels before 4.11 and sandboxes that know no statx.
func oldStat(fd int, base string, flags int) (Info, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(fd, base, &st, flags&^unix.AT_NO_AUTOMOUNT); err != nil {
		return Info{}, err
	}
	return Info{
		ID:   ID{Dev: uint64(st.Dev), Ino: uint64(st.Ino)},
		Mode: uint32(st.Mode), UID: st.Uid, GID: st.Gid, Links: uint32(st.Nlink), Size: st.Size,
		Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(),
	}, nil
}
