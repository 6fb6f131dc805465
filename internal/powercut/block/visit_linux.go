package block

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// Visit is one state that a visitor looks at.
type Visit struct {
	N     int    // the number of the state
	Marks int    // how many marks must hold
	Last  string // the last of them
}

// Look looks at a state, mounted on dir, and returns what is wrong.
type Look func(dir string, v Visit) error

// found is a visitor's answer: each is empty when all is well.
type found struct {
	Mount string // it cannot be mounted
	Wrong string
	Error string // it cannot be told
}

// visitor is a process that looks at the states of one stand. Its namespaces are
// its own: several can mount theirs at one path, and none finds (and ends) the
// scripts of a transaction that another one has, too.
type visitor struct {
	cmd *exec.Cmd
	to  io.WriteCloser
	in  *json.Encoder
	out *json.Decoder
}

// startVisitor starts cmd, a program that calls [Visiting], for p.
func startVisitor(cmd *exec.Cmd, p Place) (*visitor, error) {
	v := &visitor{cmd: cmd}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS}
	cmd.Stderr = os.Stderr
	to, err1 := cmd.StdinPipe()
	from, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	v.to, v.in, v.out = to, json.NewEncoder(to), json.NewDecoder(bufio.NewReader(from))
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start a visitor: %w", err)
	}
	if err := v.in.Encode(p); err != nil {
		return nil, errors.Join(err, v.close())
	}
	return v, nil
}

func (v *visitor) visit(at Visit) (f found, err error) {
	if err := errors.Join(v.in.Encode(at), v.out.Decode(&f)); err != nil {
		return f, fmt.Errorf("the visitor is gone: %w", err)
	}
	return f, nil
}

func (v *visitor) close() error { return errors.Join(v.to.Close(), v.cmd.Wait()) }

// Visiting is what a visitor does: it looks at each state that it is asked for
// on in, and answers on out.
func Visiting(in io.Reader, out io.Writer, look Look) error {
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("cannot mount /proc: %w", err)
	}
	var p Place
	ask, answer := json.NewDecoder(in), json.NewEncoder(out)
	if err := ask.Decode(&p); err != nil {
		return err
	}
	for {
		var v Visit
		if err := ask.Decode(&v); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := answer.Encode(visitOne(p, v, look)); err != nil {
			return err
		}
	}
}

func visitOne(p Place, v Visit, look Look) (f found) {
	if err := p.Mount(); err != nil {
		return found{Mount: err.Error()}
	}
	if err := look(p.Dir, v); err != nil {
		f.Wrong = err.Error()
	}
	if err := p.Unmount(); err != nil {
		f.Error = err.Error()
	}
	return f
}
