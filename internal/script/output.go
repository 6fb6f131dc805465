//go:build linux

package script

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// tail keeps the last max bytes of what is written to it.
type tail struct {
	max int
	buf []byte // grows up to max, and is a ring from then on
	at  int    // where the oldest byte is
	cut int64  // bytes that were dropped
}

func (t *tail) write(p []byte) {
	if over := len(p) - t.max; over > 0 {
		t.cut += int64(over)
		p = p[over:]
	}
	n := min(t.max-len(t.buf), len(p))
	t.buf = append(t.buf, p[:n]...)
	for p = p[n:]; len(p) > 0; p = p[n:] {
		n = copy(t.buf[t.at:], p)
		t.at = (t.at + n) % t.max
		t.cut += int64(n)
	}
}

// bytes returns what is kept, oldest first.
func (t *tail) bytes() []byte {
	return append(t.buf[t.at:len(t.buf):len(t.buf)], t.buf[:t.at]...)
}

// output collects what the program writes, as fast as it comes, so that a
// program never waits for its reader.
type output struct {
	tail
	fd   int // of r
	r    *os.File
	w    *os.File // the program's end; closed here once it was started
	done chan struct{}
}

func newOutput(limit int) (*output, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	w := os.NewFile(uintptr(fds[1]), "output")
	if err := unix.SetNonblock(fds[0], true); err != nil { // so that a read can be broken off
		unix.Close(fds[0])
		w.Close()
		return nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	o := &output{tail: tail{max: max(limit, 0)}, fd: fds[0], r: os.NewFile(uintptr(fds[0]), "output"), w: w, done: make(chan struct{})}
	go o.collect()
	return o, nil
}

func (o *output) collect() {
	defer close(o.done)
	buf := make([]byte, 64<<10)
	for {
		n, err := o.r.Read(buf)
		o.write(buf[:n])
		if err != nil {
			return
		}
	}
}

// close ends the collecting without waiting for the end of the pipe, which
// somebody may still hold open. What was written before close is taken in: that
// is at most what the pipe holds.
func (o *output) close() {
	o.w.Close()
	o.r.SetReadDeadline(time.Unix(1, 0))
	<-o.done
	rest, err := unix.FcntlInt(uintptr(o.fd), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		rest = 64 << 10
	}
	for buf := make([]byte, 4<<10); rest > 0; {
		n, err := unix.Read(o.fd, buf[:min(rest, len(buf))])
		if err != nil || n <= 0 {
			break
		}
		o.write(buf[:n])
		rest -= n
	}
	o.r.Close()
}
