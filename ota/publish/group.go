package publish

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"

	"github.com/pawl-ota/pawl/internal/delta"
	"github.com/pawl-ota/pawl/ota/release"
)

// deltaMemory is what all searches for deltas that run at a time may take, in
// bytes. One alone may take more.
const deltaMemory = 768 << 20

// makeGroups makes all groups, on all cores. Each is made once, and what it
// makes is compared with what was scanned before it counts.
func (a *adding) makeGroups(list []*making, f *os.File) error {
	ctx, stop := context.WithCancelCause(a.ctx)
	defer stop(nil)
	w := &groupMaker{ctx: ctx, a: a, f: f, memory: newBudget(deltaMemory)}
	jobs := make(chan *group)
	var work sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		work.Go(func() {
			for g := range jobs {
				if err := w.make(g); err != nil {
					stop(err)
				}
			}
		})
	}
	groups := uniqueGroups(list, &w.total)
	if len(groups) > 0 {
		w.tell(groups[0], 0)
	}
	for _, g := range groups {
		select {
		case jobs <- g:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(jobs)
	work.Wait()
	return context.Cause(ctx)
}

// uniqueGroups has deltas share groups that are the same, and returns each once.
func uniqueGroups(list []*making, total *int64) (all []*group) {
	known := map[release.Digest]*group{}
	for _, m := range list {
		for i, g := range m.groups {
			var key []byte
			for _, p := range g.pairs {
				key = append(append(key, p.from.Digest[:]...), p.to.Digest[:]...)
			}
			if same := known[release.Sum(key)]; same != nil {
				// The ordinals are those of this delta.
				m.groups[i] = &group{part: g.part, from: g.from, pairs: g.pairs, like: same}
				continue
			}
			known[release.Sum(key)] = g
			all = append(all, g)
			for _, p := range g.pairs {
				*total += p.to.Size
			}
		}
	}
	return all
}

type groupMaker struct {
	ctx    context.Context
	a      *adding
	memory *budget
	mu     sync.Mutex // of the rest
	f      *os.File
	n      int64 // bytes of f
	done   int64
	total  int64
}

// make makes one group and appends it to the file.
func (w *groupMaker) make(g *group) error {
	in, err := w.a.r.disk.scratch()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := w.a.r.disk.scratch()
	if err != nil {
		return err
	}
	defer out.Close()
	quick, err := w.a.r.disk.scratch()
	if err != nil {
		return err
	}
	defer quick.Close()
	inputs, err := w.collect(g, in)
	if err != nil {
		return err
	}
	chosen, err := w.write(g, inputs, out, quick)
	if err != nil {
		return fmt.Errorf("component %q: cannot make a delta: %w", g.part.Name, err)
	}
	out = chosen
	if err := g.try(inputs, io.NewSectionReader(out, 0, g.length)); err != nil {
		return fmt.Errorf("component %q: a delta that does not make what it is for: %w", g.part.Name, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	g.offset = w.n
	_, err = io.Copy(w.f, io.NewSectionReader(out, 0, g.length))
	w.n += g.length
	return err
}

// input is what a patch is made from: its old blob, nil for none, and the new.
type input struct{ old, new *io.SectionReader }

// collect copies the blobs of a group into a file, and checks that they are what
// was scanned and what was released.
func (w *groupMaker) collect(g *group, in *os.File) ([]input, error) {
	n := int64(0)
	take := func(r io.ReadCloser, b release.Blob) (*io.SectionReader, error) {
		_, err := io.Copy(in, r)
		n += b.Size
		return io.NewSectionReader(in, n-b.Size, b.Size), errors.Join(err, r.Close(), w.ctx.Err())
	}
	list := make([]input, len(g.pairs))
	for i, p := range g.pairs {
		if p.From >= 0 {
			r, err := w.a.r.disk.openBlob(p.from, g.from.table)
			if err == nil {
				list[i].old, err = take(r, p.from)
			}
			if err != nil {
				return nil, fmt.Errorf("component %q: %q of release %d: %w", g.part.Name, p.at.path, g.from.seq, err)
			}
		}
		f, err := g.part.source.open(p.at)
		if err == nil {
			list[i].new, err = take(check(f, p.to), p.to)
		}
		if errors.Is(err, errBlob) {
			err = ErrChanged
		}
		if err != nil {
			return nil, fmt.Errorf("component %q: %q: %w", g.part.Name, p.at.path, err)
		}
	}
	return list, nil
}

// write writes the patches of a group to out, or to quick where a device gains more
// by the quick one than the further bytes cost, and returns which of the two it is.
func (w *groupMaker) write(g *group, inputs []input, out, quick *os.File) (*os.File, error) {
	patches, err := w.find(g, inputs)
	if err != nil {
		return nil, err
	}
	short := delta.NewWriter(out)
	if err := addAll(short, patches); err != nil {
		return nil, err
	}
	g.length = short.Len()
	if short.Slack() == 0 {
		return out, nil
	}
	fast := delta.NewQuickWriter(quick)
	if err := addAll(fast, patches); err != nil {
		return nil, err
	}
	if fast.Len() > short.Len()+short.Slack() {
		return out, nil
	}
	g.length = fast.Len()
	return quick, nil
}

func addAll(to *delta.Writer, patches []*delta.Patch) error {
	for _, p := range patches {
		if err := to.Add(p); err != nil {
			return errors.Join(err, to.Close())
		}
	}
	return to.Close()
}

// find looks for what the blobs of a group have in common with the old ones.
func (w *groupMaker) find(g *group, inputs []input) ([]*delta.Patch, error) {
	patches := make([]*delta.Patch, len(inputs))
	for i, in := range inputs {
		old, cost := delta.Input(nil), in.new.Size()
		if in.old != nil {
			old, cost = in.old, cost+6*in.old.Size()
		}
		if err := w.memory.take(w.ctx, cost); err != nil {
			return nil, err
		}
		p, err := delta.Find(w.ctx, old, in.new)
		w.memory.give(cost)
		if err != nil {
			return nil, err
		}
		patches[i] = p
		w.tell(g, g.pairs[i].to.Size)
	}
	return patches, nil
}

func (w *groupMaker) tell(g *group, n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done += n
	w.a.r.opts.Progress(Progress{Step: "delta", Name: g.part.Name, Done: w.done, Total: w.total})
}

// try makes the new blobs as a device does.
func (g *group) try(inputs []input, stored io.Reader) error {
	return applyGroup(stored, len(inputs), func(i int) (io.ReaderAt, int64, release.Blob) {
		if inputs[i].old == nil {
			return nil, 0, g.pairs[i].to
		}
		return inputs[i].old, inputs[i].old.Size(), g.pairs[i].to
	})
}

// applyGroup reads a group of n patches, and compares what it makes with the
// blobs that patch names, which also says what each is made from.
func applyGroup(stored io.Reader, n int, patch func(i int) (io.ReaderAt, int64, release.Blob)) error {
	r, err := delta.NewReader(stored)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	for i := range n {
		old, size, want := patch(i)
		made, err := r.Next(old, size, want.Size)
		if err != nil {
			return fmt.Errorf("patch %d: %w", i, err)
		}
		h := sha256.New()
		if _, err := io.Copy(h, made); err != nil {
			return fmt.Errorf("patch %d: %w", i, err)
		}
		if release.Digest(h.Sum(nil)) != want.Digest {
			return fmt.Errorf("patch %d: %w: blob %s", i, errBlob, want.Digest.Short())
		}
	}
	if _, err := r.Next(nil, 0, 0); !errors.Is(err, io.EOF) {
		return fmt.Errorf("more than %d patches: %w", n, errBlob)
	}
	return nil
}

// budget bounds what is in use at a time.
type budget struct {
	mu    sync.Mutex
	free  int64
	all   int64
	freed chan struct{} // closed and made anew when something was given back
}

func newBudget(n int64) *budget { return &budget{free: n, all: n, freed: make(chan struct{})} }

// take waits until n is free, or everything.
func (b *budget) take(ctx context.Context, n int64) error {
	n = min(n, b.all)
	for {
		b.mu.Lock()
		if b.free >= n {
			b.free -= n
			b.mu.Unlock()
			return nil
		}
		freed := b.freed
		b.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += min(n, b.all)
	close(b.freed)
	b.freed = make(chan struct{})
}
