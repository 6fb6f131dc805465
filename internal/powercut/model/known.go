//go:build linux

package model

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/pawl-ota/pawl/internal/seam"
)

// known are the inodes that are laid out, and what a program knows each by. All
// are on one file system.
type known struct{ all sync.Map }

// laid is one of them.
type laid struct{ is, was seam.Ident }

// show implements the Inode of internal/seam. An inode that was changed since
// has the time of that.
func (x *known) show(id *seam.Ident) {
	v, ok := x.all.Load(id.Ino)
	if !ok || v.(laid).is.Birth != id.Birth {
		return
	}
	l := v.(laid)
	if id.Ctime == l.is.Ctime {
		id.Ctime = l.was.Ctime
	}
	id.Ino, id.Birth = l.was.Ino, l.was.Birth
}

// install has the whole process see them, until the function returned is called.
func (x *known) install() func() {
	show := x.show
	seam.Inode.Store(&show)
	return func() { seam.Inode.Store(nil) }
}

// write saves them for another process.
func (x *known) write(path string) error {
	var buf bytes.Buffer
	for _, v := range x.all.Range {
		l := v.(laid)
		fmt.Fprintln(&buf, l.is.Ino, l.is.Birth, l.is.Ctime, l.was.Ino, l.was.Birth, l.was.Ctime)
	}
	return os.WriteFile(path, buf.Bytes(), 0o600)
}

func readKnown(path string) (*known, error) {
	data, err := os.ReadFile(path)
	x := &known{}
	for line := range strings.Lines(string(data)) {
		var l laid
		if _, err := fmt.Sscan(line, &l.is.Ino, &l.is.Birth, &l.is.Ctime, &l.was.Ino, &l.was.Birth, &l.was.Ctime); err != nil {
			return nil, err
		}
		x.all.Store(l.is.Ino, l)
	}
	return x, err
}
