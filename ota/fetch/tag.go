package fetch

import (
	"errors"
	"net/http"
	"time"
)

// ErrNotModified is returned for a request with [Request.Unless] when the file is
// still that one.
var ErrNotModified = errors.New("the file is the one that is here")

// Tag is what a server calls one content of a file: of its validators (RFC
// 9110, section 8.8) those that came with it.
type Tag struct {
	ETag     string `json:"etag,omitempty"`
	Modified string `json:"modified,omitempty"`
}

// Tagged is implemented by the readers that [Client.Get] returns.
type Tagged interface {
	// Tag returns what the server calls the file: nothing where it does not
	// say, or where the same name may come to stand for something else.
	Tag() Tag
}

// maxTag bounds what of a Tag is worth to be kept, in bytes.
const maxTag = 256

// settled is how old a file has to be before its tag counts. Times of files are
// of whole seconds in most of what servers make of them, so that a file which is
// replaced right after it was written keeps its tag.
const settled = 2 * time.Second

// reliable returns the tag of an answer.
func reliable(h http.Header) Tag {
	t := Tag{h.Get("ETag"), h.Get("Last-Modified")}
	if len(t.ETag) > maxTag || len(t.Modified) > maxTag {
		return Tag{}
	}
	if t.Modified == "" {
		return t
	}
	at, err := http.ParseTime(t.Modified)
	now, err2 := http.ParseTime(h.Get("Date"))
	if err != nil || err2 != nil || now.Sub(at) < settled {
		return Tag{}
	}
	return t
}

// ask adds to a request that the file is not wanted if it is the one that t
// names.
func (t Tag) ask(h http.Header) {
	if t.ETag != "" {
		h.Set("If-None-Match", t.ETag)
	}
	if t.Modified != "" {
		h.Set("If-Modified-Since", t.Modified)
	}
}
