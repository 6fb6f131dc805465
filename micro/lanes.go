//go:build linux

package micro

import (
	"context"
	"errors"
	"runtime"
	"sync"
)

const (
	maxLanes  = 4
	laneLeast = 1024 // entries that are worth a lane
	listLeast = 64   // and those of one list
)

// lanesFor returns how many lanes a tree of so many entries is worked on in: most
// of the work is the kernel's, for the processor.
func lanesFor(entries int) int {
	return max(1, min(maxLanes, runtime.GOMAXPROCS(0), entries/laneLeast))
}

// inLanes calls work for each lane, all at once, with a part of the numbers below
// all. The first error ends the context of the others.
func inLanes(ctx context.Context, lanes, all int, work func(ctx context.Context, lane, from, to int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	for n := range lanes {
		wait.Go(func() {
			if err := work(ctx, n, n*all/lanes, (n+1)*all/lanes); err != nil {
				cancel(err)
			}
		})
	}
	wait.Wait()
	return context.Cause(ctx)
}

// makeAll makes the entries of a list, those of a large tree that is built anew in
// lanes: folders too, which take some file systems longer than a name for a file.
func (b *builder) makeAll(list []int32) error {
	lanes := lanesFor(len(b.next.Entries))
	if lanes < 2 || len(list) < listLeast || !b.fresh || b.f.before != nil {
		return b.some(list)
	}
	need := make([][]int32, lanes)
	err := inLanes(b.ctx, lanes, len(list), func(ctx context.Context, n, from, to int) error {
		l, err := b.lane(ctx)
		if err != nil {
			return err
		}
		err = l.some(list[from:to])
		need[n] = l.need
		closeSources(l.sources)
		return errors.Join(err, l.tree.Close())
	})
	for _, part := range need {
		b.need = append(b.need, part...)
	}
	return err
}

// lane returns a builder of the same tree for another goroutine. They share what
// they write down.
func (b *builder) lane(ctx context.Context) (*builder, error) {
	sources, err := again(b.sources)
	if err != nil {
		return nil, err
	}
	tree, err := b.tree.Again()
	if err != nil {
		closeSources(sources)
		return nil, err
	}
	return &builder{worker: b.f.newWorker(ctx, tree), next: b.next, sources: sources, log: b.log, check: b.check, fresh: b.fresh}, nil
}

// again opens sources once more, for another goroutine.
func again(all []*source) ([]*source, error) {
	var more []*source
	for _, s := range all {
		tree, err := s.tree.Again()
		if err != nil {
			closeSources(more)
			return nil, err
		}
		one := *s
		one.tree = tree
		more = append(more, &one)
	}
	return more, nil
}
