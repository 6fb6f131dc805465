package fetch

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Options configure a [Client]. The zero value is useful.
type Options struct {
	// RootCAs are the only authorities that may sign a server's certificate;
	// nil means those of TLS, or else those of the system.
	RootCAs *x509.CertPool
	// TLS is for what RootCAs does not say: client certificates (a
	// [crypto.Signer] in hardware too), pinned keys, the time to check
	// certificates by on a device without a clock. It is copied. Versions
	// below 1.2 are never spoken.
	TLS *tls.Config
	// Header is sent with every request, a token say. It is not sent on to
	// another host that the server redirects to, nor shown in errors.
	Header http.Header
	// Proxy chooses the proxy, each time anew; see [http.ProxyURL]. nil means
	// what the environment said when it was first asked.
	Proxy func(*http.Request) (*url.URL, error)
	// UserAgent is "pawl" where it is empty.
	UserAgent string

	// Stall is how long nothing may come, while connecting or waiting for an
	// answer or its bytes; 0 means 30 s.
	Stall time.Duration
	// Total is how long one Get may take until its last byte; 0 means 24
	// hours.
	Total time.Duration
	// MinRate is the lowest rate in bytes a second, averaged over each two
	// Stall times that one Get waited for bytes; 0 means 128, a negative value no
	// limit.
	MinRate int64
	// MaxRate is how many bytes a second all of the Client's reads together
	// take on average, with at most a quarter of a second's at once; 0 means no
	// limit. Time spent waiting for it is not held against Stall and MinRate,
	// but it is against Total.
	MaxRate int64
	// Warn is told what somebody should know though nothing failed, once for
	// each host: ErrNoRanges. It may be called from any goroutine. nil means
	// nobody.
	Warn func(err error)
	// Redirects is how many redirects one request may take; 0 means 5, a
	// negative value none. From https to http none is followed.
	Redirects int
	// Retries is how many times a request is sent again, and how many times a
	// connection that broke is mended before 16 KiB more came; 0 means 4, a
	// negative value none.
	Retries int
	// RetryMin and RetryMax bound the wait before the next try: random from
	// nothing to a limit that doubles from RetryMin to RetryMax; 0 means 1 s
	// and 30 s. A server's Retry-After is kept to, where it is at most
	// ten times RetryMax; beyond that the [*StatusError] says it.
	RetryMin, RetryMax time.Duration
}

func (o Options) withDefaults() (Options, error) {
	for _, d := range []struct {
		field string
		value *time.Duration
		zero  time.Duration
	}{
		{"Stall", &o.Stall, 30 * time.Second},
		{"Total", &o.Total, 24 * time.Hour},
		{"RetryMin", &o.RetryMin, time.Second},
		{"RetryMax", &o.RetryMax, 30 * time.Second},
	} {
		if *d.value < 0 {
			return o, fmt.Errorf("fetch: Options.%s is negative", d.field)
		}
		if *d.value == 0 {
			*d.value = d.zero
		}
	}
	if o.MaxRate < 0 {
		return o, errors.New("fetch: Options.MaxRate is negative")
	}
	if o.RetryMax < o.RetryMin {
		return o, errors.New("fetch: Options.RetryMax is below RetryMin")
	}
	o.MinRate = orDefault(o.MinRate, 128)
	o.Redirects = orDefault(o.Redirects, 5)
	o.Retries = orDefault(o.Retries, 4)
	if o.UserAgent == "" {
		o.UserAgent = "pawl"
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	if o.Proxy == nil {
		o.Proxy = http.ProxyFromEnvironment
	}
	return o, nil
}

// orDefault reads a limit: 0 means the default, below 0 means none.
func orDefault[N int | int64](v, zero N) N {
	if v == 0 {
		return zero
	}
	return max(v, 0)
}
