package alert

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Lines gives the lines of a log that are written from now on, without what ends
// them, until ctx ends. It returns why it cannot go on before.
type Lines func(ctx context.Context, line func(string)) error

const (
	maxLine     = 4 << 10
	followMin   = time.Second
	followMax   = time.Minute
	followBad   = 3 // failures in a row that are told
	followEvery = 24 * time.Hour
	pollEvery   = time.Second
)

// Follow has the rules see the lines of a log, until ctx ends. When from ends
// before, it is called again, after a wait that grows; lines that are written
// meanwhile are missed. That a log cannot be followed three times in a row is an
// alert itself, of the name "log" and the log's, told once a day at most.
func (a *Alerts) Follow(ctx context.Context, log string, from Lines) {
	wait, failures := followMin, 0
	for ctx.Err() == nil {
		began, lines := time.Now(), false
		err := from(ctx, func(line string) {
			if !lines {
				lines = true
				a.follows(log, nil)
			}
			a.Line(log, line)
		})
		if lines || time.Since(began) > followMax {
			wait, failures = followMin, 0
		}
		if failures++; failures >= followBad && ctx.Err() == nil {
			a.follows(log, err)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		wait = min(2*wait, followMax)
	}
}

// follows notes whether a log can be followed.
func (a *Alerts) follows(log string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.logs[log]
	if s == nil {
		s = &state{Rule: Rule{Name: "log " + log, Probe: log, Every: Duration(followEvery)}}
		a.logs[log] = s
	}
	s.saw = log + " is followed"
	if err != nil {
		s.saw = "cannot follow " + log + ": " + err.Error()
	}
	now := time.Now()
	s.turn(now, err != nil)
	a.step(s, now)
}

// Journal gives what a unit of systemd writes, as "journalctl --follow" shows it.
// args come before all others, such as --user.
func Journal(unit string, args ...string) Lines {
	return Command(append(append([]string{"journalctl"}, args...), "--quiet", "--follow", "--lines=0", "--output=cat", "--unit="+unit)...)
}

// Command gives what a command writes to its standard output. It runs in a
// process group of its own, which is killed when ctx ends.
func Command(args ...string) Lines {
	return func(ctx context.Context, line func(string)) error {
		if len(args) == 0 {
			return errors.New("there is no command")
		}
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		cmd.WaitDelay = time.Second
		said := &head{}
		cmd.Stderr = said
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("cannot run %s: %w", args[0], err)
		}
		stop := context.AfterFunc(ctx, func() { _ = out.Close() }) // somebody who left its group may hold it
		defer stop()
		err = scan(out, line)
		kill := time.AfterFunc(time.Second, func() { _ = cmd.Cancel() }) // it may have closed its output, and live on
		defer kill.Stop()
		if waited := cmd.Wait(); waited != nil {
			err = fmt.Errorf("%s: %w: %.200q", args[0], waited, said.text())
		}
		return err
	}
}

// head keeps the first bytes that are written to it, by a goroutine that may
// outlive the command.
type head struct {
	mu   sync.Mutex
	data []byte
}

func (h *head) text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return string(h.data)
}

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.data = append(h.data, p[:min(len(p), 200-len(h.data))]...)
	return len(p), nil
}

// Reader gives what open opens: the log of a container, say, as its engine
// streams it from now on. It is closed at the end.
func Reader(open func(ctx context.Context) (io.ReadCloser, error)) Lines {
	return func(ctx context.Context, line func(string)) error {
		r, err := open(ctx)
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { _ = r.Close() })
		defer func() {
			if stop() {
				_ = r.Close()
			}
		}()
		return scan(r, line)
	}
}

// scan calls line for each line of r until it ends. What is above 4 KiB in a
// line is passed over.
func scan(r io.Reader, line func(string)) error {
	lines := bufio.NewReaderSize(r, maxLine)
	for {
		text, more, err := lines.ReadLine()
		if err == nil || len(text) > 0 {
			line(string(text))
		}
		for more && err == nil {
			_, more, err = lines.ReadLine()
		}
		if err != nil {
			return fmt.Errorf("the log ended: %w", err)
		}
	}
}

// File gives what is added to a file, looking for it every second. When another
// file takes its name, or it is cut, that one is read from its beginning, after
// the rest of the old one.
func File(path string) Lines {
	return func(ctx context.Context, line func(string)) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if _, err := f.Seek(0, io.SeekEnd); err != nil {
			return err
		}
		r := &growing{ctx: ctx, path: path, f: f}
		err = scan(r, line)
		f = r.f
		return err
	}
}

// growing reads a file that others write, and never ends before ctx does.
type growing struct {
	ctx  context.Context
	path string
	f    *os.File
}

func (g *growing) Read(p []byte) (int, error) {
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for {
		if n, err := g.f.Read(p); n > 0 || err != nil && !errors.Is(err, io.EOF) {
			return n, err
		}
		if next, err := g.next(); err != nil {
			return 0, err
		} else if next {
			continue
		}
		select {
		case <-t.C:
		case <-g.ctx.Done():
			return 0, g.ctx.Err()
		}
	}
}

// next goes on with what has the name now, and reports whether that may have
// more.
func (g *growing) next() (bool, error) {
	is, err := os.Stat(g.path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // it is being turned over
	}
	was, werr := g.f.Stat()
	if err := errors.Join(err, werr); err != nil {
		return false, err
	}
	if !os.SameFile(is, was) {
		f, err := os.Open(g.path)
		if err != nil {
			return false, err
		}
		err = g.f.Close()
		g.f = f
		return true, err
	}
	at, err := g.f.Seek(0, io.SeekCurrent)
	if err == nil && is.Size() < at {
		_, err = g.f.Seek(0, io.SeekStart)
		return err == nil, err
	}
	return false, err
}
