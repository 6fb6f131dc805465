package delta

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
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
	compared int // parts of the new blob that were looked into
}

// windows say what is looked at together: so much of the new blob, and so much
// of the old one around the same place; and into what the part of the new one
// is cut for several cores. What is found depends on them alone.
type windows struct{ new, old, segment int64 }

func usual() windows { return windows{new: 64 << 20, old: 96 << 20, segment: 2 << 20} }

// Memory returns how many bytes Find takes at most for blobs of two sizes: eight
// for each byte of the old one and one of the new one, up to the windows; 840 MiB
// for the longest.
func Memory(oldSize, newSize int64) int64 {
	w := usual()
	return 1<<20 + 8*min(oldSize, w.old) + min(newSize, w.new)
}

// Find looks for what old and new have in common. A nil or empty old means a
// new blob. Find is the dear part: some 0.2 s of one core for each MB of a
// program, on all cores there are. It may be called from many goroutines, and
// takes memory as Memory says. Of blobs that are longer than 64 MiB each such
// part is compared with 96 MiB of the old one around the same place: what moved
// further is not found. A part that goes on where the copy before it ended, without a difference,
// is not looked into: of a long blob with few changes the rest costs little. ctx ends it early. Equal inputs give equal patches.
func Find(ctx context.Context, old, new Input) (*Patch, error) {
	return find(ctx, old, new, usual())
}

func find(ctx context.Context, old, new Input, w windows) (*Patch, error) {
	p := &Patch{old: old, new: new}
	if p.oldSize() == 0 {
		p.add(op{insert: new.Size()})
		return p, nil
	}
	for at := int64(0); at < new.Size(); at += w.new {
		if err := p.find(ctx, w, at, min(at+w.new, new.Size())); err != nil {
			return nil, fmt.Errorf("cannot make a patch: %w", err)
		}
	}
	return p, nil
}

// find looks for what a part of the new blob has in common with the part of the
// old one that is as far in it.
func (p *Patch) find(ctx context.Context, w windows, from, to int64) error {
	first := int64(0)
	if size := p.old.Size(); size > w.old {
		middle := int64(float64(from+to) / 2 / float64(p.new.Size()) * float64(size))
		first = max(0, min(middle-w.old/2, size-w.old))
	}
	old, err := load(p.old, first, min(first+w.old, p.old.Size()))
	if err != nil {
		return err
	}
	data, err := load(p.new, from, to)
	if err != nil {
		return err
	}
	if at := p.end() - first; at >= 0 && at <= int64(len(old)) && bytes.HasPrefix(old[at:], data) {
		p.add(op{from: at + first, copy: int64(len(data))})
		return nil
	}
	p.compared++
	for _, ops := range compare(ctx, old, data, int(from-first), int(w.segment)) {
		for _, o := range ops {
			o.from += first
			p.add(o)
		}
	}
	return ctx.Err()
}

// end returns where in the old blob the last copy ends.
func (p *Patch) end() int64 {
	if len(p.ops) == 0 {
		return 0
	}
	last := p.ops[len(p.ops)-1]
	return last.from + last.copy
}

// compare matches new with old, which are guessed to lie shift bytes apart, in
// segments on all cores.
func compare(ctx context.Context, old, new []byte, shift, segment int) [][]op {
	x := newIndex(old)
	found := make([][]op, (len(new)+segment-1)/segment)
	next := make(chan int)
	var all sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(found)) {
		all.Go(func() {
			for i := range next {
				f := finder{x: x, old: old, new: new[i*segment : min((i+1)*segment, len(new))]}
				if ctx.Err() == nil {
					found[i] = f.find(max(0, min(i*segment+shift, len(old))))
				}
			}
		})
	}
	for i := range found {
		next <- i
	}
	close(next)
	all.Wait()
	return found
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
