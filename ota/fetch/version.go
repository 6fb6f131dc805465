package fetch

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// version is what tells one content of a file on a server from another.
type version struct {
	tag  string // a strong ETag, or Last-Modified, or nothing
	size int64  // -1 when not known
}

var unknown = version{size: -1}

// tagOf returns what If-Range can hold. A weak ETag does not promise the same
// bytes.
func tagOf(h http.Header) string {
	if tag := h.Get("ETag"); strings.HasPrefix(tag, `"`) {
		return tag
	}
	return h.Get("Last-Modified")
}

// merge adds what another answer says of the file.
func (v version) merge(o version) (version, error) {
	if v.tag != "" && o.tag != "" && v.tag != o.tag || v.size >= 0 && o.size >= 0 && v.size != o.size {
		return v, ErrChanged
	}
	if v.tag == "" {
		v.tag = o.tag
	}
	v.size = max(v.size, o.size)
	return v, nil
}

// place finds b.pos in an answer, or says why the answer is of no use.
func (b *body) place(resp *http.Response) error {
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return fmt.Errorf("%w: %.40q", ErrEncoding, enc)
	}
	if b.pos == b.r.Offset {
		b.forget() // nothing was delivered yet
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return b.placeWhole(resp)
	case http.StatusPartialContent:
		return b.placePart(resp)
	}
	size := rangeSize(resp.Header.Get("Content-Range"))
	switch {
	case size == b.pos && b.r.Length < 0:
		b.end = b.pos
		return nil
	case size >= 0 && b.pos >= size:
		return fmt.Errorf("the file has %d bytes, byte %d was wanted: %w", size, b.pos, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("%w: not satisfiable from byte %d on", ErrRange, b.pos)
}

// forget drops what earlier answers said of the file.
func (b *body) forget() {
	b.file = unknown
	if b.r.Length < 0 {
		b.end = -1
	}
}

// placeWhole takes an answer that begins at the file's first byte, from a server
// without ranges or with a file that changed.
func (b *body) placeWhole(resp *http.Response) error {
	if err := b.learn(version{tagOf(resp.Header), resp.ContentLength}); err != nil {
		return err
	}
	b.skip = b.pos
	if b.end >= 0 {
		b.c.kept.whole(b)
	}
	return nil
}

// placePart takes an answer of a range, which has to begin at b.pos.
func (b *body) placePart(resp *http.Response) error {
	text := resp.Header.Get("Content-Range")
	first, last, size, ok := parseRange(text)
	asked := resp.Request.Header.Get("Range") != ""
	switch {
	case !ok, !asked, first != b.pos, b.end >= 0 && last >= b.end:
		return fmt.Errorf("%w: %.80q, wanted from byte %d on", ErrRange, text, b.pos)
	case resp.ContentLength >= 0 && resp.ContentLength != last-first+1:
		return fmt.Errorf("%w: %.80q with %d bytes", ErrRange, text, resp.ContentLength)
	}
	if err := b.learn(version{tagOf(resp.Header), size}); err != nil {
		return err
	}
	if b.end < 0 {
		b.end = last + 1
	}
	return nil
}

// learn adds what an answer says of the file, and ends a read that the file
// cannot serve before it begins.
func (b *body) learn(v version) error {
	file, err := b.file.merge(v)
	if err != nil {
		return err
	}
	b.file = file
	if file.size < 0 {
		return nil
	}
	if b.end < 0 {
		b.end = file.size
	}
	if need := max(b.end, b.r.Offset); file.size < need {
		return fmt.Errorf("the file has %d bytes, %d were wanted: %w", file.size, need, io.ErrUnexpectedEOF)
	}
	if n := b.end - b.r.Offset; n > b.r.MaxBytes {
		return fmt.Errorf("%w: %d bytes, %d are allowed", ErrTooLong, n, b.r.MaxBytes)
	}
	return nil
}

// parseRange reads "bytes FIRST-LAST/SIZE" (RFC 9110, section 14.4). size is -1
// for "*".
func parseRange(s string) (first, last, size int64, ok bool) {
	span, ok1 := strings.CutPrefix(s, "bytes ")
	span, total, ok2 := strings.Cut(span, "/")
	a, z, ok3 := strings.Cut(span, "-")
	if !ok1 || !ok2 || !ok3 {
		return 0, 0, 0, false
	}
	first, err1 := parseOffset(a)
	last, err2 := parseOffset(z)
	size = -1
	var err3 error
	if total != "*" {
		size, err3 = parseOffset(total)
	}
	fine := err1 == nil && err2 == nil && err3 == nil && first <= last && (size < 0 || last < size)
	return first, last, size, fine
}

// rangeSize reads the size from "bytes */SIZE", -1 if there is none.
func rangeSize(s string) int64 {
	text, ok := strings.CutPrefix(s, "bytes */")
	if !ok {
		return -1
	}
	size, err := parseOffset(text)
	if err != nil {
		return -1
	}
	return size
}

func parseOffset(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 62)
	return int64(n), err
}
