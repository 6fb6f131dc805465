package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"
)

// once marks the context of a request that is sent once.
type once struct{}

// checkRetry decides about another try. It closes the body of an answer that
// is followed by one, so that nothing is read from it any more.
func (c *Client) checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if ctx.Err() != nil {
		closeBody(resp)
		return false, context.Cause(ctx)
	}
	if ctx.Value(once{}) != nil {
		return false, nil
	}
	if err != nil {
		return !hopeless(err), nil
	}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		closeBody(resp)
		return retryAfter(resp) <= 10*c.o.RetryMax, nil
	}
	return false, nil
}

func closeBody(resp *http.Response) {
	if resp != nil {
		resp.Body.Close()
	}
}

// hopeless reports errors that another try would only repeat.
func hopeless(err error) bool {
	if errors.Is(err, ErrRedirect) {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error" // an alert: the server wants no TLS with us
}

// gaveUp takes the place of the retrying client's own message, which shows the
// whole URL.
func gaveUp(resp *http.Response, err error, _ int) (*http.Response, error) {
	closeBody(resp)
	if err == nil && resp != nil {
		err = statusError(resp)
	}
	return nil, err
}

// backoff waits as long as the server asks, plus some jitter, or for a random
// time below a limit that doubles ("full jitter" of the AWS architecture
// blog, "Exponential Backoff And Jitter").
func backoff(minWait, maxWait time.Duration, attempt int, resp *http.Response) time.Duration {
	if after := retryAfter(resp); after > 0 {
		return after + rand.N(after/10+minWait)
	}
	limit := maxWait
	if attempt < 30 && minWait<<attempt < maxWait {
		limit = minWait << attempt
	}
	return rand.N(limit)
}

// retryAfter reads Retry-After (RFC 9110, section 10.2.3): seconds, or a date,
// which is taken against the server's own clock where the answer says it.
func retryAfter(resp *http.Response) time.Duration {
	if resp == nil {
		return 0
	}
	value := resp.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return max(0, at.Sub(now))
}
