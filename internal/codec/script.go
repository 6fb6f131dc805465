package codec

import (
	"bytes"
	"encoding/binary"
	"iter"
)

// Script returns the splice script, not yet compressed, that makes to from
// from. Both are texts of lines. Lines that are equal are copied; one that
// changed in the middle costs what changed. name returns what lines are paired
// by; the named lines come in the same order in both texts, which before says.
// For any other text the script is right too, and long.
func Script(from, to []byte, name func(line []byte) []byte, before func(a, b []byte) bool) []byte {
	var w scriptWriter
	next, stop := iter.Pull(bytes.Lines(from))
	defer stop()
	old, ok := next()
	for line := range bytes.Lines(to) {
		for ok && before(name(old), name(line)) {
			w.step(stepSkip, len(old), nil)
			old, ok = next()
		}
		if !ok || before(name(line), name(old)) {
			w.step(stepInsert, len(line), line)
			continue
		}
		w.change(old, line)
		old, ok = next()
	}
	w.flush()
	return w.script
}

// scriptWriter joins steps of one kind. What is left of the other blob at the
// end needs no step.
type scriptWriter struct {
	script []byte
	last   int
	n      int
	data   []byte // of an insert
}

func (w *scriptWriter) step(step, n int, data []byte) {
	if n == 0 {
		return
	}
	if step != w.last {
		w.flush()
		w.last = step
	}
	w.n += n
	w.data = append(w.data, data...)
}

func (w *scriptWriter) flush() {
	if w.n > 0 && w.last >= 0 {
		w.script = binary.AppendUvarint(w.script, uint64(w.n)<<2|uint64(w.last))
		w.script = append(w.script, w.data...)
	}
	w.n, w.data = 0, w.data[:0]
}

// change makes line from old: what both start and end with is copied.
func (w *scriptWriter) change(old, line []byte) {
	head := 0
	for head < min(len(old), len(line)) && old[head] == line[head] {
		head++
	}
	tail := 0
	for tail < min(len(old), len(line))-head && old[len(old)-1-tail] == line[len(line)-1-tail] {
		tail++
	}
	w.step(stepCopy, head, nil)
	w.step(stepSkip, len(old)-head-tail, nil)
	w.step(stepInsert, len(line)-head-tail, line[head:len(line)-tail])
	w.step(stepCopy, tail, nil)
}
