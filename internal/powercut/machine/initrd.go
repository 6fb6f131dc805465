package machine

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// initrd is an initial file system in memory, an archive in cpio's newc format,
// as Documentation/driver-api/early-userspace/buffer-format.rst of Linux has it.
type initrd struct {
	buf  bytes.Buffer
	next int
}

const (
	typeDir, typeFile, typeLink, typeChar = 0o040000, 0o100000, 0o120000, 0o020000
)

func (i *initrd) add(name string, mode uint32, data []byte) { i.node(name, mode, 0, 0, data) }

// console adds the device that init's output goes to.
func (i *initrd) console() { i.node("dev/console", typeChar|0o600, 5, 1, nil) }

func (i *initrd) node(name string, mode, major, minor uint32, data []byte) {
	i.next++
	fmt.Fprintf(&i.buf, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		i.next, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0)
	i.buf.WriteString(name)
	i.buf.WriteByte(0)
	i.pad()
	i.buf.Write(data)
	i.pad()
}

func (i *initrd) pad() {
	for i.buf.Len()%4 != 0 {
		i.buf.WriteByte(0)
	}
}

// tree adds what is at from, under the name to.
func (i *initrd) tree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, perm := filepath.Join(to, rel), uint32(info.Mode().Perm())
		switch {
		case info.IsDir():
			i.add(name, typeDir|perm, nil)
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			i.add(name, typeFile|perm, data)
			return err
		default:
			target, err := os.Readlink(path)
			i.add(name, typeLink|0o777, []byte(target))
			return err
		}
		return nil
	})
}

func (i *initrd) bytes() []byte {
	i.add("TRAILER!!!", 0, nil)
	return i.buf.Bytes()
}
