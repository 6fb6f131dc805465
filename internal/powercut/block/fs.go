package block

// FS is a kind of file system and how it is made, mounted and checked.
type FS struct {
	Name string
	Size int64 // of its disk, in bytes
	// Make and Check are commands; the disk is added to them. Check changes
	// nothing and succeeds only when all is well.
	Make, Check []string
	// Repair is what a boot does when the file system cannot be mounted.
	Repair []string
	// Options are for every mount, Record those that the recorded one has besides.
	Options, Record string
	// Sector is the number of bytes that the disk writes whole or not at all.
	// Where a file system asks for more than 512, its writes tear only there.
	Sector int
}

// Ext4 returns an ext4 with 4 KiB blocks and a journal of 4 MiB, as small as
// it gets, which commits every second. Its super block has two sectors under
// one checksum: when a mount or unmount is torn between them, it takes the copy
// in the second group of blocks.
func Ext4() FS {
	return FS{
		Name: "ext4", Size: 32 << 20, Sector: sectorSize, Options: "noinit_itable", Record: "commit=1",
		Make:   []string{"mkfs.ext4", "-q", "-F", "-b", "4096", "-g", "4096", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"},
		Check:  []string{"e2fsck", "-f", "-n"},
		Repair: []string{"e2fsck", "-f", "-y", "-b", "4096", "-B", "4096"}, // from the copy of the super block
	}
}

// XFS returns an xfs as mkfs.xfs makes it on the smallest disk that it takes,
// for a disk with sectors of 4 KiB: its recovery passes over a block whose first
// 512 bytes are new already, and cannot mount when the rest of it was not
// written. Several states of one disk, with one UUID, may be mounted at a time.
func XFS() FS {
	return FS{
		Name: "xfs", Size: 300 << 20, Sector: pageSize, Options: "nouuid",
		Make:   []string{"mkfs.xfs", "-q", "-f", "-K", "-s", "size=4096"},
		Check:  []string{"xfs_repair", "-n"},
		Repair: []string{"xfs_repair"},
	}
}

// Btrfs returns a btrfs that commits every second. It reads its super block,
// one page, from one place only, so that a disk that tears pages can lose it
// whatever a program does: the sectors have the size of a page.
func Btrfs() FS {
	return FS{
		Name: "btrfs", Size: 128 << 20, Sector: pageSize, Options: "nodiscard", Record: "commit=1",
		Make:   []string{"mkfs.btrfs", "-q", "-f", "-K"},
		Check:  []string{"btrfs", "check", "--readonly"},
		Repair: []string{"btrfs", "rescue", "super-recover", "-y"},
	}
}
