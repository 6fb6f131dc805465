//go:build linux

package script

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/seam"
)

// explain says for a person why execve answered err. It is asked only then, and
// what it finds has no effect.
func explain(p seam.Program, file *os.File, err error) error {
	if info, dirErr := os.Stat(p.Dir); p.Dir != "" && (dirErr != nil || !info.IsDir()) {
		return fmt.Errorf("no folder %s to start it in: %w", p.Dir, err)
	}
	head := make([]byte, 4096)
	n, _ := file.ReadAt(head, 0)
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte("#!")):
		return explainText(head, err)
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		return explainELF(file, head, err)
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf#!")):
		return fmt.Errorf("there is a byte order mark before its interpreter line: %w", err)
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("it is neither an executable nor a text that begins with #! and an interpreter: %w", err)
	}
	return err
}

// explainText looks at the interpreter line.
func explainText(head []byte, err error) error {
	line, _, whole := bytes.Cut(head[2:], []byte("\n"))
	line = bytes.TrimLeft(line, " \t")
	if i := bytes.IndexAny(line, " \t"); i >= 0 {
		line = line[:i]
	}
	interpreter := string(line)
	switch {
	case strings.HasSuffix(interpreter, "\r"):
		return fmt.Errorf("its interpreter line ends in a carriage return, as of a text made on Windows: %w", err)
	case interpreter == "" || !whole && len(head) == cap(head):
		return fmt.Errorf("its interpreter line names no interpreter: %w", err)
	}
	info, statErr := os.Stat(interpreter)
	switch {
	case errors.Is(statErr, os.ErrNotExist):
		return fmt.Errorf("its interpreter %q is not on this device: %w", interpreter, err)
	case statErr == nil && (!info.Mode().IsRegular() || info.Mode()&0o111 == 0):
		return fmt.Errorf("its interpreter %q is not executable: %w", interpreter, err)
	}
	return fmt.Errorf("its interpreter %q cannot be started: %w", interpreter, err)
}

// machines are names for e_machine of an ELF file, the architectures of this
// module in Go's words.
var machines = map[uint16]string{
	3: "386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv", 258: "loong64",
}

// explainELF looks at the header: the class at 4, the byte order at 5, the
// machine at 18.
func explainELF(file io.ReaderAt, head []byte, err error) error {
	if len(head) < 64 {
		return fmt.Errorf("it is an executable that was cut short: %w", err)
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[5] == 2 {
		order = binary.BigEndian
	}
	if errors.Is(err, unix.ENOEXEC) {
		number := order.Uint16(head[18:])
		name, ok := machines[number]
		if !ok {
			name = fmt.Sprintf("ELF machine %d", number)
		}
		bits := 32
		if head[4] == 2 {
			bits = 64
		}
		return fmt.Errorf("it is an executable for %s, %d bit, which this device (%s) does not run: %w", name, bits, runtime.GOARCH, err)
	}
	if loader := loaderOf(file, head, order); loader != "" && errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("its loader %q is not on this device, it was linked for another system: %w", loader, err)
	}
	return err
}

// loaderOf returns the path in the PT_INTERP entry of the program headers.
func loaderOf(file io.ReaderAt, head []byte, order binary.ByteOrder) string {
	word := func(b []byte, at32, at64 int) int64 {
		if head[4] == 2 {
			return int64(order.Uint64(b[at64:]))
		}
		return int64(order.Uint32(b[at32:]))
	}
	table, size, count := word(head, 28, 32), int64(order.Uint16(head[42:])), int64(order.Uint16(head[44:]))
	if head[4] == 2 {
		size, count = int64(order.Uint16(head[54:])), int64(order.Uint16(head[56:]))
	}
	for i := range min(count, 64) {
		entry := make([]byte, 56)
		if n, _ := file.ReadAt(entry, table+i*size); n < 32 {
			return ""
		}
		if order.Uint32(entry) == 3 {
			path := make([]byte, min(max(word(entry, 16, 32), 0), 4096))
			n, _ := file.ReadAt(path, word(entry, 4, 8))
			return string(bytes.TrimRight(path[:n], "\x00"))
		}
	}
	return ""
}
