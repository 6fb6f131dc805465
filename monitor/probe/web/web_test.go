package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func serve(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/ok":
		_, _ = w.Write([]byte("state: ready\n" + r.Header.Get("X-Key")))
	case "/moved":
		http.Redirect(w, r, "/ok", http.StatusFound)
	case "/long":
		_, _ = w.Write([]byte(strings.Repeat("x", 1<<20) + "ready"))
	case "/half":
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("half"))
	case "/hang":
		<-r.Context().Done()
	default:
		http.Error(w, "not now", http.StatusServiceUnavailable)
	}
}

func TestGet(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(serve))
	defer s.Close()
	ready := regexp.MustCompile("ready")
	for _, c := range []struct {
		name      string
		g         Get
		saw, want string
	}{
		{"well", Get{URL: "/ok", Body: ready}, `200 OK: "state: ready\n"`, ""},
		{"header", Get{URL: "/ok", Header: http.Header{"X-Key": {"secret"}}, Body: regexp.MustCompile("secret")}, "200", ""},
		{"bad text", Get{URL: "/ok", Body: regexp.MustCompile("^done")}, "200", "does not match ^done"},
		{"bad status", Get{URL: "/none"}, "not now", "status 503"},
		{"wanted status", Get{URL: "/none", Status: []int{204, 503}}, "503", ""},
		{"unwanted status", Get{URL: "/ok", Status: []int{204}}, "200", "status 200"},
		{"moved", Get{URL: "/moved"}, "302", "status 302"},
		{"long", Get{URL: "/long", Body: ready}, "200 OK", "does not match"},
		{"half", Get{URL: "/half"}, "200 OK: \"half\"", "broke off"},
		{"no certificate", Get{URL: "/ok", Valid: time.Hour}, "200", "no certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.g.URL = s.URL + c.g.URL
			saw, err := c.g.Ask()(t.Context())
			require.Contains(t, saw, c.saw)
			if c.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.want)
			}
		})
	}
}

func TestGetEndsWithItsContext(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(serve))
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := Get{URL: s.URL + "/hang"}.Ask()(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = Get{URL: "http://127.0.0.1:1/"}.Ask()(t.Context())
	require.ErrorContains(t, err, "refused")
	_, err = Get{URL: ":"}.Ask()(t.Context())
	require.ErrorContains(t, err, "not one")
}

func TestGetOverTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(serve))
	s.Config.ErrorLog = nil
	s.StartTLS()
	defer s.Close()
	_, err := Get{URL: s.URL + "/ok"}.Ask()(t.Context())
	require.ErrorContains(t, err, "certificate", "nobody vouches for it")
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	trusting := Get{URL: s.URL + "/ok", TLS: &tls.Config{RootCAs: pool}, Valid: time.Hour}
	_, err = trusting.Ask()(t.Context())
	require.NoError(t, err)
	trusting.Valid = time.Until(s.Certificate().NotAfter) + time.Hour
	_, err = trusting.Ask()(t.Context())
	require.ErrorContains(t, err, "valid only until")
}
