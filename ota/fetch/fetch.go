// Package fetch gets bytes over HTTP for a device: through bad links, from
// servers that nobody has to trust, within limits that always end.
//
// A [Client] has a transport of its own and touches nothing of
// [http.DefaultClient] or [http.DefaultTransport]. [Client.Get] returns a reader
// that mends a broken connection by asking for the rest. What it reads is
// unverified: callers check it against signed digests.
package fetch

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"

	"github.com/hashicorp/go-retryablehttp"
	"golang.org/x/time/rate"
)

// Client gets bytes over HTTP. It is safe for concurrent use.
type Client struct {
	o     Options
	retry *retryablehttp.Client
	count [causes + 1]atomic.Int64 // by Cause, the last one for wasted bytes
	pace  *rate.Limiter
	kept  keeper
}

// New returns a Client. An error names the field of o that is wrong.
func New(o Options) (*Client, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{o: o, pace: pacer(o.MaxRate)}
	c.retry = &retryablehttp.Client{
		HTTPClient:   c.httpClient(),
		RetryMax:     o.Retries,
		RetryWaitMin: o.RetryMin,
		RetryWaitMax: o.RetryMax,
		CheckRetry:   c.checkRetry,
		Backoff:      backoff,
		ErrorHandler: gaveUp,
	}
	return c, nil
}

// Close lets go of idle connections. The Client may be used on.
func (c *Client) Close() error {
	c.kept.drop()
	c.retry.HTTPClient.CloseIdleConnections()
	return nil
}

// Request is one thing to get.
type Request struct {
	URL string // http or https
	// Offset is where to begin in the file, in bytes. Length is how many bytes
	// to read from there; -1 means to the end of the file.
	Offset, Length int64
	// Cause is what the bytes are counted as.
	Cause Cause
	// MaxBytes refuses an answer with more bytes, with ErrTooLong; 0 means
	// no limit where Length is not -1, and 1 TiB where it is.
	MaxBytes int64
	// Unless, if it is set, has the file sent only when it is another one than
	// that; else Get returns ErrNotModified. It is for whole files.
	Unless Tag
	// Once has the first failure stand that would be tried again else: for what
	// somebody asks for again where it is needed.
	Once bool
}

const noMax = 1 << 40

func (r Request) check() error {
	u, err := url.Parse(r.URL)
	if err != nil {
		return fmt.Errorf("cannot fetch: the URL is not one: %w", plain(err))
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("cannot fetch %s: not an http or https URL with a host", redact(u))
	}
	if r.Offset < 0 || r.Length < -1 || r.MaxBytes < 0 || r.Length > 0 && r.Offset+r.Length < 0 {
		return fmt.Errorf("cannot fetch %s: offset %d, length %d, limit %d make no range", redact(u), r.Offset, r.Length, r.MaxBytes)
	}
	if r.Unless != (Tag{}) && (r.Offset != 0 || r.Length != -1) {
		return fmt.Errorf("cannot fetch %s: a part that is wanted unless it is known", redact(u))
	}
	if r.Cause < 0 || r.Cause >= causes {
		return fmt.Errorf("cannot fetch %s: unknown cause %d", redact(u), r.Cause)
	}
	return nil
}

// Get asks for r and returns its bytes. The first answer has come when Get
// returns, so that a missing file is an error here: a [*StatusError].
//
// The reader ends in [io.EOF] only after Length bytes, or at the end of the
// file where Length is -1; it ends in an error that is [io.ErrUnexpectedEOF]
// where the file is shorter than that. It belongs to one goroutine, ends
// with ctx, and has to be closed. It is a [Tagged].
func (c *Client) Get(ctx context.Context, r Request) (io.ReadCloser, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	if r.MaxBytes == 0 {
		r.MaxBytes = max(noMax, r.Length)
	}
	if r.Length > r.MaxBytes {
		return nil, fmt.Errorf("cannot fetch %s: %w: %d bytes, %d are allowed", show(r.URL), ErrTooLong, r.Length, r.MaxBytes)
	}
	if r.Once {
		ctx = context.WithValue(ctx, once{}, true)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.o.Total, ErrBudget)
	b := newBody(ctx, cancel, c, r)
	if r.Length == 0 {
		return b, nil
	}
	if err := b.connect(); err != nil {
		return nil, b.finish(b.explain(err))
	}
	return b, nil
}

// send does one request, with the tries that the options allow. The answer is
// one of 200, 206 and 416.
func (c *Client) send(ctx context.Context, rawURL string, header http.Header) (*http.Response, error) {
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, rawURL, nil)
	if err != nil {
		return nil, plain(err)
	}
	for name, values := range c.o.Header {
		req.Header[http.CanonicalHeaderKey(name)] = append([]string(nil), values...)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", c.o.UserAgent)
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := c.retry.Do(req)
	if err != nil {
		return nil, plain(err)
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable:
		return resp, nil
	}
	leave(resp.Body)
	if resp.StatusCode == http.StatusNotModified && (header.Get("If-None-Match") != "" || header.Get("If-Modified-Since") != "") {
		return nil, ErrNotModified
	}
	return nil, statusError(resp)
}
