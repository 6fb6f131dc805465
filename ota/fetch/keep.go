package fetch

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"sync"
	"time"
)

// A server without ranges answers every request for a part with the whole file.
// What follows the part is kept open for a moment: whoever wants a later part
// of the same file reads on there, so that parts asked for in their order
// cost one pass over the file and not one each.

// answer is an open answer of a server.
type answer struct {
	io.ReadCloser
	lease *lease
	pos   int64 // in the file, of the next byte
	whole bool  // it runs to the end of the file, whatever was asked for
}

func (a *answer) Close() error {
	err := a.ReadCloser.Close()
	a.lease.end()
	return err
}

// lease is the context of a request that can be handed from one reader to the
// next.
type lease struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	stop   func() bool
}

// newLease returns one that ends with ctx.
func newLease(ctx context.Context) *lease {
	l := &lease{}
	l.ctx, l.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	l.follow(ctx)
	return l
}

// follow has l end with ctx.
func (l *lease) follow(ctx context.Context) {
	l.stop = context.AfterFunc(ctx, func() { l.cancel(context.Cause(ctx)) })
}

func (l *lease) end() {
	l.stop()
	l.cancel(context.Canceled)
}

// keeper holds at most one answer. It is safe for concurrent use.
type keeper struct {
	mu    sync.Mutex
	url   string
	open  *answer
	file  version
	timer *time.Timer
	told  map[string]bool // hosts that Warn was called for
}

// maxTold bounds how many hosts are told apart.
const maxTold = 16

// whole notes that b gets a whole file where it asked for a part.
func (k *keeper) whole(b *body) {
	u, err := url.Parse(b.r.URL)
	if err != nil || b.pos == 0 && b.file.size == b.end {
		return
	}
	k.mu.Lock()
	known := k.told[u.Host] || len(k.told) >= maxTold
	if k.told == nil {
		k.told = map[string]bool{}
	}
	k.told[u.Host] = true
	k.mu.Unlock()
	if !known {
		b.c.o.Warn(fmt.Errorf("%s: %w", u.Host, ErrNoRanges))
	}
}

// put keeps the answer of b, which was read as far as b needed it, for the next
// one. It reports false for one that is of no use.
func (k *keeper) put(b *body) bool {
	a := b.src
	if a == nil || !a.whole || b.skip > 0 || b.ctx.Err() != nil || b.file.size >= 0 && a.pos >= b.file.size {
		return false
	}
	a.lease.stop()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dropLocked()
	k.url, k.open, k.file = b.r.URL, a, b.file
	k.timer = time.AfterFunc(b.c.o.Stall, func() { k.expire(a) })
	return true
}

// take returns the kept answer where b can go on with it.
func (k *keeper) take(b *body) *answer {
	k.mu.Lock()
	defer k.mu.Unlock()
	a := k.open
	if a == nil || k.url != b.r.URL || a.pos > b.pos || b.end < 0 {
		return nil
	}
	file, err := b.file.merge(k.file)
	if err != nil || file.size >= 0 && file.size < b.end {
		return nil
	}
	k.timer.Stop()
	k.open = nil
	a.lease.follow(b.ctx)
	b.file = file
	return a
}

func (k *keeper) drop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dropLocked()
}

func (k *keeper) dropLocked() {
	if k.open != nil {
		k.timer.Stop()
		k.open.Close()
		k.open = nil
	}
}

// expire drops a, where it is still the one that is kept.
func (k *keeper) expire(a *answer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.open == a {
		k.dropLocked()
	}
}
