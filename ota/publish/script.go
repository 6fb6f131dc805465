package publish

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pawl-ota/pawl/ota/release"
)

// Script is a program that devices run while they install the release. See
// [release.Script].
type Script struct {
	// Name tells the scripts at one point apart; empty means the base name of
	// Run.
	Name string
	At   release.Point
	// Run and Undo are paths of programs of at most [release.MaxScript] bytes:
	// texts that begin with an interpreter line such as #!/bin/sh, or ELF
	// executables. Their modes do not matter. Undo may be empty.
	Run, Undo string
	// Limit is how long each of them may take, in whole seconds, at most
	// [release.MaxScriptLimit]; 0 leaves it to the device.
	Limit time.Duration
}

// maxInterpreter is the longest interpreter line in bytes that every kernel
// reads to its end; Linux before 5.1 drops the rest.
const maxInterpreter = 127

// scanScripts makes what the document says of scripts.
func (a *adding) scanScripts(list []Script) (out []release.Script, err error) {
	for _, s := range list {
		name := cmp.Or(s.Name, filepath.Base(s.Run))
		if s.Limit%time.Second != 0 {
			return nil, fmt.Errorf("script %q: limit: %v is not in whole seconds", name, s.Limit)
		}
		r := release.Script{Name: name, At: s.At, Limit: int(s.Limit / time.Second)}
		if r.Run, err = a.scanProgram(s.Run); err != nil {
			return nil, fmt.Errorf("script %q: run: %w", name, err)
		}
		if s.Undo != "" {
			if r.Undo, err = a.scanProgram(s.Undo); err != nil {
				return nil, fmt.Errorf("script %q: undo: %w", name, err)
			}
		}
		out = append(out, r)
	}
	a.added.Scripts += len(list)
	return out, nil
}

// scanProgram notes where the program is for fillScripts.
func (a *adding) scanProgram(path string) (release.Blob, error) {
	f, err := openProgram(path)
	if err != nil {
		return release.Blob{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, release.MaxScript+1))
	if err != nil {
		return release.Blob{}, err
	}
	b := release.Blob{Digest: release.Digest(h.Sum(nil)), Size: n}
	a.programs[b.Digest] = path
	return b, a.ctx.Err()
}

// openProgram opens a file that a device can run as a script.
func openProgram(path string) (*os.File, error) {
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if info.IsDir() {
		return nil, fmt.Errorf("%s is a folder", path)
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is a special file", ErrSpecial, path)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := checkProgram(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func checkProgram(f *os.File) error {
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return ErrChanged
	case info.Size() == 0:
		return errors.New("it is empty")
	case info.Size() > release.MaxScript:
		return fmt.Errorf("%d bytes are more than %d", info.Size(), int64(release.MaxScript))
	}
	head := make([]byte, min(info.Size(), maxInterpreter+2))
	if _, err := f.ReadAt(head, 0); err != nil {
		return err
	}
	return checkHead(head)
}

// checkHead checks the first bytes of a program, of which there are more than
// maxInterpreter if it has them.
func checkHead(head []byte) error {
	const elf, mark = "\x7fELF", "\xef\xbb\xbf"
	if bytes.HasPrefix(head, []byte(elf)) {
		return nil
	}
	if bytes.HasPrefix(head, []byte(mark+"#!")) {
		return errors.New("it begins with a byte order mark, behind which no kernel finds the interpreter line: save it without one")
	}
	rest, ok := bytes.CutPrefix(head, []byte("#!"))
	if !ok {
		return errors.New("it begins neither with an interpreter line, such as #!/bin/sh, nor as an ELF executable")
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	if bytes.ContainsRune(line, '\r') {
		return errors.New(`its interpreter line ends in CR LF, so that a device would look for an interpreter whose name ends in CR: save it with LF line ends`)
	}
	if len(line)+len("#!") > maxInterpreter {
		return fmt.Errorf("its interpreter line is longer than %d bytes", maxInterpreter)
	}
	words := bytes.Fields(line)
	if len(words) == 0 {
		return errors.New("its interpreter line names no interpreter")
	}
	if words[0][0] != '/' {
		return fmt.Errorf("its interpreter %q is not an absolute path", words[0])
	}
	return nil
}
