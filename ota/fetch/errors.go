package fetch

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"time"
)

// Errors that a caller may tell apart; they come wrapped.
var (
	// ErrStalled is returned when nothing came for Options.Stall.
	ErrStalled = errors.New("the connection stalled")
	// ErrSlow is returned when bytes came slower than Options.MinRate.
	ErrSlow = errors.New("the connection is slower than allowed")
	// ErrBudget is returned when a Get took longer than Options.Total.
	ErrBudget = errors.New("the time for the transfer is spent")
	// ErrTooLong is returned when an answer has more bytes than allowed.
	ErrTooLong = errors.New("the answer is too long")
	// ErrRange is returned when an answer is not of the range that was asked.
	ErrRange = errors.New("the server answered with another range")
	// ErrNoRanges is a warning: the server sends whole files where a part was
	// asked for, so that updates fetch more than they need.
	ErrNoRanges = errors.New("the server sends whole files where a part was asked for")
	// ErrChanged is returned when the file on the server became another one
	// before all of it was read.
	ErrChanged = errors.New("the file changed on the server")
	// ErrRedirect is returned for a redirect that is not followed.
	ErrRedirect = errors.New("the redirect is not followed")
	// ErrEncoding is returned for an answer that was compressed unasked.
	ErrEncoding = errors.New("the server encoded the content unasked")
)

// StatusError is a server's answer that it will not give the file. It is an
// [fs.ErrNotExist] where the file is not there: for 404 and 410, and for 403, with
// which object stores answer for a missing name to those who may not list.
type StatusError struct {
	Code int
	// URL is without query and credentials.
	URL string
	// RetryAfter is how long the server asked to wait; 0 if it did not.
	RetryAfter time.Duration
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("%s: the server answered %d %s", e.URL, e.Code, http.StatusText(e.Code))
	if e.RetryAfter > 0 {
		s += fmt.Sprintf(", to be asked again after %s", e.RetryAfter)
	}
	return s
}

// Is reports whether target is fs.ErrNotExist and the file is not there.
func (e *StatusError) Is(target error) bool {
	missing := e.Code == http.StatusNotFound || e.Code == http.StatusGone || e.Code == http.StatusForbidden
	return missing && target == fs.ErrNotExist
}

func statusError(resp *http.Response) *StatusError {
	return &StatusError{Code: resp.StatusCode, URL: redact(resp.Request.URL), RetryAfter: retryAfter(resp)}
}

// plain drops the URL that net/http and net/url put into their errors: it may
// hold a token.
func plain(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// redact returns u without what may be secret.
func redact(u *url.URL) string {
	r := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return r.String()
}

func show(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "a URL that cannot be read"
	}
	return redact(u)
}
