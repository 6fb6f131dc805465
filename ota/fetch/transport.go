package fetch

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// maxHeader bounds the header of one answer, in bytes.
const maxHeader = 64 << 10

func (c *Client) httpClient() *http.Client {
	dialer := &net.Dialer{Timeout: c.o.Stall, KeepAlive: 30 * time.Second}
	return &http.Client{
		CheckRedirect: c.checkRedirect,
		Transport: &guard{c: c, base: &http.Transport{
			Proxy:                  c.o.Proxy,
			DialContext:            dialer.DialContext,
			TLSClientConfig:        c.o.tls(),
			TLSHandshakeTimeout:    c.o.Stall,
			ForceAttemptHTTP2:      true,
			DisableCompression:     true,
			MaxIdleConnsPerHost:    2,
			IdleConnTimeout:        30 * time.Second,
			MaxResponseHeaderBytes: maxHeader,
		}},
	}
}

func (o Options) tls() *tls.Config {
	conf := &tls.Config{}
	if o.TLS != nil {
		conf = o.TLS.Clone()
	}
	conf.MinVersion = max(conf.MinVersion, tls.VersionTLS12)
	if o.RootCAs != nil {
		conf.RootCAs = o.RootCAs
	}
	return conf
}

// checkRedirect follows a few redirects, none that gives up TLS, and keeps the
// device's own headers from hosts that they were not meant for.
func (c *Client) checkRedirect(req *http.Request, via []*http.Request) error {
	first, last := via[0], via[len(via)-1]
	if len(via) > c.o.Redirects {
		return fmt.Errorf("%w: more than %d of them", ErrRedirect, c.o.Redirects)
	}
	if s := req.URL.Scheme; s != "https" && (s != "http" || last.URL.Scheme == "https") {
		return fmt.Errorf("%w: from %s to %.16q", ErrRedirect, last.URL.Scheme, s)
	}
	req.Header.Del("Referer")
	if req.URL.Host != first.URL.Host {
		for name := range c.o.Header {
			req.Header.Del(name)
		}
	}
	return nil
}

// guard ends every exchange in which nothing moves, wherever it hangs: in the
// dialling, before the answer, in its body, or in the body of an answer that
// net/http or the retrying client read only to throw away.
type guard struct {
	c    *Client
	base *http.Transport
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(g.c.o.Stall, func() { cancel(ErrStalled) })
	resp, err := g.base.RoundTrip(req.WithContext(ctx))
	timer.Stop()
	if err != nil {
		err = causeOf(ctx, err)
		cancel(nil)
		return nil, err
	}
	resp.Body = &guardedBody{ReadCloser: resp.Body, c: g.c, ctx: ctx, cancel: cancel, timer: timer}
	return resp, nil
}

// CloseIdleConnections lets [http.Client.CloseIdleConnections] through.
func (g *guard) CloseIdleConnections() { g.base.CloseIdleConnections() }

// guardedBody counts what is read and gives up when a read takes too long. The
// time between reads does not count: it is the reader's own.
type guardedBody struct {
	io.ReadCloser
	c      *Client
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func (b *guardedBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.c.o.Stall)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	b.c.arrived(n)
	if err != nil && err != io.EOF {
		err = causeOf(b.ctx, err)
	}
	return n, err
}

func (b *guardedBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// What is read of a body that nobody wants, at most, and for how long.
const (
	leaveBytes = 4 << 10
	leaveTime  = 200 * time.Millisecond
)

// leave lets go of a body that nobody wants. A short one is read to its end: then
// the next request goes over the same connection.
func leave(body io.ReadCloser) {
	timer := time.AfterFunc(leaveTime, func() { body.Close() })
	_, _ = io.CopyN(io.Discard, body, leaveBytes)
	timer.Stop()
	body.Close()
}

// causeOf returns why ctx ended, or err while it has not.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
