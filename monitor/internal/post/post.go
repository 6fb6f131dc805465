// Package post hands batches to a receiver over HTTP, for the senders of an outbox:
// compressed, to one place alone, with an error that says when to come again.
package post

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/pawl-ota/pawl/monitor/outbox"
)

// Options configure a [Client]. The zero value is useful; the fields are those of
// the senders.
type Options struct {
	Header    http.Header
	TLS       *tls.Config
	RootCAs   *x509.CertPool
	Proxy     func(*http.Request) (*url.URL, error)
	UserAgent string
	Plain     bool
	Retries   int
}

// Client posts. It is safe for concurrent use.
type Client struct {
	// HTTP makes the requests.
	HTTP *retryablehttp.Client

	o     Options
	plain atomic.Bool
	bytes atomic.Int64
}

const (
	maxAnswer   = 64 << 10
	maxHeader   = 64 << 10
	connectTime = 30 * time.Second
	retryMin    = time.Second
	retryMax    = 10 * time.Second
)

// IsURL reports whether text is one of http or https, with a host.
func IsURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// New returns a Client.
func New(o Options) *Client {
	o.UserAgent = cmp.Or(o.UserAgent, "pawl")
	if o.Proxy == nil {
		o.Proxy = http.ProxyFromEnvironment
	}
	c := &Client{o: o}
	c.plain.Store(o.Plain)
	c.HTTP = &retryablehttp.Client{
		HTTPClient:   &http.Client{Transport: o.transport(), CheckRedirect: stay},
		RetryMax:     max(cmp.Or(o.Retries, 2), 0),
		RetryWaitMin: retryMin,
		RetryWaitMax: retryMax,
		CheckRetry:   onlyBroken,
		Backoff:      jitter,
		ErrorHandler: gaveUp,
	}
	return c
}

func (o Options) transport() *http.Transport {
	conf := &tls.Config{}
	if o.TLS != nil {
		conf = o.TLS.Clone()
	}
	conf.MinVersion = max(conf.MinVersion, tls.VersionTLS12)
	if o.RootCAs != nil {
		conf.RootCAs = o.RootCAs
	}
	return &http.Transport{
		Proxy: o.Proxy, TLSClientConfig: conf, TLSHandshakeTimeout: connectTime, ForceAttemptHTTP2: true,
		DisableCompression: true, MaxIdleConnsPerHost: 1, IdleConnTimeout: connectTime, MaxResponseHeaderBytes: maxHeader,
	}
}

// stay has a redirect be an answer: events go nowhere else.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// onlyBroken tries again where there was no answer at all; the outbox decides
// about answers. Events have ids: one that arrived is not taken twice.
func onlyBroken(ctx context.Context, _ *http.Response, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	return err != nil && !untrusted, nil
}

func jitter(least, most time.Duration, attempt int, _ *http.Response) time.Duration {
	return rand.N(min(most, least<<min(attempt, 10)))
}

// gaveUp takes the place of a message that shows the whole URL.
func gaveUp(resp *http.Response, err error, _ int) (*http.Response, error) {
	if broken, ok := errors.AsType[*url.Error](err); ok {
		err = broken.Err
	}
	return resp, err
}

// Close lets go of idle connections. The Client may be used on.
func (c *Client) Close() { c.HTTP.HTTPClient.CloseIdleConnections() }

// Bytes returns how many bytes were posted, as they went over the line.
func (c *Client) Bytes() int64 { return c.bytes.Load() }

// Post sends body, and without compression once more where that was not
// understood. It returns the first 64 KiB of an answer of 2xx; what others mean is
// an error: an *outbox.Refused for 400, 413 and 422, an *outbox.Later for those with
// Retry-After.
func (c *Client) Post(ctx context.Context, to, contentType string, body []byte) ([]byte, error) {
	for {
		plain := c.plain.Load()
		resp, err := c.request(ctx, to, contentType, body, plain)
		if err != nil {
			return nil, err
		}
		answer, err := judge(resp)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUnsupportedMediaType || plain {
			return answer, err
		}
		c.plain.Store(true)
	}
}

func (c *Client) request(ctx context.Context, to, contentType string, body []byte, plain bool) (*http.Response, error) {
	sent := body
	if !plain {
		var err error
		if sent, err = compress(body); err != nil {
			return nil, err
		}
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, to, sent)
	if err != nil {
		return nil, err
	}
	if c.o.Header != nil {
		req.Header = c.o.Header.Clone()
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("User-Agent", c.o.UserAgent)
	if !plain {
		req.Header.Set("Content-Encoding", "gzip")
	}
	c.bytes.Add(int64(len(sent)))
	return c.HTTP.Do(req)
}

func compress(data []byte) ([]byte, error) {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(data)
	err = errors.Join(err, w.Close())
	return out.Bytes(), err
}

// judge says what an answer means.
func judge(resp *http.Response) ([]byte, error) {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // what did not arrive of a message is not missed
	if resp.StatusCode/100 == 2 {
		return text, nil
	}
	err := fmt.Errorf("the receiver answered %d: %.200q", resp.StatusCode, bytes.TrimSpace(text))
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return nil, &outbox.Refused{Err: err}
	}
	if after := retryAfter(resp.Header, time.Now()); after > 0 {
		return nil, &outbox.Later{After: after, Err: err}
	}
	return nil, err
}

// retryAfter reads Retry-After (RFC 9110, section 10.2.3): seconds, or a date,
// which is taken against the receiver's own clock where the answer says it.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	if theirs, err := http.ParseTime(h.Get("Date")); err == nil {
		now = theirs
	}
	return max(at.Sub(now), 0)
}
