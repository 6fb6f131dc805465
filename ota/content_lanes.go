package ota

import (
	"context"
	"io"
	"runtime"
	"sync"

	"github.com/pawl-ota/pawl/ota/release"
)

// Concurrent is Content that can bring several blobs at once: patches are the
// dear part of an update, and a device with two cores applies two groups of them
// at a time.
type Concurrent interface {
	Content
	// EachAtOnce is Each with calls of put that overlap, never more than a few.
	EachAtOnce(ctx context.Context, blobs []release.Blob, put func(release.Blob, io.Reader) error) error
}

// lanes is how many groups are applied at once, where there are as many
// processors. Each holds about 5 MiB.
const lanes = 2

var _ Concurrent = (*content)(nil)

// EachAtOnce implements Concurrent.
func (c *content) EachAtOnce(ctx context.Context, blobs []release.Blob, put func(release.Blob, io.Reader) error) error {
	c.atOnce = true
	defer func() { c.atOnce = false }()
	return c.each(ctx, blobs, put, nil)
}

// bringGroups brings the groups that items begin with, some at once, and returns
// how many they were: none where that cannot be done. What comes has to be kept
// in the spool, because they lie in the pack one after the other.
func (c *content) bringGroups(ctx context.Context, in *intake, items []item, put func(release.Blob, io.Reader) error) (int, error) {
	n := 0
	for n < len(items) && items[n].form == byGroup {
		n++
	}
	at := min(n, lanes, runtime.GOMAXPROCS(0))
	if !c.atOnce || c.keeps || at < 2 || in.spool == nil || in.spool.full {
		return 0, nil
	}
	l := &laneWork{c: c, in: in, items: items[:n], use: put}
	var wait sync.WaitGroup
	for range at {
		wait.Go(func() { l.run(ctx) })
	}
	wait.Wait()
	return n, l.err
}

// laneWork is what the lanes share. One of them holds mu, but for what happens
// within use: there the patches are applied.
type laneWork struct {
	c     *content
	in    *intake
	use   func(release.Blob, io.Reader) error
	mu    sync.Mutex
	items []item // that no lane has begun
	err   error  // the first one
}

func (l *laneWork) run(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.items) > 0 && l.err == nil {
		it := &l.items[0]
		l.items = l.items[1:]
		if err := l.c.bringGroup(ctx, l.in, it, l.put); err != nil && l.err == nil {
			l.err = err
		}
	}
}

func (l *laneWork) put(b release.Blob, r io.Reader) error {
	if l.err != nil {
		return l.err
	}
	l.mu.Unlock()
	defer l.mu.Lock()
	return l.use(b, r)
}
