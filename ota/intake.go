package ota

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/pawl-ota/pawl/ota/release"
)

// mergeGap is how many bytes between two wanted ranges of a file are fetched
// rather than asked around: about what a round trip costs on a slow link.
const mergeGap = 32 << 10

// span is a range of a file of the repository.
type span struct {
	file        string
	offset, end int64
}

// intake gives out stored bytes of the repository: what the spool has from
// there, the rest from the source and on its way into the spool. It asks for as
// much with one request as the spans that are wanted allow. Its readers may be
// read by several goroutines.
type intake struct {
	mu     sync.Mutex
	source Source
	spool  *spool       // nil: what comes is not kept
	count  func(s span) // told of what came
	forgot func(s span) // told of what came before and is dropped
	spans  []span       // wanted, sorted

	open     io.ReadCloser // the request, or nil
	file     string
	pos, end int64 // the next byte of it, and where it stops
	keep     *spoolWriter
	buf      []byte
	beside   *intake // for what lies before pos, while the request goes on
}

// spansOf sorts places into what is fetched with one request each.
func spansOf(places []release.Place) []span {
	slices.SortFunc(places, func(a, b release.Place) int {
		return cmp.Or(cmp.Compare(a.Pack, b.Pack), cmp.Compare(a.Offset, b.Offset))
	})
	var spans []span
	for _, p := range places {
		if n := len(spans); n > 0 && spans[n-1].file == p.Pack && p.Offset <= spans[n-1].end+mergeGap {
			spans[n-1].end = max(spans[n-1].end, p.Offset+p.Length)
			continue
		}
		spans = append(spans, span{p.Pack, p.Offset, p.Offset + p.Length})
	}
	return spans
}

// missing returns how many bytes of s the source has to give, and with how many
// requests.
func (in *intake) missing(s span) (n int64, requests int) {
	if in.spool == nil {
		return s.end - s.offset, 1
	}
	for s.offset < s.end {
		if r := in.spool.at(s.file, s.offset); r != nil {
			s.offset = r.to
			continue
		}
		next := min(in.spool.next(s.file, s.offset), s.end)
		n, requests = n+next-s.offset, requests+1
		s.offset = next
	}
	return n, requests
}

// read returns a reader of length bytes at offset of file.
func (in *intake) read(ctx context.Context, file string, offset, length int64) *intakeReader {
	all := span{file, offset, offset + length}
	return &intakeReader{in: in, ctx: ctx, span: all, all: all}
}

// intakeReader reads a range, a part of it from the spool and a part from the
// source.
type intakeReader struct {
	in   *intake
	ctx  context.Context
	span // what is left
	all  span
	kept *spoolReader // open, at offset
	err  error        // why bytes did not come
}

// Read implements [io.Reader].
func (r *intakeReader) Read(p []byte) (int, error) {
	r.in.mu.Lock()
	defer r.in.mu.Unlock()
	if err := cmp.Or(r.err, r.ctx.Err()); err != nil {
		return 0, err
	}
	if r.offset == r.end {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), r.end-r.offset)]
	n, err := r.fromSpool(p)
	if n == 0 && err == nil {
		n, err = r.in.fetch(r.ctx, r.span, p)
	}
	r.offset, r.err = r.offset+int64(n), err
	return n, err
}

// fromSpool reads what the spool has at offset: nothing where it has nothing.
func (r *intakeReader) fromSpool(p []byte) (int, error) {
	for r.in.spool != nil {
		if r.kept == nil {
			have := r.in.spool.at(r.file, r.offset)
			if have == nil {
				return 0, nil
			}
			end := min(have.to, r.end)
			var err error
			if r.kept, err = have.open(r.in.spool.dir, r.offset, end-r.offset); err != nil {
				r.in.drop(span{r.file, r.offset, end})
				continue
			}
		}
		n, err := r.kept.Read(p)
		if n > 0 {
			return n, nil
		}
		left := r.kept.left
		_ = r.kept.Close()
		if r.kept = nil; left > 0 && err != nil {
			r.in.drop(span{r.file, r.offset, r.offset + left})
		}
	}
	return 0, nil
}

// Close lets go of what is open of the spool; the request goes on.
func (r *intakeReader) Close() error {
	if r.kept == nil {
		return nil
	}
	err := r.kept.Close()
	r.kept = nil
	return err
}

// forget drops a range that was wrong.
func (in *intake) forget(s span) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.drop(s)
}

func (in *intake) drop(s span) {
	in.forgot(s)
	if in.spool != nil {
		in.stopKeeping()
		in.spool.forget(s.file, s.offset, s.end-s.offset)
	}
}

