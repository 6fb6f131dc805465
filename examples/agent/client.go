package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/pawl-ota/pawl/ota/fetch"
)

// client makes the transport. A proxy comes from the environment, as
// HTTPS_PROXY and NO_PROXY.
func (c *config) client(warn func(error)) (*fetch.Client, error) {
	options := fetch.Options{
		Stall:     time.Duration(c.Limits.Stall),
		MaxRate:   c.Limits.Rate,
		Warn:      warn,
		UserAgent: "pawl-agent",
		Header:    map[string][]string{},
		TLS:       &tls.Config{MinVersion: tls.VersionTLS12},
	}
	for name, value := range c.Source.Headers {
		options.Header.Set(name, value)
	}
	if c.Source.CA != "" {
		pool, err := authorities(c.Source.CA)
		if err != nil {
			return nil, errUsage{fmt.Errorf("source.ca: %w", err)}
		}
		options.RootCAs = pool
	}
	if c.Source.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Source.Cert, c.Source.Key)
		if err != nil {
			return nil, errUsage{fmt.Errorf("source.cert: %w", err)}
		}
		options.TLS.Certificates = []tls.Certificate{pair}
	}
	return fetch.New(options)
}

// authorities reads certificates in PEM form.
func authorities(path string) (*x509.CertPool, error) {
	data, err := readAtMost(path, maxTrusted)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return pool, nil
}
