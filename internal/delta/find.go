package delta

import (
	"context"
	"fmt"
	"io"
	"sync"
)

// op is one step of a patch: copy bytes of the old blob from a place, changed
// here and there, then insert bytes that follow in the new blob.
type op struct {
	from   int64 // in the old blob
	copy   int64
	insert int64
}

// Patch says how to make one blob from another. It holds no content: the inputs
// are read again when it is written.
type Patch struct {
	old, new Input
	ops      []op
}

// What is looked at together: so much of the new blob, and so much of the old
// one around the same place; and the pieces of the new part that are looked at
// at the same time.
const (
	newWindow = 64 << 20
	oldWindow = 96 << 20
	segment   = 2 << 20
)

// Find looks for what old and new have in common. A nil or empty old means a
// new blob. Find is the dear part, and may be called from many goroutines; ctx
// ends it early.
func Find(ctx context.Context, old, new Input) (*Patch, error) {
	p := &Patch{old: old, new: new}
	if old == nil || old.Size() == 0 {
		p.insert(new.Size())
		return p, nil
	}
	for at := int64(0); at < new.Size(); at += newWindow {
		if err := p.window(ctx, at, min(at+newWindow, new.Size())); err != nil {
			return nil, fmt.Errorf("cannot make a patch: %w", err)
		}
	}
	return p, nil
}

// window finds what a part of the new blob has in common with the part of the
// old one that is as far in it.
func (p *Patch) window(ctx context.Context, from, to int64) error {
	first := int64(0)
	if p.old.Size() > oldWindow {
		middle := int64(float64(from+to) / 2 / float64(p.new.Size()) * float64(p.old.Size()))
		first = max(0, min(middle-oldWindow/2, p.old.Size()-oldWindow))
	}
	old, err := load(p.old, first, min(first+oldWindow, p.old.Size()))
	if err != nil {
		return err
	}
	data, err := load(p.new, from, to)
	if err != nil {
		return err
	}
	x := newIndex(old)
	found := make([][]op, (len(data)+segment-1)/segment)
	var all sync.WaitGroup
	for i := range found {
		all.Go(func() {
			part := data[i*segment : min((i+1)*segment, len(data))]
			if ctx.Err() == nil {
				found[i] = (&finder{x: x, old: old, new: part}).find(i * segment)
			}
		})
	}
	all.Wait()
	for _, ops := range found {
		for _, o := range ops {
			o.from += first
			p.add(o)
		}
	}
	return ctx.Err()
}

func (p *Patch) insert(n int64) {
	if n > 0 {
		p.add(op{insert: n})
	}
}

// add appends an op, as a part of the one before where it carries on with that.
func (p *Patch) add(o op) {
	if o.copy == 0 && o.insert == 0 {
		return
	}
	if len(p.ops) > 0 {
		last := &p.ops[len(p.ops)-1]
		if o.copy == 0 {
			last.insert += o.insert
			return
		}
		if last.insert == 0 && last.from+last.copy == o.from {
			last.copy += o.copy
			last.insert = o.insert
			return
		}
	}
	p.ops = append(p.ops, o)
}

// load reads a part of a blob.
func load(in Input, from, to int64) ([]byte, error) {
	data := make([]byte, to-from)
	if n, err := in.ReadAt(data, from); n < len(data) {
		return nil, err
	}
	return data, nil
}

// A match is worth a step of its own when it is so many bytes longer than what
// is equal there without it; and one that is so long is not compared with others.
const (
	better  = 8
	goodRun = 24
)

// finder looks for approximate matches of new in old, as Colin Percival's bsdiff
// does ("Naive differences of executable code", 2003): exact matches that are
// better than going on as before are the seeds, and each is extended in both
// directions as long as more than half of the bytes are equal.
type finder struct {
	x        *index
	old, new []byte
	ops      []op
	done     int // new[:done] is described by ops, together with the match from there
	from     int // where in old the match is that begins at done
}

// find returns the steps. guess is where in old the match may go on with which
// new begins.
func (f *finder) find(guess int) []op {
	f.from = min(guess, len(f.old))
	for i := 0; i < len(f.new); {
		here := min(i-f.done+f.from, len(f.old))
		run := common(f.new[i:], f.old[here:])
		if run >= goodRun {
			i += run
			continue
		}
		at, n := f.x.longest(f.new[i:])
		if n > better && at != here && n > f.equal(i, here, n)+better {
			f.flush(i, at)
			i += n
			continue
		}
		i += max(run, 1)
	}
	f.flush(len(f.new), len(f.old))
	return f.ops
}

// equal counts the bytes that are equal where new[i:i+n] is laid on old[at:].
func (f *finder) equal(i, at, n int) int {
	a, b := f.new[i:i+n], f.old[at:]
	b = b[:min(len(b), n)]
	sum := 0
	for j, c := range b {
		if a[j] == c {
			sum++
		}
	}
	return sum
}

// flush ends the match that began at done, because another was found at i that
// lies at in old: where they meet, both are extended.
func (f *finder) flush(i, at int) {
	ahead := f.ahead(i)
	back := f.back(i, at)
	if over := f.done + ahead - (i - back); over > 0 {
		cut := f.meet(i-back, at-back, over)
		ahead -= over - cut
		back -= cut
	}
	f.ops = append(f.ops, op{from: int64(f.from), copy: int64(ahead), insert: int64(i - back - f.done - ahead)})
	f.done, f.from = i-back, at-back
}

// ahead returns how far the match at done goes on before i.
func (f *finder) ahead(i int) int {
	a, b := f.new[f.done:i], f.old[f.from:]
	score, best, n := 0, 0, 0
	for j := range min(len(a), len(b)) {
		if a[j] == b[j] {
			score++
		} else {
			score--
		}
		if score > best {
			best, n = score, j+1
		}
	}
	return n
}

// back returns how far the match of new[i:] with old[at:] reaches back.
func (f *finder) back(i, at int) int {
	if i == len(f.new) {
		return 0
	}
	score, best, n := 0, 0, 0
	for j := 1; j <= min(i-f.done, at); j++ {
		if f.new[i-j] == f.old[at-j] {
			score++
		} else {
			score--
		}
		if score > best {
			best, n = score, j
		}
	}
	return n
}

// meet returns how much of over bytes from i on, that both matches describe, is
// best left to the one before; the other one lies at in old there.
func (f *finder) meet(i, at, over int) int {
	was := f.from + i - f.done
	score, best, n := 0, 0, 0
	for j := range over {
		if f.new[i+j] == f.old[was+j] {
			score++
		}
		if f.new[i+j] == f.old[at+j] {
			score--
		}
		if score > best {
			best, n = score, j+1
		}
	}
	return n
}

func (p *Patch) oldSize() int64 {
	if p.old == nil {
		return 0
	}
	return p.old.Size()
}

// Size returns what the patch would weigh in a group of its own, in bytes. It
// writes the patch to find out.
func (p *Patch) Size() (int64, error) {
	w := NewWriter(io.Discard)
	if err := w.Add(p); err != nil {
		return 0, err
	}
	err := w.Close()
	return w.Len(), err
}