// fetch reads bytes of s from the source, at its offset.
func (in *intake) fetch(ctx context.Context, s span, p []byte) (int, error) {
	if in.open != nil && in.file == s.file && in.pos > s.offset {
		if in.beside == nil {
			in.beside = &intake{source: in.source, spool: in.spool, count: in.count, forgot: in.forgot}
		}
		in.beside.spans = in.passed()
		return in.beside.fetch(ctx, s, p)
	}
	if in.file != s.file {
		if err := in.drain(); err != nil {
			return 0, err
		}
	}
	if in.open == nil || in.file != s.file || in.end <= s.offset || in.detour(s) {
		if err := in.request(ctx, s); err != nil {
			return 0, err
		}
	}
	for in.pos < s.offset { // wanted too, later, or cheaper than a request
		if err := in.pass(s.offset); err != nil {
			return 0, err
		}
	}
	return in.take(p)
}

// passed returns what of the open file is wanted before pos: pieces of it that a
// blob of another file needed first had the request begin behind it. It is asked
// for as a whole where what comes is kept.
func (in *intake) passed() (spans []span) {
	for _, w := range in.spans {
		if w.file == in.file && w.offset < in.pos && in.spool != nil && !in.spool.full {
			spans = append(spans, span{w.file, w.offset, min(w.end, in.pos)})
		}
	}
	return spans
}

// drain takes the rest of the open request into the spool: all of it is wanted,
// and to ask for it again would cost a request and what is on the way.
func (in *intake) drain() error {
	for in.open != nil && in.pos < in.end && in.spool != nil && !in.spool.full {
		if err := in.pass(in.end); err != nil {
			return err
		}
	}
	return nil
}

// pass takes some of what lies before to.
func (in *intake) pass(to int64) error {
	if in.buf == nil {
		in.buf = make([]byte, 32<<10)
	}
	_, err := in.take(in.buf[:min(int64(len(in.buf)), to-in.pos)])
	return err
}

// fill brings places into the spool, and nothing where there is none.
func (in *intake) fill(ctx context.Context, places []release.Place) error {
	if in.spool == nil || in.spool.full {
		return nil
	}
	for _, at := range places {
		if in.spool.missing(at.Pack, at.Offset, at.Length) == 0 {
			continue
		}
		r := in.read(ctx, at.Pack, at.Offset, at.Length)
		_, err := io.Copy(io.Discard, r)
		if err = errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	return nil
}

// detour reports whether the way to s leads over more that nobody wants than a
// request is worth: a range that was forgotten lies apart.
func (in *intake) detour(s span) bool { return in.spool == nil && s.offset-in.pos > mergeGap }

// request asks for what is wanted from the start of s on, up to where the spool
// has something again.
func (in *intake) request(ctx context.Context, s span) error {
	if err := in.Close(); err != nil {
		return err
	}
	end := s.end
	for _, w := range in.spans {
		if w.file == s.file && w.offset <= s.offset && s.offset < w.end {
			end = max(end, w.end)
		}
	}
	if in.spool != nil {
		end = min(end, in.spool.next(s.file, s.offset))
	}
	raw, err := in.source.Open(ctx, s.file, s.offset, end-s.offset)
	if err != nil {
		return &fetchError{s.file, err}
	}
	in.open, in.file, in.pos, in.end = raw, s.file, s.offset, end
	return nil
}

// take reads from the open request, and keeps what came.
func (in *intake) take(p []byte) (int, error) {
	p = p[:min(int64(len(p)), in.end-in.pos)]
	n, err := in.open.Read(p)
	if n > 0 {
		in.count(span{in.file, in.pos, in.pos + int64(n)})
		if kept := in.store(p[:n]); kept != nil {
			return 0, kept
		}
		in.pos += int64(n)
		return n, nil
	}
	if err == nil {
		return 0, nil
	}
	_ = in.Close()
	return 0, &fetchError{in.file, noEOF(err)}
}

// store keeps what came at pos.
func (in *intake) store(p []byte) error {
	if in.spool == nil {
		return nil
	}
	if in.keep == nil {
		in.keep = in.spool.appendAt(in.file, in.pos)
	}
	if in.keep == nil {
		return nil
	}
	return in.spool.write(in.keep, p)
}

func (in *intake) stopKeeping() {
	if in.keep != nil {
		_ = in.keep.Close()
		in.keep = nil
	}
}

// Close ends the request.
func (in *intake) Close() (err error) {
	in.stopKeeping()
	if in.beside != nil {
		err = in.beside.Close()
	}
	if in.open != nil {
		err = errors.Join(err, in.open.Close())
		in.open = nil
	}
	return err
}

// fetchError is what kept a file of the repository from coming.
type fetchError struct {
	file string
	err  error
}

func (e *fetchError) Error() string { return fmt.Sprintf("cannot fetch %s: %v", e.file, e.err) }

func (e *fetchError) Unwrap() error { return e.err }

// noEOF makes an end that came too early an error.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
