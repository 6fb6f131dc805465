package codec

import (
	"encoding/binary"
	"iter"
)

// Script returns the splice script, not yet compressed, that makes to from
// from. Both are given as named pieces in rising order of their names, each name
// once. A piece that is the same in both is copied; one that changed in its
// middle costs what changed.
func Script(from, to iter.Seq2[string, []byte]) []byte {
	var w scriptWriter
	next, stop := iter.Pull2(from)
	defer stop()
	oldName, old, ok := next()
	for name, piece := range to {
		for ok && oldName < name {
			w.step(stepSkip, len(old), nil)
			oldName, old, ok = next()
		}
		if !ok || oldName > name {
			w.step(stepInsert, len(piece), piece)
			continue
		}
		w.change(old, piece)
		oldName, old, ok = next()
	}
	w.flush()
	return w.script
}

// scriptWriter joins steps of one kind. What is left of the other blob at the
// end needs no step.
type scriptWriter struct {
	script []byte
	last   int // step that n bytes wait for
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
	if w.n > 0 {
		w.script = binary.AppendUvarint(w.script, uint64(w.n)<<2|uint64(w.last))
		w.script = append(w.script, w.data...)
	}
	w.n, w.data = 0, w.data[:0]
}

// change makes piece from old: what both start and end with is copied.
func (w *scriptWriter) change(old, piece []byte) {
	head := 0
	for head < min(len(old), len(piece)) && old[head] == piece[head] {
		head++
	}
	tail := 0
	for tail < min(len(old), len(piece))-head && old[len(old)-1-tail] == piece[len(piece)-1-tail] {
		tail++
	}
	w.step(stepCopy, head, nil)
	w.step(stepSkip, len(old)-head-tail, nil)
	w.step(stepInsert, len(piece)-head-tail, piece[head:len(piece)-tail])
	w.step(stepCopy, tail, nil)
}
