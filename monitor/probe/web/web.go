// Package web has the question over HTTP: whether a page answers with the right
// status and text, over a connection that can be trusted.
package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/pawl-ota/pawl/monitor"
)

// Get is one GET of a page. Redirects are not followed: they are an answer
// like any other.
type Get struct {
	URL string
	// Status are the answers that are well; none means 200 to 299.
	Status []int
	// Body, if it is there, has to be found in the first 64 KiB of the answer.
	Body *regexp.Regexp
	// Header is sent along.
	Header http.Header
	// TLS configures https; nil trusts the authorities of the system.
	TLS *tls.Config
	// Valid is how long the server's certificate has to be valid still; 0 does
	// not ask.
	Valid time.Duration
}

const maxBody = 64 << 10

// Ask returns the question. Every time it makes a new connection: that one can
// be made is part of the answer.
func (g Get) Ask() monitor.Ask {
	client := &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:        g.TLS,
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: maxBody,
			Proxy:                  nil,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context) (string, error) { return g.ask(ctx, client) }
}

func (g Get) ask(ctx context.Context, client *http.Client) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL, nil)
	if err != nil {
		return "", fmt.Errorf("the URL is not one: %w", err)
	}
	if g.Header != nil {
		req.Header = g.Header.Clone()
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	saw := fmt.Sprintf("%s: %.100q", resp.Status, body)
	if err != nil {
		return saw, fmt.Errorf("the answer broke off: %w", err)
	}
	return saw, errors.Join(g.judge(resp, body), g.certificate(resp))
}

func (g Get) judge(resp *http.Response, body []byte) error {
	well := slices.Contains(g.Status, resp.StatusCode)
	if len(g.Status) == 0 {
		well = resp.StatusCode/100 == 2
	}
	switch {
	case !well:
		return fmt.Errorf("status %d", resp.StatusCode)
	case g.Body != nil && !g.Body.Match(body):
		return fmt.Errorf("the page does not match %v", g.Body)
	}
	return nil
}

func (g Get) certificate(resp *http.Response) error {
	switch {
	case g.Valid == 0:
		return nil
	case resp.TLS == nil || len(resp.TLS.PeerCertificates) == 0:
		return errors.New("there is no certificate")
	}
	until := resp.TLS.PeerCertificates[0].NotAfter
	if time.Until(until) < g.Valid {
		return fmt.Errorf("the certificate is valid only until %s", until.UTC().Format(time.DateOnly))
	}
	return nil
}
