//go:build linux

package micro

import (
	"context"
	"errors"
	"runtime"
	"sync"

	"github.com/pawl-ota/pawl/ota/release"
)

const (
	maxLanes  = 4
	laneLeast = 1024 // entries that are worth a lane
)

// shareAll makes the files. A large tree that is built anew is made in several
// lanes, each with a part of the entries: giving names is work for the processor.
func (b *builder) shareAll() error {
	isFile := func(e *release.Entry) bool { return e.Type == release.File }
	all := len(b.next.Entries)
	lanes := min(maxLanes, runtime.GOMAXPROCS(0), all/laneLeast)
	if lanes < 2 || !b.fresh || b.f.before != nil {
		return b.some(0, all, isFile)
	}
	ctx, cancel := context.WithCancelCause(b.ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	own := make([]*builder, lanes)
	for n := range own {
		lane, err := b.lane(ctx)
		if err != nil {
			cancel(err)
			break
		}
		own[n] = lane
		wait.Go(func() {
			if err := lane.some(n*all/lanes, (n+1)*all/lanes, isFile); err != nil {
				cancel(err)
			}
		})
	}
	wait.Wait()
	err := context.Cause(ctx)
	for _, lane := range own {
		if lane != nil {
			b.need = append(b.need, lane.need...)
			err = errors.Join(err, lane.closeLane())
		}
	}
	return err
}

// lane returns a builder of the same tree for another goroutine. They share what
// they write down.
func (b *builder) lane(ctx context.Context) (*builder, error) {
	tree, err := b.tree.Again()
	if err != nil {
		return nil, err
	}
	l := &builder{worker: b.f.newWorker(ctx, tree), next: b.next, log: b.log, check: b.check, fresh: b.fresh}
	for _, s := range b.sources {
		again := *s
		if again.tree, err = s.tree.Again(); err != nil {
			return nil, errors.Join(err, l.closeLane())
		}
		l.sources = append(l.sources, &again)
	}
	return l, nil
}

func (b *builder) closeLane() error {
	closeSources(b.sources)
	return b.tree.Close()
}
