package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// progress is how many bytes make up for a connection that broke before: less
// than what a link lets through that drops every connection after 64 KB, its
// headers among them.
const progress = 16 << 10

// body reads one Request over as many connections as it takes.
type body struct {
	c      *Client
	r      Request
	ctx    context.Context
	cancel context.CancelFunc

	src  *answer // the open answer, or nil
	skip int64   // bytes of src that lie before pos
	pos  int64   // the next byte to deliver, as an offset in the file
	file version // what is known of the file
	tag  Tag     // of the first answer
	end  int64   // where to stop; -1 while the end of the file is not known

	breaks int           // connections that broke, since there was progress
	since  int64         // bytes since the last one that broke
	waited time.Duration // spent in reads that did not stall, in this window
	window int64         // bytes that came in it
	err    error         // what every further Read returns
}

func newBody(ctx context.Context, cancel context.CancelFunc, c *Client, r Request) *body {
	b := &body{c: c, r: r, ctx: ctx, cancel: cancel, pos: r.Offset, end: -1, file: unknown}
	if r.Length >= 0 {
		b.end = r.Offset + r.Length
	}
	return b
}

// Tag implements [Tagged].
func (b *body) Tag() Tag { return b.tag }

// Read implements [io.Reader].
func (b *body) Read(p []byte) (int, error) {
	for b.err == nil {
		if b.pos == b.end {
			return 0, b.finish(io.EOF)
		}
		if len(p) == 0 {
			return 0, nil
		}
		if b.src == nil {
			if err := b.connect(); err != nil {
				return 0, b.finish(b.explain(err))
			}
		}
		n, err := b.step(p)
		if n > 0 {
			return n, nil
		}
		if err != nil {
			b.broke(err)
		}
	}
	return 0, b.err
}

// step reads once: some bytes to skip, or some to deliver.
func (b *body) step(p []byte) (int, error) {
	p = p[:min(int64(len(p)), b.want(), int64(b.c.pace.Burst()))]
	start := time.Now()
	n, err := b.src.Read(p)
	if !errors.Is(err, ErrStalled) {
		b.waited += time.Since(start)
	}
	b.src.pos += int64(n)
	b.window += int64(n)
	if werr := b.c.wait(b.ctx, n); werr != nil {
		return 0, b.finish(b.explain(werr))
	}
	if b.skip > 0 {
		b.skip -= int64(n)
		return 0, b.rate(err)
	}
	b.since += int64(n)
	if b.pos+int64(n)-b.r.Offset > b.r.MaxBytes {
		return 0, b.finish(b.explain(fmt.Errorf("%w: more than %d bytes", ErrTooLong, b.r.MaxBytes)))
	}
	b.pos += int64(n)
	b.c.delivered(b.r.Cause, n)
	return n, b.rate(err)
}

// want is how many bytes the next read may take: those to skip, those up to
// the end, or, where that is not known, one more than allowed.
func (b *body) want() int64 {
	switch {
	case b.skip > 0:
		return b.skip
	case b.end >= 0:
		return b.end - b.pos
	}
	return b.r.MaxBytes - (b.pos - b.r.Offset) + 1
}

// rate turns err into ErrSlow when too little came in the time of one window. A
// good start does not make up for what follows it.
func (b *body) rate(err error) error {
	if b.waited <= 2*b.c.o.Stall {
		return err
	}
	if float64(b.window) < float64(b.c.o.MinRate)*b.waited.Seconds() {
		return b.finish(b.explain(fmt.Errorf("%w: %d bytes in %s", ErrSlow, b.window, b.waited.Round(time.Millisecond))))
	}
	b.waited, b.window = 0, 0
	return err
}

// broke deals with the end of one answer before the end of the range: the end
// of the file, or a connection to mend.
func (b *body) broke(err error) {
	if b.err != nil {
		return
	}
	if err == io.EOF && b.end < 0 && b.skip == 0 {
		b.finish(io.EOF)
		return
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	b.drop()
	if b.since >= progress {
		b.breaks = 0
	}
	b.breaks, b.since = b.breaks+1, 0
	if b.breaks > b.c.o.Retries || b.r.Once || b.ctx.Err() != nil {
		b.finish(b.explain(err))
		return
	}
	if b.breaks > 1 {
		b.pause()
	}
}

// pause waits before the next try, or until the context ends.
func (b *body) pause() {
	timer := time.NewTimer(backoff(b.c.o.RetryMin, b.c.o.RetryMax, b.breaks-2, nil))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-b.ctx.Done():
	}
}

// connect opens an answer that reaches b.pos.
func (b *body) connect() error {
	if b.src = b.c.kept.take(b); b.src != nil {
		b.skip = b.pos - b.src.pos
		return nil
	}
	lease := newLease(b.ctx)
	resp, err := b.c.send(lease.ctx, b.r.URL, b.ask())
	if err != nil {
		lease.end()
		return err
	}
	if err := b.place(resp); err != nil {
		resp.Body.Close()
		lease.end()
		return err
	}
	if b.pos == b.r.Offset {
		b.tag = reliable(resp.Header)
	}
	b.src = &answer{ReadCloser: resp.Body, lease: lease, pos: b.pos - b.skip, whole: resp.StatusCode == http.StatusOK}
	return nil
}

// ask returns the header for the rest of the range: on condition that the file
// is still the same one (If-Range, RFC 9110, section 13.1.5).
func (b *body) ask() http.Header {
	h := http.Header{}
	switch {
	case b.end >= 0:
		h.Set("Range", fmt.Sprintf("bytes=%d-%d", b.pos, b.end-1))
	case b.pos > 0:
		h.Set("Range", fmt.Sprintf("bytes=%d-", b.pos))
	default:
		b.r.Unless.ask(h)
		return h
	}
	if b.file.tag != "" {
		h.Set("If-Range", b.file.tag)
	}
	return h
}

func (b *body) drop() {
	if b.src != nil {
		b.src.Close()
		b.src, b.skip = nil, 0
	}
}

// finish makes err what every further Read returns.
func (b *body) finish(err error) error {
	if err == io.EOF && b.c.kept.put(b) {
		b.src = nil
	}
	b.drop()
	b.cancel()
	b.err = err
	return err
}

// explain says what could not be done; a context that ended goes before what
// it caused.
func (b *body) explain(err error) error {
	if b.ctx.Err() != nil && !errors.Is(err, ErrSlow) {
		err = context.Cause(b.ctx)
	}
	if _, ok := errors.AsType[*StatusError](err); ok {
		return fmt.Errorf("cannot fetch: %w", err)
	}
	return fmt.Errorf("cannot fetch %s: %w", show(b.r.URL), err)
}

// Close implements [io.Closer].
func (b *body) Close() error {
	switch {
	case b.err != nil:
	case b.pos == b.end:
		b.finish(io.EOF)
	default:
		b.finish(errClosed)
	}
	return nil
}

var errClosed = errors.New("read of a closed transfer")
