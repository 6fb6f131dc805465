package otatest

import (
	"fmt"
	"io"
)

// line is the network of a device.
type line struct {
	chunk  int // most bytes of one read; 0 for any number
	reads  int
	faults map[int]Fault
	came   map[string][]bool // bytes of the repository's files that came
	bytes  int64
	again  int64
}

// Trickle has the network give at most n bytes with one read.
func (d *Device) Trickle(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.line.chunk = n
}

// AtRead puts a fault on the nth read from now of what a source opened, from 1
// on. Fail has the connection break.
func (d *Device) AtRead(n int, f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.line.faults == nil {
		d.line.faults = map[int]Fault{}
	}
	d.line.faults[d.line.reads+n] = f
}

// Received returns how many bytes of the repository came over the network since
// the device was made or cloned, how many of them had come before, and with how
// many reads.
func (d *Device) Received() (bytes, again int64, reads int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.line.bytes, d.line.again, d.line.reads
}

// onLine is an open file of the repository, as it comes over the network.
type onLine struct {
	p    *process
	r    io.ReadCloser
	name string
	at   int64
}

func (o *onLine) Close() error { return o.r.Close() }

func (o *onLine) Read(b []byte) (int, error) {
	d := o.p.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if !o.p.alive() {
		return 0, errDead
	}
	l := &d.line
	l.reads++
	switch fault := l.faults[l.reads]; fault {
	case PowerCut, Kill:
		d.hits++
		if d.end(); fault == PowerCut {
			d.powerOff()
		}
		return 0, errDead
	case Fail:
		d.hits++
		return 0, fmt.Errorf("otatest: the connection broke: %w", io.ErrUnexpectedEOF)
	}
	if l.chunk > 0 {
		b = b[:min(len(b), l.chunk)]
	}
	n, err := o.r.Read(b)
	l.count(o.name, o.at, n)
	o.at += int64(n)
	return n, err
}

func (l *line) count(name string, at int64, n int) {
	if l.came == nil {
		l.came = map[string][]bool{}
	}
	seen := l.came[name]
	if more := int(at) + n - len(seen); more > 0 {
		seen = append(seen, make([]bool, more)...)
	}
	for i := range seen[at : at+int64(n)] {
		if seen[int(at)+i] {
			l.again++
		}
		seen[int(at)+i] = true
	}
	l.came[name], l.bytes = seen, l.bytes+int64(n)
}
