//go:build linux && (amd64 || arm64)

package trace

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// found is what a name or a descriptor stands for.
type found struct {
	path     string
	ino, dir uint64
	dev      uint64
	kind     uint32 // S_IFMT bits; 0: not there
}

// counts reports whether a change of it is a change of a file system. What is
// not there yet will be in its folder.
func counts(p found) bool {
	for _, not := range []string{"/proc/", "/sys/", "/memfd:"} {
		if strings.HasPrefix(p.path, not) {
			return false
		}
	}
	return strings.HasPrefix(p.path, "/")
}

// file returns the name under which /proc has a descriptor of k.
func (k *task) file(fd int) string {
	if fd == unix.AT_FDCWD {
		return k.proc() + "/cwd"
	}
	return k.proc() + "/fd/" + strconv.Itoa(fd)
}

func (k *task) proc() string { return "/proc/" + strconv.Itoa(k.tid) }

// open returns what a descriptor stands for. Devices and pipes stand for
// nothing that counts.
func (k *task) open(fd int) (found, bool) {
	name := k.file(fd)
	var st unix.Stat_t
	if unix.Stat(name, &st) != nil {
		return found{}, false
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFREG && kind != unix.S_IFDIR && kind != unix.S_IFBLK {
		return found{}, false
	}
	to, err := os.Readlink(name)
	if err != nil {
		return found{}, false
	}
	return found{path: strings.TrimSuffix(to, " (deleted)"), ino: st.Ino, dev: uint64(st.Dev), kind: kind}, true
}

// resolve returns what a name stands for, seen from the folder dirfd. With
// follow a symbolic link at its end is followed. A name that is not there is
// one of the folder that would hold it.
func (k *task) resolve(dirfd int, address uint64, follow bool) (found, error) {
	name := ""
	if address != 0 {
		var err error
		if name, err = k.text(address); err != nil {
			return found{}, err
		}
	}
	if name == "" { // the descriptor itself, where the flags allow it
		p, ok := k.open(dirfd)
		if !ok {
			return found{}, unix.ENOENT
		}
		return p, nil
	}
	full := k.full(dirfd, strings.TrimRight(name, "/"))
	folder, last := path.Split(full)
	if follow || last == "." || last == ".." || last == "" {
		if p, err := k.reach(full); err == nil {
			return p, nil
		}
	}
	return lookIn(folder, last)
}

// full returns a name as this process can use it.
func (k *task) full(dirfd int, name string) string {
	own := strings.NewReplacer("/proc/self/", k.proc()+"/", "/proc/thread-self/", k.proc()+"/")
	switch {
	case strings.HasPrefix(name, "/proc/"):
		return own.Replace(name)
	case strings.HasPrefix(name, "/"):
		return name
	case name == "":
		return "/"
	}
	return k.file(dirfd) + "/" + name
}

// reach returns what a name leads to.
func (k *task) reach(full string) (found, error) {
	fd, err := unix.Open(full, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return found{}, err
	}
	defer unix.Close(fd)
	p, err := describeFD(fd)
	if err != nil {
		return found{}, err
	}
	var dir unix.Stat_t
	if unix.Stat(path.Dir(p.path), &dir) == nil {
		p.dir = dir.Ino
	}
	return p, nil
}

// lookIn returns the name last of folder.
func lookIn(folder, last string) (found, error) {
	fd, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return found{}, err
	}
	defer unix.Close(fd)
	p, err := describeFD(fd)
	if err != nil {
		return found{}, err
	}
	p = found{path: path.Join(p.path, last), dir: p.ino, dev: p.dev}
	var st unix.Stat_t
	if unix.Fstatat(fd, last, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		p.ino, p.dev, p.kind = st.Ino, uint64(st.Dev), st.Mode&unix.S_IFMT
	}
	return p, nil
}

// describeFD returns what a descriptor of this process stands for.
func describeFD(fd int) (found, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return found{}, err
	}
	to, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	return found{path: strings.TrimSuffix(to, " (deleted)"), ino: st.Ino, dev: uint64(st.Dev), kind: st.Mode & unix.S_IFMT}, err
}

// position returns where the next write of a descriptor goes to.
func (k *task) position(fd int) int64 {
	data, err := os.ReadFile(k.proc() + "/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0
	}
	var pos, flags int64
	for line := range strings.Lines(string(data)) {
		word, value, _ := strings.Cut(line, ":")
		switch word {
		case "pos":
			pos, _ = strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		case "flags":
			flags, _ = strconv.ParseInt(strings.TrimSpace(value), 8, 64)
		}
	}
	if flags&unix.O_APPEND != 0 {
		return k.size(fd)
	}
	return pos
}

// size returns the length of the file that a descriptor stands for.
func (k *task) size(fd int) int64 {
	var st unix.Stat_t
	if unix.Stat(k.file(fd), &st) != nil {
		return 0
	}
	return st.Size
}

// contents reads a part of the file that a descriptor stands for.
func (k *task) contents(fd int, offset, size int64) ([]byte, error) {
	f, err := os.Open(k.file(fd))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := make([]byte, size)
	_, err = io.ReadFull(io.NewSectionReader(f, offset, size), data)
	return data, err
}

// processOf returns the process that a thread belongs to.
func processOf(tid int) int {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	if err != nil {
		return tid
	}
	_, rest, _ := strings.Cut(string(data), "\nTgid:")
	line, _, _ := strings.Cut(rest, "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return tid
	}
	return pid
}

// read reads from the memory of k.
func (k *task) read(address uint64, size int) ([]byte, error) {
	if size <= 0 {
		return nil, nil
	}
	data := make([]byte, size)
	local := []unix.Iovec{{Base: &data[0], Len: uint64(size)}}
	n, err := unix.ProcessVMReadv(k.tid, local, []unix.RemoteIovec{{Base: uintptr(address), Len: size}}, 0)
	if err != nil {
		return nil, err
	}
	if n < size {
		return data[:n], io.ErrUnexpectedEOF
	}
	return data, nil
}

// text reads a text that ends in a zero byte, page by page.
func (k *task) text(address uint64) (string, error) {
	var all []byte
	for len(all) < 2*unix.PathMax {
		part, err := k.read(address, 256-int(address%256))
		if err != nil {
			return "", err
		}
		if i := bytes.IndexByte(part, 0); i >= 0 {
			return string(append(all, part[:i]...)), nil
		}
		all, address = append(all, part...), address+uint64(len(part))
	}
	return "", errors.New("a name does not end")
}

// pieces reads an array of struct iovec.
func (k *task) pieces(address, count uint64) [][2]uint64 {
	b, err := k.read(address, 16*int(min(count, 1024)))
	if err != nil {
		return nil
	}
	all := make([][2]uint64, len(b)/16)
	for i := range all {
		all[i] = [2]uint64{order.Uint64(b[16*i:]), order.Uint64(b[16*i+8:])}
	}
	return all
}

func (k *task) sizeOf(address, count uint64) (size int64) {
	for _, p := range k.pieces(address, count) {
		size += int64(p[1])
	}
	return size
}

// gather reads the bytes that an array of struct iovec points to.
func (k *task) gather(address, count uint64) (all []byte) {
	for _, p := range k.pieces(address, count) {
		b, err := k.read(p[0], int(p[1]))
		if err != nil {
			return all
		}
		all = append(all, b...)
	}
	return all
}
