package delta

import (
	"context"
	"encoding/binary"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Patch says how to make one blob from another. It holds no content: the inputs
// are read again when it is written.
type Patch struct {
	old, new Input
	ops      []op
}

type op struct {
	from   int64
	copy   int64
	insert int64
}

// Find looks for what old and new have in common. A nil or empty old means a
// new blob. Find is the dear part, and may be called from many goroutines; ctx
// ends it early.
func Find(ctx context.Context, old, new Input) (*Patch, error) {
	p := &Patch{old: old, new: new}
	n := int64(0)
	if old != nil {
		a, b := make([]byte, 4096), make([]byte, 4096)
		for n < min(old.Size(), new.Size()) {
			k, _ := old.ReadAt(a, n)
			l, _ := new.ReadAt(b, n)
			k = min(k, l)
			i := 0
			for i < k && a[i] == b[i] {
				i++
			}
			n += int64(i)
			if i < len(a) {
				break
			}
		}
	}
	p.ops = append(p.ops, op{0, n, new.Size() - n})
	return p, ctx.Err()
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

// Writer writes a group.
type Writer struct {
	n   int64
	enc *zstd.Encoder
}

// NewWriter returns a Writer of a group to w.
func NewWriter(w io.Writer) *Writer {
	d := &Writer{}
	d.enc, _ = zstd.NewWriter(io.MultiWriter(w, (*counter)(&d.n)), zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(4<<20), zstd.WithEncoderConcurrency(1))
	return d
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// Add appends a patch.
func (w *Writer) Add(p *Patch) error {
	var oldSize int64
	if p.old != nil {
		oldSize = p.old.Size()
	}
	o := p.ops[0]
	b := binary.AppendUvarint(nil, uint64(oldSize))
	b = binary.AppendUvarint(b, uint64(o.copy))
	b = binary.AppendUvarint(b, uint64(o.insert))
	if _, err := w.enc.Write(b); err != nil {
		return err
	}
	_, err := io.Copy(w.enc, io.NewSectionReader(p.new, o.copy, o.insert))
	return err
}

// Len returns how many bytes were written so far; only after Close all of them.
func (w *Writer) Len() int64 { return w.n }

// Close ends the group.
func (w *Writer) Close() error { return w.enc.Close() }
