//go:build linux && (amd64 || arm64)

package trace

import "golang.org/x/sys/unix"

// shape says where a call has its arguments, each as its place from 1; 0 is
// none.
type shape struct {
	name       string
	fd         int // the descriptor that is changed
	from       int // the descriptor that a copy reads
	dir, path  int // the folder's descriptor, where the call has one, and the name
	dir2       int
	path2      int
	flags      int
	mode       int
	owner      int // the user's id; the group's follows
	offset     int // by value
	offsetAt   int // by a pointer that may be nil
	size       int
	buf        int // the bytes that are written
	vec, count int // the same in several pieces
	target     int
	attr       int // name of an attribute; the value's place and length follow
	follow     bool
	opens      bool // Result is a descriptor of what Path names
	makes      bool // Path is made
	how        bool // openat2: the flags are in memory
	bare       bool // no file is named
}

// shapes are the calls that can change something, by number.
func shapes() map[uintptr]shape {
	all := more()
	if all == nil {
		all = map[uintptr]shape{}
	}
	for _, group := range []map[uintptr]shape{ofNames(), ofDescriptors(), ofAttributes()} {
		for nr, s := range group {
			all[nr] = s
		}
	}
	return all
}

func ofNames() map[uintptr]shape {
	return map[uintptr]shape{
		unix.SYS_OPENAT:       {name: "openat", dir: 1, path: 2, flags: 3, mode: 4, opens: true},
		unix.SYS_OPENAT2:      {name: "openat2", dir: 1, path: 2, how: true, opens: true},
		unix.SYS_MKDIRAT:      {name: "mkdirat", dir: 1, path: 2, mode: 3, makes: true},
		unix.SYS_MKNODAT:      {name: "mknodat", dir: 1, path: 2, mode: 3, makes: true},
		unix.SYS_SYMLINKAT:    {name: "symlinkat", target: 1, dir: 2, path: 3, makes: true},
		unix.SYS_LINKAT:       {name: "linkat", dir: 1, path: 2, dir2: 3, path2: 4, flags: 5},
		unix.SYS_UNLINKAT:     {name: "unlinkat", dir: 1, path: 2, flags: 3},
		unix.SYS_RENAMEAT:     {name: "renameat", dir: 1, path: 2, dir2: 3, path2: 4},
		unix.SYS_RENAMEAT2:    {name: "renameat2", dir: 1, path: 2, dir2: 3, path2: 4, flags: 5},
		unix.SYS_TRUNCATE:     {name: "truncate", path: 1, size: 2, follow: true},
		unix.SYS_FCHMODAT:     {name: "fchmodat", dir: 1, path: 2, mode: 3, follow: true},
		unix.SYS_FCHMODAT2:    {name: "fchmodat2", dir: 1, path: 2, mode: 3, flags: 4, follow: true},
		unix.SYS_FCHOWNAT:     {name: "fchownat", dir: 1, path: 2, owner: 3, flags: 5, follow: true},
		unix.SYS_UTIMENSAT:    {name: "utimensat", dir: 1, path: 2, flags: 4, follow: true},
		unix.SYS_FILE_SETATTR: {name: "file_setattr", dir: 1, path: 2, flags: 5, follow: true},
		unix.SYS_SYNC:         {name: "sync", bare: true},
		unix.SYS_MSYNC:        {name: "msync", bare: true},
	}
}

func ofDescriptors() map[uintptr]shape {
	return map[uintptr]shape{
		unix.SYS_WRITE:           {name: "write", fd: 1, buf: 2, size: 3},
		unix.SYS_PWRITE64:        {name: "pwrite64", fd: 1, buf: 2, size: 3, offset: 4},
		unix.SYS_WRITEV:          {name: "writev", fd: 1, vec: 2, count: 3},
		unix.SYS_PWRITEV:         {name: "pwritev", fd: 1, vec: 2, count: 3, offset: 4},
		unix.SYS_PWRITEV2:        {name: "pwritev2", fd: 1, vec: 2, count: 3, offset: 4},
		unix.SYS_COPY_FILE_RANGE: {name: "copy_file_range", from: 1, fd: 3, offsetAt: 4, size: 5},
		unix.SYS_SENDFILE:        {name: "sendfile", fd: 1, from: 2, size: 4},
		unix.SYS_SPLICE:          {name: "splice", from: 1, fd: 3, offsetAt: 4, size: 5},
		unix.SYS_IOCTL:           {name: "ioctl", fd: 1, flags: 2},
		unix.SYS_FTRUNCATE:       {name: "ftruncate", fd: 1, size: 2},
		unix.SYS_FALLOCATE:       {name: "fallocate", fd: 1, flags: 2, offset: 3, size: 4},
		unix.SYS_FSYNC:           {name: "fsync", fd: 1},
		unix.SYS_FDATASYNC:       {name: "fdatasync", fd: 1},
		unix.SYS_SYNC_FILE_RANGE: {name: "sync_file_range", fd: 1, offset: 2, size: 3, flags: 4},
		unix.SYS_SYNCFS:          {name: "syncfs", fd: 1},
		unix.SYS_FCHMOD:          {name: "fchmod", fd: 1, mode: 2},
		unix.SYS_FCHOWN:          {name: "fchown", fd: 1, owner: 2},
		unix.SYS_MMAP:            {name: "mmap", fd: 5, size: 2},
	}
}

func ofAttributes() map[uintptr]shape {
	return map[uintptr]shape{
		unix.SYS_SETXATTR:      {name: "setxattr", path: 1, attr: 2, flags: 5, follow: true},
		unix.SYS_LSETXATTR:     {name: "lsetxattr", path: 1, attr: 2, flags: 5},
		unix.SYS_FSETXATTR:     {name: "fsetxattr", fd: 1, attr: 2, flags: 5},
		unix.SYS_SETXATTRAT:    {name: "setxattrat", dir: 1, path: 2, flags: 3, attr: 4, follow: true},
		unix.SYS_REMOVEXATTR:   {name: "removexattr", path: 1, attr: 2, follow: true},
		unix.SYS_LREMOVEXATTR:  {name: "lremovexattr", path: 1, attr: 2},
		unix.SYS_FREMOVEXATTR:  {name: "fremovexattr", fd: 1, attr: 2},
		unix.SYS_REMOVEXATTRAT: {name: "removexattrat", dir: 1, path: 2, flags: 3, attr: 4, follow: true},
	}
}
